"""The eager backend of integer convolutions: windows of codes gathered sample by sample, then the products of matrices.

Floating-point convolutions of PyTorch will not do: some transform their operands (Winograd, FFT), and then integers do
not stay integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant.kernels.numerics import pad_tail, split_dim
from vsquant.kernels.products import Formats, Operand, fold, folded_sums, product_sums


@dataclass(frozen=True, kw_only=True)
class Walk:
    """How a two-dimensional convolution walks its input; ``padding`` is (top, bottom, left, right) zeros."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def positions(self) -> int:
        """Kernel positions R*S."""
        return self.kernel[0] * self.kernel[1]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Positions of the output."""
        top, bottom, left, right = self.padding
        rows = (height + top + bottom - (self.kernel[0] - 1) * self.dilation[0] - 1) // self.stride[0] + 1
        columns = (width + left + right - (self.kernel[1] - 1) * self.dilation[1] - 1) // self.stride[1] + 1
        return rows, columns

    def windows(self, x: Tensor) -> Tensor:
        """A view (H', W', R, S, ...) of what each output position sees of ``x`` (H, W, ...), padded by zeros."""
        top, bottom, left, right = self.padding
        padded = F.pad(x, [0, 0] * (x.dim() - 2) + [left, right, top, bottom]).contiguous()
        row, column = padded.stride()[:2]
        steps = [row * self.stride[0], column * self.stride[1], row * self.dilation[0], column * self.dilation[1]]
        size = (*self.output_size(x.shape[0], x.shape[1]), *self.kernel, *x.shape[2:])
        return padded.as_strided(size, (*steps, *padded.stride()[2:]))


def conv_sums(x: Operand, w: Operand, formats: Formats, walk: Walk) -> Tensor:
    """fl(S), float32 (N, H', W', K).

    ``x`` has codes (N, H, W, groups * vectors, V), or (N, H, W, 1, C) without vectors; ``w`` (K, R*S, vectors, V), or
    (K, R*S, 1, padded C / groups).
    """
    samples, height, width = x.codes.shape[:3]
    outputs = w.codes.shape[0]
    sums = x.codes.new_empty(samples, *walk.output_size(height, width), outputs, dtype=torch.float32)
    grouped = _by_group(x, walk.groups)
    rows = Operand(
        split_dim(w.codes, 0, (walk.groups, outputs // walk.groups)),
        None if w.scale is None else split_dim(w.scale, 0, (walk.groups, outputs // walk.groups)),
    )
    one_sample = _by_vectors if formats.shift or not formats.integer_sums else _folded
    if walk.groups > 1 and w.length == 1 and one_sample is _folded:
        one_sample = _depthwise
    for sample in range(samples):
        scale = None if grouped.scale is None else grouped.scale[sample]
        sums[sample] = one_sample(Operand(grouped.codes[sample], scale), rows, formats, walk)
    return sums


def _by_group(x: Operand, groups: int) -> Operand:
    """Codes (N, H, W, groups, vectors, V)."""
    if x.scale is None:
        return Operand(split_dim(x.codes.flatten(3), 3, (groups, 1, x.length // groups)), None)
    sizes = (groups, x.codes.shape[3] // groups)
    return Operand(split_dim(x.codes, 3, sizes), split_dim(x.scale, 3, sizes))


def _folded(x: Operand, w: Operand, formats: Formats, walk: Walk) -> Tensor:
    """Sums (H', W', K) of one sample, codes (H, W, groups, vectors, V) and (groups, K / groups, R*S, vectors, V)."""
    length = min(x.length, w.length)
    dtype = formats.exact_dtype(length * walk.positions)
    windows = walk.windows(fold(x, dtype, length))
    rows = windows.permute(4, 0, 1, 2, 3, 5).reshape(walk.groups, -1, walk.positions * length)
    sums = folded_sums(rows, fold(w, dtype, length).flatten(2), formats)
    return sums.movedim(0, 1).reshape(*windows.shape[:2], -1)


def _depthwise(x: Operand, w: Operand, formats: Formats, walk: Walk) -> Tensor:
    """As `_folded` for one input channel a group: kernel position by kernel position."""
    dtype = formats.exact_dtype(walk.positions)
    weight = fold(w, dtype, 1).flatten(0, 1).squeeze(-1)
    values = fold(x, dtype, 1).squeeze(-1).repeat_interleave(len(weight) // walk.groups, dim=2)
    windows = walk.windows(values).flatten(2, 3)
    sums = values.new_zeros(*windows.shape[:2], len(weight))
    for position in range(walk.positions):
        sums.addcmul_(windows[:, :, position], weight[:, position])
    return sums.to(torch.float32)


def _by_vectors(x: Operand, w: Operand, formats: Formats, walk: Walk) -> Tensor:
    """As `_folded` vector by vector: with scale products rounded by eq. (8), or with scales that are floats."""
    size = formats.activation.vector_size or formats.weight.vector_size
    assert size is not None
    x, w = _in_vectors(x, size), _in_vectors(w, size)
    vectors = min(x.codes.shape[-2], w.codes.shape[-2])  # beyond lies padding
    x, w = x.first(vectors), w.first(vectors)
    assert x.scale is not None and w.scale is not None
    codes, scale = walk.windows(x.codes), walk.windows(x.scale)
    rows = Operand(
        codes.permute(4, 0, 1, 2, 3, 5, 6).reshape(
            walk.groups, -1, walk.positions * x.codes.shape[-2], x.codes.shape[-1]
        ),
        scale.permute(4, 0, 1, 2, 3, 5).reshape(walk.groups, -1, walk.positions * x.scale.shape[-1]),
    )
    sums = product_sums(rows, Operand(w.codes.flatten(2, 3), w.scale.flatten(2, 3)), formats)
    return sums.movedim(0, 1).reshape(*codes.shape[:2], -1)


def _in_vectors(operand: Operand, size: int) -> Operand:
    """An operand without vectors, (..., 1, C), cut into vectors of scale 1."""
    if operand.scale is not None:
        return operand
    codes = pad_tail(operand.codes.squeeze(-2), size)
    codes = split_dim(codes, codes.dim() - 1, (codes.shape[-1] // size, size))
    return Operand(codes, torch.ones(codes.shape[:-1], dtype=torch.float32, device=codes.device))
