"""One vector MAC lane: what a layer spec makes of its widths. The model and the RTL both take them from here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vsquant.errors import SpecError
from vsquant.spec import widths
from vsquant.spec.formats import DEFAULT_VECTOR_SIZE, MAX_VECTOR_SIZE, MIN_VECTOR_SIZE, IntegerFormat
from vsquant.spec.layer import LayerSpec

DEFAULT_MAX_REDUCTION_LENGTH: Final = 4096

Range = tuple[int, int]
"""Smallest and largest value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """The datapath of eqs. (7)-(8): V multipliers, an adder tree, a scale multiplier and an accumulator.

    Every width is the smallest that holds every value the formats allow. ``max_reduction_length`` is what the
    accumulator is sized for, in elements; a longer reduction is drained in parts of ``max_vectors`` vectors.

    Invariants: both formats have integer vector scales or none; a format with vectors has the lane's ``vector_size``;
    ``product_bits`` needs vector scales on both; weights are signed; ``max_reduction_length >= vector_size``.
    """

    weight: IntegerFormat
    activation: IntegerFormat
    product_bits: int | None
    vector_size: int
    max_reduction_length: int = DEFAULT_MAX_REDUCTION_LENGTH

    def __post_init__(self) -> None:
        spec = LayerSpec(weight=self.weight, activation=self.activation, product_bits=self.product_bits)
        widths.integer_operand(spec.weight, "weight")
        widths.integer_operand(spec.activation, "activation")
        if type(self.vector_size) is not int or not MIN_VECTOR_SIZE <= self.vector_size <= MAX_VECTOR_SIZE:
            raise SpecError(f"vector_size must be {MIN_VECTOR_SIZE}..{MAX_VECTOR_SIZE}, not {self.vector_size!r}")
        if spec.vector_size not in (None, self.vector_size):
            raise SpecError(
                f"vector_size must be the spec's V, {spec.vector_size}, where vectors have scales, "
                f"not {self.vector_size}"
            )
        if type(self.max_reduction_length) is not int or self.max_reduction_length < self.vector_size:
            raise SpecError(
                f"max_reduction_length must be at least one vector, {self.vector_size}, "
                f"not {self.max_reduction_length!r}"
            )

    @classmethod
    def for_spec(
        cls,
        spec: LayerSpec,
        *,
        vector_size: int | None = None,
        max_reduction_length: int = DEFAULT_MAX_REDUCTION_LENGTH,
    ) -> Lane:
        """The lane of a layer spec; ``vector_size`` is 16 unless the spec or the caller says otherwise.

        Raises:
            SpecError: the spec has no integer sum (a16, fp16/fp32 vector scales, comparison formats), or a size
                breaks an invariant.
        """
        weight = widths.integer_operand(spec.weight, "weight")
        activation = widths.integer_operand(spec.activation, "activation")
        if vector_size is None:
            vector_size = spec.vector_size or DEFAULT_VECTOR_SIZE
        return cls(
            weight=weight,
            activation=activation,
            product_bits=spec.product_bits,
            vector_size=vector_size,
            max_reduction_length=max_reduction_length,
        )

    @property
    def weight_bits(self) -> int:
        """Bits of a weight code, two's complement."""
        return self.weight.bits

    @property
    def activation_bits(self) -> int:
        """Bits of an activation code, two's complement where ``activation_signed``."""
        return self.activation.bits

    @property
    def activation_signed(self) -> bool:
        """Whether activation codes have a sign."""
        return self.activation.signed

    @property
    def weight_scale_bits(self) -> int:
        """Bits in which a weight vector scale is fed (sigma - 1 under ``-top``); 0 without vector scales."""
        return self.weight.scale_storage_bits

    @property
    def activation_scale_bits(self) -> int:
        """Bits in which an activation vector scale is fed; 0 without vector scales."""
        return self.activation.scale_storage_bits

    @property
    def has_scale_product(self) -> bool:
        """Whether any side has vector scales: without them the dot product is what is accumulated."""
        return self.weight.two_level or self.activation.two_level

    @property
    def scale_shift(self) -> int:
        """Shift d of eq. (8); 0 where the scale product is exact."""
        return widths.product_shift(self.weight, self.activation, self.product_bits)

    @property
    def max_scale_product(self) -> int:
        """Largest scale product after eq. (8); 1 without vector scales."""
        return widths.max_scale_product(self.weight, self.activation, self.product_bits)

    @property
    def scale_product_bits(self) -> int:
        """Unsigned bits of a scale product after eq. (8); 0 without vector scales."""
        return self.max_scale_product.bit_length() if self.has_scale_product else 0

    @property
    def code_product_range(self) -> Range:
        """Range of one weight code times one activation code."""
        return widths.code_product_range(self.weight, self.activation)

    @property
    def dot_range(self) -> Range:
        """Range of the adder tree's output, V code products."""
        return _scaled(self.code_product_range, self.vector_size)

    @property
    def scaled_range(self) -> Range:
        """Range of one vector's part of the sum: the dot product times the scale product."""
        return _scaled(self.dot_range, self.max_scale_product)

    @property
    def accumulator_range(self) -> Range:
        """Range of the sum over ``max_reduction_length`` elements."""
        return _scaled(self.code_product_range, self.max_scale_product * self.max_reduction_length)

    @property
    def code_product_bits(self) -> int:
        """Two's complement bits of one code product."""
        return signed_bits(self.code_product_range)

    @property
    def dot_bits(self) -> int:
        """Two's complement bits of the dot product of two vectors' codes."""
        return signed_bits(self.dot_range)

    @property
    def scaled_bits(self) -> int:
        """Two's complement bits of one vector's part of the sum."""
        return signed_bits(self.scaled_range)

    @property
    def accumulator_bits(self) -> int:
        """Two's complement bits of the accumulator, eq. (9)."""
        return widths.accumulator_bits(self.weight, self.activation, self.product_bits, self.max_reduction_length)

    @property
    def max_vectors(self) -> int:
        """Most whole vectors that the accumulator can add up without ever wrapping, whatever they hold."""
        longest = widths.max_reduction_length(self.weight, self.activation, self.product_bits, self.accumulator_bits)
        return longest // self.vector_size

    def verilog_parameters(self) -> dict[str, int]:
        """The parameters of the RTL's lane by their names there; ``PB`` is 0 where eq. (8) rounds nothing."""
        return {
            "V": self.vector_size,
            "WB": self.weight_bits,
            "AB": self.activation_bits,
            "A_SIGNED": int(self.activation_signed),
            "WSB": self.weight_scale_bits,
            "ASB": self.activation_scale_bits,
            "PB": (self.product_bits or 0) if self.scale_shift else 0,
            "W_TOP": int(self.weight.scale_top_pow2),
            "SCALE_PRODUCT_BITS": self.scale_product_bits,
            "DOT_BITS": self.dot_bits,
            "SCALED_BITS": self.scaled_bits,
            "ACC_BITS": self.accumulator_bits,
            "MAX_VECTORS": self.max_vectors,
        }


def signed_bits(values: Range) -> int:
    """Smallest two's complement width that holds every integer of a range from negative to positive."""
    low, high = values
    return 1 + max(high.bit_length(), (-low - 1).bit_length())


def _scaled(values: Range, factor: int) -> Range:
    return values[0] * factor, values[1] * factor
