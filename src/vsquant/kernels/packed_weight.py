"""Weights as integer kernels hold them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vsquant.errors import ShapeError
from vsquant.kernels.deinterleaved import (
    deinterleave_code_rows,
    deinterleave_codes,
    deinterleave_scale_rows,
    deinterleave_scales,
    without_padding,
)
from vsquant.kernels.eager import QuantizedTensor, dequantize
from vsquant.kernels.memory import in_huge_pages
from vsquant.packing import interleave
from vsquant.spec.formats import IntegerFormat, padded_length


@dataclass(frozen=True, kw_only=True)
class PackedWeight:
    """A weight (K, C / groups, *kernel) in the interleaved layout of `vsquant.packing`.

    ``codes`` are uint8 (panels, blocks, 128) or int8 (panels, blocks, 256), for depthwise weights without vectors int8
    (R*S, K padded to 16); ``scale`` is uint8 or int16 (panels, vectors, 8 or 16), float16 or float32 (panels, vectors,
    16), or empty without vectors. ``sums`` int32 (K,) are sum of q*sigma over a channel modulo 2^32; ``coarse`` is
    gamma, float32 (K,), or empty where vector scales are fp16 or fp32.
    """

    codes: Tensor
    scale: Tensor
    sums: Tensor
    coarse: Tensor
    format: IntegerFormat
    shape: tuple[int, ...]
    groups: int = 1

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The tensors in the order of operators' arguments."""
        return self.codes, self.scale, self.sums, self.coarse

    @property
    def size_bytes(self) -> int:
        """Memory of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors)


def pack_weight(
    codes: Tensor,
    vector_scale: Tensor | None,
    coarse_scale: Tensor | None,
    fmt: IntegerFormat,
    shape: tuple[int, ...],
    *,
    groups: int = 1,
) -> PackedWeight:
    """The weight that kernels read, from codes (K, *kernel, vectors, V) and scales (K, *kernel, vectors) and (K,).

    ``shape`` is the weight's own (K, C / groups, *kernel); V = C / groups where there are no vectors.

    Raises:
        ShapeError: the codes are not those of a weight of that shape.
        PackingError: codes or scales are not what the format says.
    """
    size = fmt.vector_size or shape[1]
    expected = (shape[0], *shape[2:], padded_length(shape[1], fmt.vector_size) // size, size)
    if tuple(codes.shape) != expected:
        raise ShapeError(f"codes must be {expected} for a weight of shape {tuple(shape)}, not {tuple(codes.shape)}")
    scales = None if vector_scale is None else vector_scale.cpu().numpy()
    arrays = interleave(codes.cpu().numpy(), scales, fmt, groups=groups)
    tensors = [torch.from_numpy(a).to(codes.device) for a in (arrays.codes, arrays.vector_scale, arrays.sums)]
    packed, scale, sums = in_huge_pages(tensors)
    coarse = codes.new_empty(0, dtype=torch.float32) if coarse_scale is None else coarse_scale.clone()
    return PackedWeight(
        codes=packed, scale=scale, sums=sums, coarse=coarse, format=fmt, shape=tuple(shape), groups=groups
    )


def unpack_weight(weight: PackedWeight) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The codes, vector scales and coarse scales that `pack_weight` was given."""
    fmt, (outputs, channels), kernel = weight.format, weight.shape[:2], weight.shape[2:]
    codes, scale = weight_rows(weight.codes, weight.scale, fmt, outputs, weight.groups, math.prod(kernel))
    length = padded_length(channels, fmt.vector_size)
    return (
        codes[..., :length].reshape(outputs, *kernel, -1, fmt.vector_size or channels),
        None if scale is None else scale.reshape(outputs, *kernel, -1),
        weight.coarse if fmt.has_coarse_scale else None,
    )


def weight_rows(
    codes: Tensor, scale: Tensor, fmt: IntegerFormat, outputs: int, groups: int, positions: int
) -> tuple[Tensor, Tensor | None]:
    """Codes int8 (K, positions, padded channels) and vector scales (K, positions, vectors) of a packed weight.

    Channels are padded to whole vectors, or to whole blocks where the weight has no vectors.
    """
    if codes.dim() == 2:
        return codes[:, :outputs].t().reshape(outputs, positions, 1), None
    rows = without_padding(deinterleave_codes(codes, fmt, outputs, groups).view(outputs, positions, -1), fmt)
    if not fmt.has_vectors:
        return rows, None
    return rows, deinterleave_scales(scale, fmt, outputs, groups).view(outputs, positions, -1)


def unpacked_rows(weight: PackedWeight, indices: Tensor) -> Tensor:
    """Float32 values (n, C) of the rows ``indices`` (n,) of a weight (K, C); only these rows are unpacked."""
    fmt, channels = weight.format, weight.shape[1]
    # Selecting checks the indices too, also where there is nothing to select: what fills the last panel is no row.
    known = weight.coarse if fmt.has_coarse_scale else torch.arange(weight.shape[0], device=indices.device)
    selected = known.index_select(0, indices)
    coarse = selected.unsqueeze(1) if fmt.has_coarse_scale else None
    codes = without_padding(deinterleave_code_rows(weight.codes, fmt, indices), fmt)
    sigma = deinterleave_scale_rows(weight.scale, fmt, indices).unsqueeze(1) if fmt.has_vectors else None
    vectors = codes.view(len(codes), 1, -1, fmt.vector_size or codes.shape[1])
    return dequantize(QuantizedTensor(vectors, sigma, coarse), channels)[:, 0]
