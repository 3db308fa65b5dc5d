"""Equations (H1)-(H5): from the integer sums of one layer to the codes of the next, on integers alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int32, Int64, Integer

from vsquant.errors import ShapeError, SpecError, WidthError
from vsquant.reference.integer_formats import split_vectors
from vsquant.spec.formats import IntegerFormat

Values: TypeAlias = Int64[np.ndarray, "n k"]

LARGEST_INT64 = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class PostProcessing:
    """The constants of one layer's post-processing; values are integers t in units of gamma_out * 2^-F.

    ``format`` is that of the next layer's activations, ``fraction_bits`` is F and ``value_bits`` T. ``multiplier`` m
    and ``shift`` r are one per output channel; ``bias`` B is too, or one per element where a residual is added to it.

    Invariants: F >= 1; the format is no weight's (no ``-full``, ``-top``, ``-g16``) and has integer vector scales or
    none; m and r are not negative; T bits hold the largest value the format has.
    """

    format: IntegerFormat
    fraction_bits: int
    value_bits: int
    relu: bool
    multiplier: Integer[np.ndarray, " k"]
    shift: Integer[np.ndarray, " k"]
    bias: Integer[np.ndarray, "*n k"]

    def __post_init__(self) -> None:
        fmt = self.format
        if not fmt.has_coarse_scale or fmt.full_range or fmt.scale_top_pow2:
            raise SpecError(f"post-processing makes activation codes under a coarse scale, not codes of {fmt}")
        if self.fraction_bits < 1:
            raise SpecError(f"fraction_bits must be at least 1, not {self.fraction_bits}")
        if self.largest_value < (fmt.qmax * fmt.scale_top) << self.fraction_bits:
            raise SpecError(
                f"value_bits must be more than {((fmt.qmax * fmt.scale_top) << self.fraction_bits).bit_length()} to "
                f"hold qmax * top * 2^F, not {self.value_bits}"
            )
        if (self.multiplier < 0).any() or (self.shift < 0).any() or self.multiplier.shape != self.shift.shape:
            raise ShapeError("multiplier and shift must be one integer each for every channel, not negative")

    @property
    def largest_value(self) -> int:
        """What t saturates at, on both sides: 2^(T-1) - 1."""
        return (1 << (self.value_bits - 1)) - 1


class PostProcessed(NamedTuple):
    """Values t (rows, K), codes (rows, ceil(K/V), V), tails padded with zeros, and sigma (rows, ceil(K/V)) or None."""

    values: Values
    codes: Int32[np.ndarray, "n vectors V"]
    vector_scale: Int32[np.ndarray, "n vectors"] | None


def post_process(sums: Values, constants: PostProcessing) -> PostProcessed:
    """Sums S of eq. (7), (rows, K), to the next layer's activation codes under a static gamma (scale mode requantize).

    Raises:
        WidthError: S * m would not fit 64 bits, in which this definition is computed.
    """
    fmt, fraction = constants.format, constants.fraction_bits
    t = np.clip(
        rescale(sums, constants.multiplier, constants.shift) + constants.bias,
        -constants.largest_value,
        constants.largest_value,
    )
    t = np.maximum(t, 0) if constants.relu else t
    vectors = split_vectors(t, fmt.vector_size)
    magnitude = np.abs(vectors) if fmt.signed else np.maximum(vectors, 0)
    if fmt.scale is None:
        sigma = np.ones(vectors.shape[:2], dtype=np.int64)
    else:
        largest = magnitude.max(axis=2, initial=0)
        sigma = np.minimum(divided(largest, np.int64(fmt.qmax), fraction), fmt.scale_top)
        sigma = np.where(largest > 0, np.maximum(sigma, 1), sigma)
    quotient = np.minimum(divided(magnitude, np.maximum(sigma, 1)[..., None], fraction), fmt.qmax)
    codes = (np.sign(vectors) * quotient).astype(np.int32)
    return PostProcessed(t, codes, None if fmt.scale is None else sigma.astype(np.int32))


def rescale(
    values: Integer[np.ndarray, "*n k"], multiplier: Integer[np.ndarray, "*k"], shift: Integer[np.ndarray, "*k"]
) -> Int64[np.ndarray, "*n k"]:
    """Eq. (H1)'s first term: floor((S*m + floor(2^r / 2)) / 2^r), the fixed-point product rounded half up.

    Raises:
        WidthError: the product would not fit 64 bits.
    """
    largest = max((abs(int(end)) for end in (values.min(initial=0), values.max(initial=0))), default=0)
    half = np.left_shift(np.int64(1), shift) >> 1
    if largest * int(multiplier.max(initial=0)) + int(half.max(initial=0)) > LARGEST_INT64:
        raise WidthError(f"a sum times its multiplier must fit 64 bits, but sums reach {largest}")
    rescaled: Int64[np.ndarray, "*n k"] = (values.astype(np.int64) * multiplier + half) >> shift
    return rescaled


def divided(
    magnitude: Int64[np.ndarray, "..."], divisor: Int64[np.ndarray, "..."] | np.int64, fraction_bits: int
) -> Int64[np.ndarray, "..."]:
    """Eqs. (H4) and (H5): floor((2*x + d*2^F) / (2*d*2^F)), x / (d * 2^F) rounded half up; x >= 0, d > 0."""
    quotient: Int64[np.ndarray, "..."] = (2 * magnitude + (divisor << fraction_bits)) // (
        2 * (divisor << fraction_bits)
    )
    return quotient
