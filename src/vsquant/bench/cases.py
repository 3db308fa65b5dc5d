"""The cases: what is timed, as plain data. A case's name is what `--case` matches and result files are keyed by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vsquant.bench.targets import NO_TARGET, Target
from vsquant.spec.workload import Workload

Group: TypeAlias = Literal["linear", "conv", "fake-quantize", "model", "cell"]
GROUPS: Final[dict[str, tuple[Group, ...]]] = {
    "kernel": ("linear", "conv", "fake-quantize"),
    "model": ("model",),
    "cell": ("cell",),
    "all": ("linear", "conv", "fake-quantize", "model", "cell"),
}
COLD_BYTES: Final = 128 << 20
"""Weights of cold cases rotate through at least this much memory, several times a last-level cache."""

_LINEAR_SPECS: Final = (
    "w4a8-s4/x-token", "w4a4-s4/4-token", "w4a8-s4/4-token", "w4a8-s4/8-token", "w4a8-s4/10-token",
    "w4a8-s6/8-token", "w4a8-s6/x-token", "w4a8-s8/x-token",
)  # fmt: skip
_CONV_SPECS: Final = tuple(spec.removesuffix("-token") for spec in _LINEAR_SPECS)


@dataclass(frozen=True, kw_only=True)
class Case(ABC):
    """One piece of work that contenders are timed on, side by side.

    ``specs`` are the formats vsquant runs it in, the first being the one that ``targets`` speak of.
    """

    specs: tuple[str, ...]
    target: Target = NO_TARGET

    @property
    @abstractmethod
    def name(self) -> str:
        """The unique name: ``linear-1x4096x4096``."""

    @property
    @abstractmethod
    def group(self) -> Group:
        """Which result file the case is kept in."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The work in words."""

    @property
    def workload(self) -> Workload | None:
        """The layer's shape, from which operations and bytes are counted; None for work that is no single layer."""
        return None

    @property
    def batch(self) -> int:
        """Samples in one call."""
        return 1


@dataclass(frozen=True, kw_only=True)
class LinearCase(Case):
    """A linear layer over ``rows`` rows of ``inputs`` features; ``cold``: every call takes weights out of memory."""

    rows: int
    inputs: int
    outputs: int
    cold: bool = False
    specs: tuple[str, ...] = _LINEAR_SPECS

    @property
    def name(self) -> str:
        return f"linear-{self.rows}x{self.inputs}x{self.outputs}"

    @property
    def group(self) -> Group:
        return "linear"

    @property
    def title(self) -> str:
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"Linear {self.inputs}×{self.outputs}, {rows}{', cold weights' if self.cold else ''}"

    @property
    def workload(self) -> Workload:
        return Workload(kind="linear", outputs=self.outputs, reduction=self.inputs, positions=self.rows)


@dataclass(frozen=True, kw_only=True)
class ConvCase(Case):
    """A square convolution of ResNet-50: ``size``² pixels in, padding ``kernel // 2``."""

    images: int
    inputs: int
    outputs: int
    size: int
    kernel: int
    stride: int = 1
    specs: tuple[str, ...] = _CONV_SPECS

    @property
    def name(self) -> str:
        return f"conv{self.kernel}x{self.kernel}-{self.images}x{self.size}x{self.size}-{self.inputs}x{self.outputs}"

    @property
    def group(self) -> Group:
        return "conv"

    @property
    def title(self) -> str:
        size, kernel = f"{self.size}²", f"{self.kernel}×{self.kernel}"
        return f"Conv {kernel} {self.inputs}→{self.outputs} at {size}, batch {self.images}"

    @property
    def padding(self) -> int:
        """Zeros on each side."""
        return self.kernel // 2

    @property
    def output_size(self) -> int:
        """Pixels of a side of the result."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def batch(self) -> int:
        return self.images

    @property
    def workload(self) -> Workload:
        return Workload(
            kind="conv",
            outputs=self.outputs,
            reduction=self.inputs,
            positions=self.output_size**2,
            kernel=(self.kernel, self.kernel),
            stride=(self.stride, self.stride),
            padding=(self.padding, self.padding),
        )


@dataclass(frozen=True, kw_only=True)
class FakeQuantizeCase(Case):
    """Quantizing and dequantizing a matrix into a warm buffer."""

    rows: int
    length: int
    specs: tuple[str, ...] = ("w4a8-s4/x", "w8a8-s8/x", "w4a8-sfp32/x", "w4a8")

    @property
    def name(self) -> str:
        return f"fake-quantize-{self.rows}x{self.length}"

    @property
    def group(self) -> Group:
        return "fake-quantize"

    @property
    def title(self) -> str:
        return f"Fake-quantize {self.rows}×{self.length} into a warm buffer"


@dataclass(frozen=True, kw_only=True)
class ModelCase(Case):
    """A whole network with random weights: ``bert-base`` over 384 tokens, or ``resnet50`` over 224² images."""

    model: Literal["bert-base", "resnet50"]
    images: int

    @property
    def name(self) -> str:
        return f"{self.model}-b{self.images}"

    @property
    def group(self) -> Group:
        return "model"

    @property
    def title(self) -> str:
        work = "BERT-base, 384 tokens" if self.model == "bert-base" else "ResNet-50, 224²"
        return f"{work}, batch {self.images}"

    @property
    def batch(self) -> int:
        return self.images


@dataclass(frozen=True, kw_only=True)
class CellCase(Case):
    """Evaluating one cell of an accuracy table, simulated, beside evaluating the float network."""

    task: str
    samples: int

    @property
    def name(self) -> str:
        return f"cell-{self.task}"

    @property
    def group(self) -> Group:
        return "cell"

    @property
    def title(self) -> str:
        return f"Table cell of {self.task}, {self.samples} samples"
