"""The post-processing unit: its widths, and its fixed-point constants from a layer's coarse scales.

What it computes is `vsquant.reference.post_process`, eqs. (H1)-(H5). Static activation scales only: a dynamic gamma is
known when the whole tensor is, and the unit sees one vector at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int64

from vsquant.errors import ScaleRangeError, SpecError, WidthError
from vsquant.hardware.lane import Lane
from vsquant.reference import PostProcessing
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.spec.widths import integer_operand

DEFAULT_FRACTION_BITS: Final = 8
DEFAULT_MULTIPLIER_BITS: Final = 16
BIAS_BITS: Final = 32
WIDEST_PRODUCT_BITS: Final = 63
"""Bits of S * m in which the definition is computed."""

PerChannel: TypeAlias = Float32[np.ndarray, " k"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PostProcessingUnit:
    """A unit that takes ``lane``'s sums and gives codes of ``output``, the next layer's activation format.

    ``fraction_bits`` F sets the unit of a value, gamma_out * 2^-F; ``multiplier_bits`` is the mantissa of a channel's
    multiplier. A value is off by at most 1 unit + 2^-multiplier_bits of what it was before its bias; without a bias a
    code's quotient then is by at most 2^-F / sigma + q * 2^-multiplier_bits steps, and what lies nearer than that to a
    tie may become the neighbouring code.

    Invariants: ``output`` has integer vector scales or none; F >= 1; accumulator and multiplier together have at most
    63 bits.
    """

    lane: Lane
    output: IntegerFormat
    fraction_bits: int = DEFAULT_FRACTION_BITS
    multiplier_bits: int = DEFAULT_MULTIPLIER_BITS

    def __post_init__(self) -> None:
        integer_operand(self.output, "output")
        for name in ("fraction_bits", "multiplier_bits"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.product_bits > WIDEST_PRODUCT_BITS:
            raise WidthError(
                f"accumulator_bits + multiplier_bits must be at most {WIDEST_PRODUCT_BITS}, not "
                f"{self.lane.accumulator_bits} + {self.multiplier_bits}; lower max_reduction_length or multiplier_bits"
            )

    @classmethod
    def between(
        cls,
        lane: Lane,
        following: LayerSpec,
        *,
        scale_mode: ScaleMode = "requantize",
        fraction_bits: int = DEFAULT_FRACTION_BITS,
        multiplier_bits: int = DEFAULT_MULTIPLIER_BITS,
    ) -> PostProcessingUnit:
        """The unit between a lane and a layer that is quantized by ``following``.

        Raises:
            SpecError: the following layer's activation scales are dynamic, floating point or found in a mode that the
                unit does not have; the message has the reason.
        """
        output = integer_operand(following.activation, "activation")
        if following.is_dynamic:
            raise SpecError(
                f"post-processing must have a static activation scale, not {following}: a dynamic gamma is known only "
                f"when the whole tensor is; calibrate the layer (-static)"
            )
        if scale_mode not in ("requantize", "search"):
            reason = {"paper": "its codes divide by a floating-point scale of each vector"}
            raise SpecError(
                f"post-processing must be of scale mode 'requantize', not {scale_mode!r}: "
                f"{reason.get(scale_mode, 'it would have to try several scales for each vector')}"
            )
        return cls(lane=lane, output=output, fraction_bits=fraction_bits, multiplier_bits=multiplier_bits)

    @property
    def product_bits(self) -> int:
        """Two's complement bits of a sum times its multiplier."""
        return self.lane.accumulator_bits + self.multiplier_bits

    @property
    def value_bits(self) -> int:
        """T: the fewest bits whose largest value is at least qmax * top units of gamma_out, so that what saturates
        there gets the largest scale and the largest code, as it would without a limit.
        """
        return 1 + ((self.output.qmax * self.output.scale_top) << self.fraction_bits).bit_length()

    @property
    def shift_bits(self) -> int:
        """Bits of a channel's shift, at most ``product_bits`` - 1: more would round every sum to zero."""
        return (self.product_bits - 1).bit_length()

    @property
    def vector_size(self) -> int:
        """Output channels that share a scale; the lane's V where the output has no vector scales."""
        return self.output.vector_size or self.lane.vector_size

    def constants(
        self,
        *,
        weight_coarse: PerChannel,
        activation_coarse: float,
        output_coarse: float,
        bias: PerChannel | None,
        relu: bool,
    ) -> PostProcessing:
        """Eq. (H1)'s m, r and B of a layer with these coarse scales: gamma_w, gamma_a and the next layer's gamma.

        m * 2^-r is nearest to gamma_a * gamma_w * 2^(d+F) / gamma_out with the highest bit of m set; m is 0 where
        every sum would round to 0.

        Raises:
            ScaleRangeError: the output's coarse scale is not positive, or so small that a shift would be to the left.
            WidthError: a bias does not fit 32 bits in units of gamma_out * 2^-F.
        """
        if not output_coarse > 0:
            raise ScaleRangeError(f"output_coarse must be positive, not {output_coarse}; calibrate the next layer")
        unit = np.float64(output_coarse) * 2.0**-self.fraction_bits
        ratio = np.float64(activation_coarse) * weight_coarse.astype(np.float64) * 2.0**self.lane.scale_shift / unit
        multiplier, shift = self._fixed_point(ratio)
        biases = np.zeros(len(ratio)) if bias is None else np.rint(bias.astype(np.float64) / unit)
        if np.abs(biases).max(initial=0) >= 1 << (BIAS_BITS - 1):
            raise WidthError(
                f"a bias must fit {BIAS_BITS} bits in units of gamma_out * 2^-{self.fraction_bits}, {unit:.3g}, "
                f"not be {np.abs(biases).max():.0f} units; lower fraction_bits"
            )
        return PostProcessing(
            format=self.output,
            fraction_bits=self.fraction_bits,
            value_bits=self.value_bits,
            relu=relu,
            multiplier=multiplier,
            shift=shift,
            bias=biases.astype(np.int64),
        )

    def _fixed_point(self, ratio: Float64[np.ndarray, " k"]) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
        """(m, r) with m * 2^-r nearest to each ratio >= 0."""
        fraction, exponent = np.frexp(ratio)
        multiplier = np.rint(np.ldexp(fraction, self.multiplier_bits)).astype(np.int64)
        carry = multiplier >> self.multiplier_bits
        multiplier, shift = multiplier >> carry, self.multiplier_bits - exponent.astype(np.int64) - carry
        if (shift[ratio > 0] < 0).any():
            raise ScaleRangeError(
                f"one unit of a sum must be less than 2^{self.multiplier_bits} units of gamma_out * "
                f"2^-{self.fraction_bits}, not {ratio.max():.3g}; the next layer's range is too small for its input"
            )
        vanishes = (ratio == 0) | (shift >= self.product_bits)
        return np.where(vanishes, 0, multiplier), np.where(vanishes, 0, shift)

    def verilog_parameters(self) -> dict[str, int]:
        """The parameters of the RTL's unit by their names there, but for how many elements it takes a cycle."""
        return {
            "V": self.vector_size,
            "ACC_BITS": self.lane.accumulator_bits,
            "MULT_BITS": self.multiplier_bits,
            "SHIFT_BITS": self.shift_bits,
            "BIAS_BITS": BIAS_BITS,
            "T_BITS": self.value_bits,
            "FRACTION_BITS": self.fraction_bits,
            "CODE_BITS": self.output.bits,
            "CODE_SIGNED": int(self.output.signed),
            "SCALE_BITS": self.output.scale_storage_bits,
        }
