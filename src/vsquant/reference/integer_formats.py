"""Equations (1)-(6): from float32 to codes, vector scales and coarse scales, and back. The definition itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Shaped

from vsquant.errors import NonFiniteError, ScaleRangeError, ShapeError, SpecError
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import ScaleMode

Share: TypeAlias = Literal["row", "tensor"]
"""Which vectors share one coarse scale: those of a row, or all."""

Rows: TypeAlias = Float32[np.ndarray, "rows length"]
Vectors: TypeAlias = Float32[np.ndarray, "rows vectors V"]
Codes: TypeAlias = Int32[np.ndarray, "rows vectors V"]
PerVector: TypeAlias = Float32[np.ndarray, "rows vectors"]
Sigma: TypeAlias = Int32[np.ndarray, "rows vectors"]
PerGroup: TypeAlias = Float32[np.ndarray, " groups"]
Importance: TypeAlias = Float[np.ndarray, " length"] | Float[np.ndarray, "rows length"]

F32 = np.float32
FP16_SMALLEST_NORMAL = F32(2.0**-14)


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A quantized array of ``rows`` x ``length`` elements in vectors of V (V = length where there are no vectors).

    ``vector_scale`` holds integers sigma (two-level), floats s (single-level), or is None; ``coarse_scale`` is gamma,
    one per row or one in all, and None for single-level formats. Codes beyond ``length`` are tail padding, zero.
    """

    format: IntegerFormat
    length: int
    codes: Codes
    vector_scale: Sigma | PerVector | None
    coarse_scale: PerGroup | None

    def dequantize(self) -> Rows:
        """Eq. (6): x^ = fl(q * fl(sigma*gamma)); fl(q*s) where there is only one level."""
        scale = element_scale(self.vector_scale, self.coarse_scale)
        with np.errstate(over="ignore", invalid="ignore"):
            values: Vectors = self.codes.astype(F32) * scale[..., None]
        return join_vectors(values, self.length)


def quantize_integer(
    x: Rows,
    fmt: IntegerFormat,
    share: Share = "row",
    scale_mode: ScaleMode = "requantize",
    *,
    coarse_range: PerGroup | float | None = None,
    importance: Importance | None = None,
    name: str = "x",
) -> Quantized:
    """Quantize rows of float32 by eqs. (1)-(5).

    ``coarse_range`` is a calibrated range A > 0, one per row or one in all; it replaces the maximum in eq. (4)
    (static gamma) and, in a format without vectors, in eq. (2). ``importance`` is h of scale mode ``search``, one
    weight for each element of a row or for each of ``x``; 1 where it is not given.

    Raises:
        ShapeError: ``x`` is not a two-dimensional float32 array, or ``coarse_range`` fits neither rows nor the tensor,
            or ``importance`` is no finite, non-negative array that fits the rows.
        NonFiniteError: ``x`` holds NaN or Inf; the message says ``name``.
        ScaleRangeError: a scale kept as fp16 would be zero, subnormal or infinite.
        SpecError: ``scale_mode`` is not defined for ``fmt``.
    """
    check_scale_mode(fmt, scale_mode)
    if importance is not None and scale_mode != "search":
        raise SpecError(f"importance must be None in scale_mode {scale_mode!r}; it weighs the errors of 'search'")
    vectors = split_vectors(checked(x, name), fmt.vector_size)
    range_ = None if coarse_range is None else _checked_range(coarse_range, len(vectors))
    if fmt.scale is None:
        return _conventional(vectors, fmt, share, range_, x.shape[1], name)
    step = vector_step(vectors, fmt)
    if fmt.scale in ("fp16", "fp32"):
        step = to_fp16(step, name, "nearest") if fmt.scale == "fp16" else step
        codes = element_codes(vectors, step, fmt)
        return Quantized(format=fmt, length=x.shape[1], codes=codes, vector_scale=step, coarse_scale=None)
    coarse = _coarse_scale(step, fmt, share, range_, name)
    sigma = vector_scales(step, coarse[:, None], fmt)
    if scale_mode == "search":
        weights = split_vectors(checked_importance(importance, x.shape), fmt.vector_size)
        sigma = searched_scales(vectors, coarse, weights, fmt)
        step = element_scale(sigma, coarse)
    elif scale_mode != "paper":
        occupied = (vector_maximum(vectors, fmt) > 0) & (coarse[:, None] > 0)
        sigma = np.where(occupied, np.maximum(sigma, 1), sigma)
        if scale_mode == "best-of-three":
            sigma = best_of_three(vectors, sigma, coarse, fmt)
        step = element_scale(sigma, coarse)
    codes = np.where(coarse[:, None, None] > 0, element_codes(vectors, step, fmt), 0)
    return Quantized(format=fmt, length=x.shape[1], codes=codes, vector_scale=sigma, coarse_scale=coarse)


def _conventional(
    vectors: Float32[np.ndarray, "rows 1 length"],
    fmt: IntegerFormat,
    share: Share,
    range_: PerGroup | None,
    length: int,
    name: str,
) -> Quantized:
    """One scale per coarse group: s = fl(A / qmax), eq. (3), x^ = fl(q*s)."""
    if range_ is None:
        step = shared_max(vector_step(vectors, fmt), share)
    elif fmt.full_range:
        clamped = np.clip(vectors, -range_[:, None, None], range_[:, None, None])
        step = shared_max(vector_step(clamped, fmt), share)
    else:
        step = range_ / F32(fmt.qmax)
    step = to_fp16(step, name, "up") if fmt.coarse_fp16 else step
    codes = element_codes(vectors, step[:, None], fmt)
    return Quantized(format=fmt, length=length, codes=codes, vector_scale=None, coarse_scale=step)


def split_vectors(
    x: Shaped[np.ndarray, "rows length"], vector_size: int | None
) -> Shaped[np.ndarray, "rows vectors V"]:
    """Cut rows into vectors of V, the tail padded with zeros; one vector a row where V is None."""
    rows, length = x.shape
    size = max(length, 1) if vector_size is None else vector_size
    count = 1 if vector_size is None else -(-length // size)
    padded = np.zeros((rows, count * size), dtype=x.dtype)
    padded[:, :length] = x
    return padded.reshape(rows, count, size)


def join_vectors(vectors: Shaped[np.ndarray, "rows vectors V"], length: int) -> Shaped[np.ndarray, "rows length"]:
    """Rows of ``length`` from their vectors, without the tail padding."""
    rows, count, size = vectors.shape
    return vectors.reshape(rows, count * size)[:, :length]


def vector_maximum(vectors: Vectors, fmt: IntegerFormat) -> PerVector:
    """Eq. (1): alpha_j = max_i |x_ij|, or max(0, max_i x_ij) where codes are unsigned; never -0."""
    maximum: PerVector = np.abs((np.abs(vectors) if fmt.signed else vectors).max(axis=2, initial=0))
    return maximum


def vector_step(vectors: Vectors, fmt: IntegerFormat) -> PerVector:
    """Eq. (2): the float step s_j of every vector; with ``-full`` each sign has its own largest code."""
    if not fmt.full_range:
        step: PerVector = vector_maximum(vectors, fmt) / F32(fmt.qmax)
        return step
    up = np.abs(vectors.max(axis=2, initial=0)) / F32(fmt.qmax)
    down = np.abs(vectors.min(axis=2, initial=0)) / F32(-fmt.qmin)
    larger: PerVector = np.maximum(up, down)
    return larger


def element_codes(vectors: Vectors, step: Float32[np.ndarray, "#rows #vectors"], fmt: IntegerFormat) -> Codes:
    """Eq. (3): q = clip(rint(fl(x / s)), qmin, qmax), 0 where s = 0."""
    step = np.broadcast_to(step, vectors.shape[:2])[..., None]
    with np.errstate(over="ignore"):
        ratio = np.divide(vectors, step, out=np.zeros_like(vectors), where=step > 0)
    codes: Codes = np.clip(np.rint(ratio), fmt.qmin, fmt.qmax).astype(np.int32)
    return codes


def shared_max(step: PerVector, share: Share) -> PerGroup:
    """Largest step among the vectors that share a coarse scale."""
    largest: PerGroup = step.max(axis=1, initial=0) if share == "row" else step.max(initial=0).reshape(1)
    return largest


def _coarse_scale(
    step: PerVector,
    fmt: IntegerFormat,
    share: Share,
    range_: PerGroup | None,
    name: str,
) -> PerGroup:
    """Eq. (4), static where a calibrated range is given; rounded up to fp16 under ``-g16``."""
    largest = shared_max(step, share) if range_ is None else range_ / F32(fmt.qmax)
    gamma = largest / F32(fmt.scale_top)
    return to_fp16(gamma, name, "up") if fmt.coarse_fp16 else gamma


def vector_scales(step: PerVector, coarse: Float32[np.ndarray, "#rows 1"], fmt: IntegerFormat) -> Sigma:
    """Eq. (5): sigma = clip(rint(fl(s / gamma)), 0, top); the smallest scale where gamma = 0."""
    with np.errstate(over="ignore"):
        ratio = np.divide(step, coarse, out=np.zeros_like(step), where=coarse > 0)
    sigma: Sigma = np.clip(np.rint(ratio), fmt.scale_min, fmt.scale_top).astype(np.int32)
    return sigma


def searched_scales(
    vectors: Vectors, coarse: PerGroup, importance: Float64[np.ndarray, "#rows vectors V"], fmt: IntegerFormat
) -> Sigma:
    """Scale mode ``search``: the smallest of argmin over 1..top of sum_i h_i (x_i - x^_i)^2, float64 in index order."""
    every = (np.full(vectors.shape[:2], candidate, dtype=np.int32) for candidate in range(1, fmt.scale_top + 1))
    sigma = _least_error(vectors, every, coarse, importance, fmt)
    return np.where(coarse[:, None] > 0, sigma, fmt.scale_min).astype(np.int32)


def best_of_three(vectors: Vectors, sigma: Sigma, coarse: PerGroup, fmt: IntegerFormat) -> Sigma:
    """Scale mode ``best-of-three``: as ``search`` over sigma-1, sigma and sigma+1 of requantize, within 1..top."""
    three = (np.clip(sigma + offset, 1, fmt.scale_top) for offset in (-1, 0, 1))
    best = _least_error(vectors, three, coarse, np.ones((1, 1, vectors.shape[2])), fmt)
    return np.where((sigma > 0) & (coarse[:, None] > 0), best, sigma).astype(np.int32)


def _least_error(
    vectors: Vectors,
    candidates: Iterable[Sigma],
    coarse: PerGroup,
    importance: Float64[np.ndarray, "#rows #vectors V"],
    fmt: IntegerFormat,
) -> Sigma:
    """The first of the best of ``candidates``, scales for all vectors each."""
    sigma: Sigma = np.ones(vectors.shape[:2], dtype=np.int32)
    least = np.full(vectors.shape[:2], np.inf)
    for candidate in candidates:
        error = _squared_error(vectors, element_scale(candidate, coarse), importance, fmt)
        sigma, least = np.where(error < least, candidate, sigma), np.where(error < least, error, least)
    return sigma


def _squared_error(
    vectors: Vectors, step: PerVector, importance: Float64[np.ndarray, "#rows #vectors V"], fmt: IntegerFormat
) -> Float64[np.ndarray, "rows vectors"]:
    error = np.zeros(vectors.shape[:2])
    with np.errstate(over="ignore", invalid="ignore"):
        values: Vectors = element_codes(vectors, step, fmt).astype(F32) * step[..., None]
        difference = vectors.astype(np.float64) - values.astype(np.float64)
        for i in range(vectors.shape[2]):
            error = error + importance[..., i] * (difference[..., i] * difference[..., i])
    return error


def element_scale(
    vector_scale: Sigma | PerVector | None,
    coarse_scale: PerGroup | None,
) -> Float32[np.ndarray, "rows_ vectors_"]:
    """The float scale of every vector: fl(sigma*gamma), s_j, or s."""
    if vector_scale is None:
        assert coarse_scale is not None
        return coarse_scale[:, None]
    if coarse_scale is None:
        return vector_scale
    with np.errstate(over="ignore"):
        scale: Float32[np.ndarray, "rows_ vectors_"] = vector_scale.astype(F32) * coarse_scale[:, None]
    return scale


def to_fp16(scale: PerVector | PerGroup, name: str, rounding: Literal["nearest", "up"]) -> PerVector | PerGroup:
    """Round positive scales to normal fp16 values, returned as float32.

    Raises:
        ScaleRangeError: a non-zero scale would become zero, subnormal or infinite; the message says which channel.
    """
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16)
    if rounding == "up":
        half = np.where(half.astype(F32) < scale, np.nextafter(half, np.float16(np.inf)), half)
    rounded = half.astype(F32)
    bad = (scale > 0) & ((rounded < FP16_SMALLEST_NORMAL) | ~np.isfinite(rounded))
    if bad.any():
        channel = int(np.argwhere(bad)[0][0])
        raise ScaleRangeError(
            f"a scale of {name} kept as fp16 must lie between 2^-14 and 65504, not {scale[bad].flat[0]:.3g} "
            f"(channel {channel}); use fp32 scales or integer scales for this layer"
        )
    return rounded


def checked(x: Rows, name: str) -> Rows:
    """``x`` itself, once it is known to be a finite two-dimensional float32 array."""
    if x.ndim != 2 or x.dtype != F32:
        raise ShapeError(f"{name} must be a float32 array of shape (rows, length), not {x.dtype} {x.shape}")
    if not np.isfinite(x).all():
        kind = "NaN" if np.isnan(x).any() else "Inf"
        raise NonFiniteError(f"{name} must be finite to be quantized, but it holds {kind}")
    return x


def checked_importance(importance: Importance | None, shape: tuple[int, ...]) -> Float64[np.ndarray, "#rows length"]:
    """The weights h of scale mode ``search`` as float64 (rows or 1, length); ones where there is none."""
    if importance is None:
        return np.ones((1, shape[1]))
    weights = np.asarray(importance, dtype=np.float64)
    if weights.shape not in (shape[1:], shape):
        raise ShapeError(
            f"importance must have one weight for each element of a row, {shape[1:]}, or of all rows, {shape}, "
            f"not {weights.shape}"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ShapeError("importance must be finite and not negative")
    return weights.reshape(-1, shape[1])


def _checked_range(coarse_range: PerGroup | float, rows: int) -> PerGroup:
    range_ = np.atleast_1d(np.asarray(coarse_range, dtype=F32))
    if range_.ndim != 1 or len(range_) not in (1, rows):
        raise ShapeError(f"coarse_range must be one value or one per row ({rows}), not an array of {range_.shape}")
    if not (np.isfinite(range_).all() and (range_ > 0).all()):
        raise ShapeError(f"coarse_range must be positive and finite, not {range_}")
    return range_


def check_scale_mode(fmt: IntegerFormat, scale_mode: ScaleMode) -> None:
    """Refuse a scale mode that is not defined for ``fmt``.

    Raises:
        SpecError: the mode is unknown here, or is ``paper`` with ``-top``.
    """
    if scale_mode not in get_args(ScaleMode):
        raise SpecError(f"scale_mode must be 'paper', 'requantize', 'search' or 'best-of-three', not {scale_mode!r}")
    if scale_mode == "paper" and fmt.scale_top_pow2:
        raise SpecError("scale_mode 'paper' must not be combined with -top (its scales start at 1); use 'requantize'")
