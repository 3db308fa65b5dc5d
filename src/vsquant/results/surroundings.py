"""What vsquant runs on: versions, threads, and which kernels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class InstructionSetState:
    """One instruction set of the native kernels: whether it was built, the processor has it, and it runs."""

    name: str
    built: bool
    supported: bool
    used: bool

    @property
    def text(self) -> str:
        """What of it: in use, or why not."""
        if self.used:
            return "in use"
        if self.built and self.supported:
            return f"can run: VSQUANT_ISA={self.name}"
        missing = ("" if self.built else "was not built", "" if self.supported else "this processor does not have it")
        return ", ".join(text for text in missing if text)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Versions, threads and kernels. ``isa`` is None where eager PyTorch runs; ``reason`` says why these run.

    ``integer_backend`` is what VSQUANT_BACKEND makes integer layers run on; None where each takes the fastest.
    """

    vsquant: str
    torch: str
    python: str
    threads: int
    isa: str | None
    reason: str
    instruction_sets: tuple[InstructionSetState, ...] = ()
    integer_backend: str | None = None

    @property
    def versions_text(self) -> str:
        """All versions in one line."""
        return f"vsquant {self.vsquant}, torch {self.torch}, Python {self.python}, {self.threads} threads"

    @property
    def eager_is_forced(self) -> bool:
        """Whether integer layers run eager only because VSQUANT_BACKEND says so."""
        return self.integer_backend == "eager" and self.isa is not None

    @property
    def kernels_text(self) -> str:
        """Which kernels run, and why, in one line."""
        if self.eager_is_forced:
            return (
                "kernels: eager PyTorch for integer layers: VSQUANT_BACKEND is 'eager'; "
                f"native, {self.isa}, for fake quantization only"
            )
        forced = "" if self.integer_backend is None else f"; VSQUANT_BACKEND is {self.integer_backend!r}"
        return f"kernels: {'eager PyTorch' if self.isa is None else f'native, {self.isa}'}: {self.reason}{forced}"

    def text_of(self, isa: InstructionSetState) -> str:
        """What of one of the instruction sets: in use and for what, or why not."""
        return "in use for fake quantization only" if isa.used and self.eager_is_forced else isa.text
