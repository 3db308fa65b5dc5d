"""Ranges of conventional per-channel weights: the whole channel, or the clip of least squared error."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from vsquant.errors import CalibrationError, NonFiniteError, ShapeError
from vsquant.spec.formats import IntegerFormat

WeightMethod: TypeAlias = Literal["max", "mse"]

CLIP_RATIOS: Final = tuple(0.2 + 0.0125 * step for step in range(65))
"""Fractions of the channel's maximum that "mse" tries, 0.2 to 1."""

# Elements swept at a time: rows of a chunk and its temporaries stay in cache.
_CHUNK_ELEMENTS: Final = 1 << 17


@torch.no_grad()
def weight_range(rows: Tensor, fmt: IntegerFormat, method: WeightMethod = "max") -> Tensor:
    """The range A of each output channel of a weight without vector scales; its scale is `range_scale`.

    Args:
        rows: (K, C) weights, one output channel a row.
        fmt: the weight's format; bits, sign and ``full_range`` matter.
        method: "max" is max |x| of the row (unsigned: max(x, 0)); "mse" the fraction of it, of `CLIP_RATIOS`, that
            minimises the sum of (x - x̂)² by eq. (3), the larger one among equals.

    Returns:
        (K,) float32 ranges, 0 for a row of zeros.

    Raises:
        ShapeError: ``rows`` is not two-dimensional.
        NonFiniteError: a row holds NaN or Inf.
        CalibrationError: unknown method.
    """
    if rows.dim() != 2:
        raise ShapeError(f"weights must have shape (channels, elements), not {tuple(rows.shape)}")
    if method not in ("max", "mse"):
        raise CalibrationError(f"weight range method must be 'max' or 'mse', not {method!r}")
    rows = rows.to(torch.float32)
    low, high = _extremes(rows)
    full = torch.maximum(high, low) if fmt.signed else high
    bad = torch.nonzero(~(torch.isfinite(low) & torch.isfinite(high)))
    if len(bad):
        raise NonFiniteError(f"weights must be finite, not NaN or Inf in output channel {int(bad[0])}")
    if method == "max" or rows.numel() == 0:
        return full
    step = max(1, _CHUNK_ELEMENTS // rows.shape[1])
    starts = range(0, len(rows), step)
    return torch.cat([_least_error(rows[at : at + step], full[at : at + step], fmt) for at in starts])


@torch.no_grad()
def range_scale(rows: Tensor, ranges: Tensor, fmt: IntegerFormat) -> Tensor:
    """The scale of each channel whose values are clamped to ``ranges``: fl(A / qmax), by eq. (2) under ``-full``.

    Args:
        rows: (K, C) weights.
        ranges: (K,) float32 ranges of `weight_range`.
        fmt: the weight's format.

    Returns:
        (K,) float32 scales.
    """
    low, high = _extremes(rows.to(torch.float32))
    return _scale(low, high, ranges, fmt)


def _extremes(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(K,) max(-x, 0) and max(x, 0) of each row; NaN where the row has one."""
    if rows.shape[1] == 0:
        empty = rows.new_zeros(rows.shape[0])
        return empty, empty.clone()
    low, high = torch.aminmax(rows, dim=1)
    return (-low).clamp_(min=0.0), high.clamp(min=0.0)


def _scale(low: Tensor, high: Tensor, ranges: Tensor, fmt: IntegerFormat) -> Tensor:
    # Divisors are tensors: a Python scalar becomes a reciprocal on some devices.
    qmax = torch.tensor(float(fmt.qmax), device=ranges.device)
    if not fmt.full_range:
        return ranges / qmax
    bottom = torch.tensor(float(-fmt.qmin), device=ranges.device)
    return torch.maximum(torch.minimum(high, ranges) / qmax, torch.minimum(low, ranges) / bottom)


def _least_error(rows: Tensor, full: Tensor, fmt: IntegerFormat) -> Tensor:
    """(K,) ranges of least squared error among the clip ratios; ``full`` is the unclipped range."""
    low, high = _extremes(rows)
    best_range = full.clone()
    best_error = torch.full_like(full, torch.inf, dtype=torch.float64)
    for ratio in reversed(CLIP_RATIOS):
        ranges = full * ratio
        scale = _scale(low, high, ranges, fmt)
        divisor = torch.where(scale > 0, scale, torch.ones_like(scale))[:, None]
        quantized = (rows / divisor).round_().clamp_(fmt.qmin, fmt.qmax).mul_(scale[:, None])
        error = quantized.sub_(rows).square_().sum(dim=1, dtype=torch.float64)
        better = error < best_error
        best_range = torch.where(better, ranges, best_range)
        best_error = torch.where(better, error, best_error)
    return best_range
