"""A layer's shape, apart from how it is quantized: what storage, padding and energy are counted from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from vsquant.errors import SpecError
from vsquant.spec.formats import padded_length

WorkloadKind: TypeAlias = Literal["linear", "conv", "matmul", "embedding"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The shape of one layer for one sample.

    ``outputs`` counts output features, output channels over all groups, columns over all heads (matmul), or rows of
    the table (embedding). ``reduction`` is the length that vectors divide: input features, input channels of one
    group, the contracted dimension, or embedding_dim. ``positions`` counts the output positions of one sample:
    pixels, tokens, or rows. A matmul's heads are its ``groups``. ``input_size`` and ``output_size`` are (H, W) of a
    convolution's input, before padding, and of its output, where they were recorded; ``padding`` is what precedes.

    Invariants: counts are positive, padding is not negative, groups divide outputs, only a convolution has a kernel,
    stride, padding, dilation or sizes, sizes come together, and the output's size has as many pixels as there are
    positions.
    """

    kind: WorkloadKind
    outputs: int
    reduction: int
    positions: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    input_size: tuple[int, int] | None = None
    output_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(WorkloadKind):
            raise SpecError(f"kind must be one of {', '.join(get_args(WorkloadKind))}, not {self.kind!r}")
        for name in ("outputs", "reduction", "positions", "groups"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            if min(getattr(self, name)) < least:
                raise SpecError(f"{name} must be at least {least} in both directions, not {getattr(self, name)}")
        if self.outputs % self.groups:
            raise SpecError(f"groups must divide the outputs, {self.outputs}, not be {self.groups}")
        geometry = (self.kernel, self.stride, self.padding, self.dilation)
        if self.kind != "conv" and geometry != ((1, 1), (1, 1), (0, 0), (1, 1)):
            raise SpecError(f"kernel, stride, padding and dilation must be left out of a {self.kind}; not {geometry}")
        self._check_sizes()

    def _check_sizes(self) -> None:
        if (self.input_size is None) != (self.output_size is None):
            raise SpecError("input_size must come with output_size, and output_size with input_size")
        if self.input_size is None or self.output_size is None:
            return
        if self.kind != "conv" or min(self.input_size) < 1:
            raise SpecError(f"input_size must be two positive numbers of a convolution, not {self.input_size}")
        if self.output_size[0] * self.output_size[1] != self.positions:
            raise SpecError(f"output_size must have {self.positions} positions, not {self.output_size}")

    @property
    def taps(self) -> int:
        """Kernel positions R*S."""
        return self.kernel[0] * self.kernel[1]

    @property
    def reduction_length(self) -> int:
        """Elements summed into one output: C*R*S."""
        return self.reduction * self.taps

    @property
    def input_positions(self) -> int:
        """Positions of one sample's input: its pixels; as many as strides skip where the sizes were not recorded."""
        if self.input_size is not None:
            return self.input_size[0] * self.input_size[1]
        return self.positions * self.stride[0] * self.stride[1]

    @property
    def weight_elements(self) -> int:
        """Stored weights; a matmul has none."""
        return 0 if self.kind == "matmul" else self.outputs * self.reduction_length

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample; a table look-up needs none."""
        return 0 if self.kind == "embedding" else self.outputs * self.reduction_length * self.positions

    def vectors(self, vector_size: int | None) -> int:
        """Vectors summed into one output, R*S*ceil(C/V); without vectors the whole reduction is one."""
        return 1 if vector_size is None else self.taps * (padded_length(self.reduction, vector_size) // vector_size)

    def padding_elements(self, vector_size: int | None) -> int:
        """Zeros that padding to whole vectors adds to one output's reduction."""
        return self.taps * (padded_length(self.reduction, vector_size) - self.reduction)

    def padding_overhead(self, vector_size: int | None) -> float:
        """Those zeros as a fraction of the real elements: 0 where V divides the reduction."""
        return self.padding_elements(vector_size) / self.reduction_length
