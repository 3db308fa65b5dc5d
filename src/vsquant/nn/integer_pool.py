"""Max-pooling of codes."""

from __future__ import annotations

import torch
from torch import Tensor

from vsquant.nn.integer_layer import IntegerActivation


def max_pooled(
    x: IntegerActivation,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> IntegerActivation:
    """The codes of the max-pooled floats, for images (N, H, W, 1, C) that have one scale and no vectors: eq. (3) never
    falls where x rises, so that the largest value has the largest code.
    """
    codes = x.codes
    for dim in (0, 1):
        codes = _along(codes, dim + 1, kernel[dim], stride[dim], padding[dim], dilation[dim])
    return IntegerActivation(codes, None, x.coarse_scale, None, x.contiguous)


def _along(codes: Tensor, dim: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Maxima over one dimension: the windows' elements one after the other, each for all windows that it lies in."""
    size = codes.shape[dim]
    windows = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    shape = (*codes.shape[:dim], windows, *codes.shape[dim + 1 :])
    largest = codes.new_full(shape, torch.iinfo(codes.dtype).min)
    for element in range(kernel):
        offset = element * dilation - padding
        first, end = max(0, -(offset // stride)), min(windows, (size - 1 - offset) // stride + 1)
        if end <= first:
            continue
        here = largest.narrow(dim, first, end - first)
        seen = codes[(slice(None),) * dim + (slice(offset + first * stride, size, stride),)]
        torch.maximum(here, seen.narrow(dim, 0, end - first), out=here)
    return largest
