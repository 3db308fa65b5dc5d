"""The native library: C++ kernels that take the CPU dispatch key of vsquant's operators when they are loaded.

Without it every operator runs its eager kernel, which gives the same codes and integer sums.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import torch

from vsquant import errors

LIBRARY: Final = Path(__file__).with_name("_native.so")
NOT_BUILT: Final = (
    "the native library was not built; with a C++ compiler, reinstall vsquant (in a checkout: make native)"
)
_ERRORS: Final = {
    error.__name__: error
    for error in (
        errors.BackendError,
        errors.NonFiniteError,
        errors.ScaleRangeError,
        errors.ShapeError,
        errors.SpecError,
    )
}


@dataclass(frozen=True, kw_only=True)
class InstructionSet:
    """One instruction set: whether kernels for it were built, and whether this processor and system have it."""

    name: str
    built: bool
    supported: bool


@dataclass(frozen=True, kw_only=True)
class NativeStatus:
    """Which kernels run. ``isa`` is None exactly where the library is not available; ``reason`` says why."""

    available: bool
    isa: str | None
    reason: str
    instruction_sets: tuple[InstructionSet, ...] = ()

    @property
    def supported(self) -> tuple[str, ...]:
        """The instruction sets that VSQUANT_ISA may name, the preferred first."""
        return tuple(isa.name for isa in self.instruction_sets if isa.built and isa.supported)


@lru_cache(maxsize=1)
def load() -> NativeStatus:
    """Load the library, once, and warn once if it is not there.

    Raises:
        BackendError: VSQUANT_ISA names an instruction set that cannot run.
    """
    status = _load(LIBRARY)
    if not status.available:
        text = f"vsquant runs its eager PyTorch kernels: {status.reason}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return status


def status() -> NativeStatus:
    """As `load`, whose result does not change while the process lives."""
    return load()


def translated(error: Exception) -> Exception:
    """The error that a native operator meant: its message begins with the name of a class of `vsquant.errors`.

    An error of another origin is given back as it is.
    """
    name, separator, message = str(error).partition(": ")
    if isinstance(error, errors.VsquantError) or not separator or name not in _ERRORS:
        return error
    return _ERRORS[name](message)


def _load(library: Path) -> NativeStatus:
    forced = os.environ.get("VSQUANT_ISA", "")
    reason = ""
    if not library.is_file():
        reason = NOT_BUILT
    else:
        try:
            torch.ops.load_library(library)  # type: ignore[no-untyped-call]
        except OSError as error:
            reason = f"the native library cannot be loaded: {error.__cause__ or error}"
    if reason and forced:
        raise errors.BackendError(f"VSQUANT_ISA must not be set, not be {forced!r}, where {reason}")
    if reason:
        return NativeStatus(available=False, isa=None, reason=reason)
    return _described(json.loads(torch.ops.vsquant.native_description()))


def _described(description: dict[str, object]) -> NativeStatus:
    if description["error"]:
        raise errors.BackendError(str(description["error"]))
    isa = str(description["isa"])
    sets = description["instruction_sets"]
    assert isinstance(sets, list)
    why = "VSQUANT_ISA names it" if description["forced"] else "the widest that was built and this processor has"
    return NativeStatus(
        available=True,
        isa=isa,
        reason=why,
        instruction_sets=tuple(InstructionSet(**each) for each in sets),
    )
