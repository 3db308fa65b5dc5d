"""What the eager implementations share: padding, finiteness, and rounding scales to fp16."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant.errors import NonFiniteError, ScaleRangeError
from vsquant.spec.formats import padded_length

FP16_SMALLEST_NORMAL: Final = 2.0**-14
BLOCK_ELEMENTS: Final = 1 << 18
"""Elements of a block whose temporaries stay in cache."""


def pad_tail(x: Tensor, vector_size: int | None) -> Tensor:
    """Zeros appended to the last dimension up to whole vectors."""
    missing = padded_length(x.shape[-1], vector_size) - x.shape[-1]
    return F.pad(x, (0, missing)) if missing else x


def split_dim(x: Tensor, dim: int, sizes: tuple[int, ...]) -> Tensor:
    """Dimension ``dim`` as several of ``sizes``, one of which may be -1."""
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def largest(vectors: Tensor, *, absolute: bool) -> Tensor:
    """max_i |x_ij|, or max(0, max_i x_ij). Non-negative floats order as their bits do, and eager PyTorch takes the
    maximum of 16 integers three times faster than of 16 floats (which it checks for NaN).
    """
    if vectors.numel() == 0:
        return vectors.new_zeros(vectors.shape[:-1])
    flat = vectors.view(-1, vectors.shape[-1])
    rows = max(1, BLOCK_ELEMENTS // flat.shape[1])
    bits = torch.empty(flat.shape[0], dtype=torch.int32, device=vectors.device)
    for start in range(0, flat.shape[0], rows):
        block = flat[start : start + rows]
        block = block.abs() if absolute else block
        torch.amax(block.view(torch.int32), dim=1, out=bits[start : start + rows])
    return bits.clamp_(min=0).view(torch.float32).view(vectors.shape[:-1])


def require_finite(x: Tensor) -> None:
    """A sum is finite only if no term is NaN or Inf; the elements are looked at only where it is not."""
    if not bool(torch.isfinite(x.sum())) and not bool(torch.isfinite(x).all()):
        kind = "NaN" if bool(torch.isnan(x).any()) else "Inf"
        raise NonFiniteError(f"a tensor must be finite to be quantized, but it holds {kind}")


def to_fp16(scale: Tensor, *, round_up: bool) -> Tensor:
    """Positive scales rounded to normal fp16 values, nearest or up, kept as float32."""
    half = scale.to(torch.float16)
    if round_up:
        above = torch.nextafter(half, half.new_tensor(float("inf")))
        half = torch.where(half.to(torch.float32) < scale, above, half)
    rounded = half.to(torch.float32)
    bad = (scale > 0) & ((rounded < FP16_SMALLEST_NORMAL) | torch.isinf(rounded))
    if bool(bad.any()):
        channel = int(bad.nonzero()[0][0])
        raise ScaleRangeError(
            f"a scale kept as fp16 must lie between 2^-14 and 65504, not {float(scale[bad][0]):.3g} "
            f"(channel {channel}); use fp32 scales or integer scales for this layer"
        )
    return rounded
