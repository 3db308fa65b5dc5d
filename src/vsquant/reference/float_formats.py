"""The comparison formats (nvfp4, nvfp4-4over6, mxfp4, mxint8, int4-g128), from float32 to codes and scales, and back.

Everything rounds to nearest, ties to even, and saturates. IEEE float32 throughout, every operation rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int32

from vsquant.reference.integer_formats import (
    F32,
    Codes,
    PerGroup,
    PerVector,
    Rows,
    Share,
    checked,
    join_vectors,
    shared_max,
    split_vectors,
    to_fp16,
)
from vsquant.spec.formats import FloatFormat

Floats: TypeAlias = Float32[np.ndarray, "..."]
Ints: TypeAlias = Int32[np.ndarray, "..."]

E2M1_VALUES: Float32[np.ndarray, " 8"] = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], dtype=F32)
"""Magnitudes of E2M1 by code; bit 3 of a code is the sign."""

E4M3_VALUES: Float32[np.ndarray, " 127"] = np.array(
    [2.0**-9 * m for m in range(8)] + [2.0 ** (e - 7) * (1 + m / 8) for e in range(1, 16) for m in range(8)][:-1],
    dtype=F32,
)
"""Magnitudes of E4M3 by code, 0 to 448: subnormals below 2^-6, no infinity, the last code (NaN) left out."""

E8M0_EXPONENT = 127
"""E8M0 holds 2^-127 to 2^127."""

E2M1_EMAX = 2
INT8_EMAX = 0
"""Exponent of the largest element: 6 = 1.5 * 2^2 for E2M1, 127 * 2^-6 < 2^1 for MX's int8."""

E2M1_SECOND = F32(4)
"""What the largest magnitude of a block may be mapped to instead of 6, under best-of-two scaling."""

E4M3_REACH = {False: F32(448), True: F32(256)}
"""The block scale of a tensor's largest block: E4M3's largest; under best-of-two scaling, two thirds of 384."""

MXINT8_STEP = 2.0**-6
INTEGER_QMAX = {"int8": 127, "int4": 7}


@dataclass(frozen=True, kw_only=True)
class FloatQuantized:
    """A quantized array of ``rows`` x ``length`` elements in blocks of V.

    ``codes`` are encodings: sign << 3 | magnitude for E2M1, signed integers for int8 and int4. ``vector_scale`` holds
    the block scales' values; ``coarse_scale`` is nvfp4's tensor scale, one per row or one in all, else None. Codes
    beyond ``length`` are tail padding, zero.
    """

    format: FloatFormat
    length: int
    codes: Codes
    vector_scale: PerVector
    coarse_scale: PerGroup | None

    def dequantize(self) -> Rows:
        """x^ = fl(element * scale), scale = fl(s * g) under a tensor scale g."""
        values: Floats = decode_elements(self.codes, self.format) * _step(self.vector_scale, self.coarse_scale)
        return join_vectors(values, self.length)


def quantize_float(
    x: Rows,
    fmt: FloatFormat,
    share: Share = "row",
    *,
    name: str = "x",
) -> FloatQuantized:
    """Quantize rows of float32 to a comparison format.

    A tensor scale (nvfp4) spans what ``share`` says: each row, or the whole array.

    Raises:
        ShapeError: ``x`` is not a two-dimensional float32 array.
        NonFiniteError: ``x`` holds NaN or Inf; the message says ``name``.
        ScaleRangeError: a non-zero fp16 scale would be zero, subnormal or infinite; the message names the channel.
    """
    blocks = split_vectors(checked(x, name), fmt.vector_size)
    largest: PerVector = np.abs(blocks).max(axis=2, initial=0)
    coarse = _tensor_scale(largest, fmt, share)
    scale = _block_scale(largest, coarse, fmt, name)
    if fmt.best_of_two:
        scale = _better_scale(blocks, scale, _scale_e4m3(largest / E2M1_SECOND, coarse), coarse, fmt)
    step = _step(scale, coarse)
    codes = encode_elements(_divided(blocks, step), fmt)
    return FloatQuantized(format=fmt, length=x.shape[1], codes=codes, vector_scale=scale, coarse_scale=coarse)


def nearest_even(magnitude: Floats, values: Float32[np.ndarray, " codes"]) -> Ints:
    """Codes of the nearest of ``values`` (ascending from 0); ties to the even code, saturating."""
    midpoints = (values[:-1] + values[1:]) / F32(2)
    below = np.searchsorted(midpoints, magnitude, side="left")
    is_tie = below != np.searchsorted(midpoints, magnitude, side="right")
    return np.where(is_tie, below + (below & 1), below).astype(np.int32)


def shared_exponent_scale(largest: PerVector, element_emax: int) -> PerVector:
    """OCP MX block scale 2^(floor(log2 alpha) - emax), held to E8M0's range; a zero block gets 2^-127."""
    exponent = np.frexp(largest)[1] - 1 - element_emax
    exponent = np.where(largest > 0, np.clip(exponent, -E8M0_EXPONENT, E8M0_EXPONENT), -E8M0_EXPONENT)
    scale: PerVector = np.ldexp(F32(1), exponent)
    return scale


def encode_elements(ratio: Floats, fmt: FloatFormat) -> Ints:
    """Codes of x / scale: E2M1 with the sign in bit 3 (kept on zeros), rint to +-127 * 2^-6 or +-7."""
    if fmt.element == "e2m1":
        codes: Ints = nearest_even(np.abs(ratio), E2M1_VALUES) | (np.signbit(ratio).astype(np.int32) << 3)
        return codes
    largest = F32(INTEGER_QMAX[fmt.element])
    return np.clip(np.rint(ratio / _integer_step(fmt)), -largest, largest).astype(np.int32)


def decode_elements(codes: Ints, fmt: FloatFormat) -> Floats:
    """The values that codes stand for, before any scale."""
    if fmt.element == "e2m1":
        magnitude: Floats = E2M1_VALUES[codes & 7]
        return np.where(codes & 8, -magnitude, magnitude)
    values: Floats = codes.astype(F32) * _integer_step(fmt)
    return values


def _integer_step(fmt: FloatFormat) -> np.float32:
    step: np.float32 = F32(MXINT8_STEP if fmt.element == "int8" else 1)
    return step


def _step(scale: PerVector, coarse: PerGroup | None) -> Floats:
    """The float scale of every block, fl(s * g) under a tensor scale g, ready to meet elements."""
    return (scale if coarse is None else scale * coarse[:, None])[..., None]


def _block_scale(largest: PerVector, coarse: PerGroup | None, fmt: FloatFormat, name: str) -> PerVector:
    if fmt.block_scale == "e8m0":
        return shared_exponent_scale(largest, E2M1_EMAX if fmt.element == "e2m1" else INT8_EMAX)
    element_max = E2M1_VALUES[-1] if fmt.element == "e2m1" else F32(INTEGER_QMAX[fmt.element]) * _integer_step(fmt)
    scale: PerVector = largest / element_max
    if fmt.block_scale == "fp16":
        return to_fp16(scale, name, "nearest")
    return _scale_e4m3(scale, coarse)


def _scale_e4m3(scale: PerVector, coarse: PerGroup | None) -> PerVector:
    """Scales in E4M3, as multiples of the tensor scale."""
    scale = scale if coarse is None else _divided(scale, coarse[:, None])
    rounded: PerVector = E4M3_VALUES[nearest_even(scale, E4M3_VALUES)]
    return rounded


def _better_scale(
    blocks: Floats, first: PerVector, second: PerVector, coarse: PerGroup | None, fmt: FloatFormat
) -> PerVector:
    """The scale of smaller squared error for each block; ``first`` where they are equal."""
    better = _squared_error(blocks, second, coarse, fmt) < _squared_error(blocks, first, coarse, fmt)
    chosen: PerVector = np.where(better, second, first)
    return chosen


def _squared_error(
    blocks: Floats, scale: PerVector, coarse: PerGroup | None, fmt: FloatFormat
) -> Float64[np.ndarray, "..."]:
    """Sum of (x - x^)^2 over each block, in float64 in the order of its elements."""
    step = _step(scale, coarse)
    values = decode_elements(encode_elements(_divided(blocks, step), fmt), fmt) * step
    squares: Float64[np.ndarray, "..."] = (blocks.astype(np.float64) - values.astype(np.float64)) ** 2
    return np.cumsum(squares, axis=-1)[..., -1]


def _tensor_scale(largest: PerVector, fmt: FloatFormat, share: Share) -> PerGroup | None:
    """Tensor scale g = fl(alpha / (6 * 448)), alpha over what ``share`` says; 256 for 448 under best-of-two scaling."""
    if not fmt.tensor_scale:
        return None
    scale: PerGroup = shared_max(largest, share) / (E2M1_VALUES[-1] * E4M3_REACH[fmt.best_of_two])
    return scale


def _divided(dividend: Floats, divisor: Floats) -> Floats:
    """fl(dividend / divisor), 0 where the divisor is 0."""
    with np.errstate(over="ignore"):
        quotient: Floats = np.divide(dividend, divisor, out=np.zeros_like(dividend), where=divisor > 0)
    return quotient
