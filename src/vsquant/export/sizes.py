"""Bytes: of weights in their formats, in a file, and of the whole model in floating point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from vsquant import packing
from vsquant.export.header import LayerHeader
from vsquant.export.validation import LayerTensors
from vsquant.spec.formats import FloatFormat, TensorFormat

_FLOAT32_BYTES = 4


def packed_bytes(shape: Sequence[int], fmt: TensorFormat) -> int:
    """Bytes of a weight (K, C, *kernel) in its format: streams of codes and of vector scales, and coarse scales.

    Comparison formats have no streams here: theirs are counted with their codes and scales as dense.
    """
    shape = tuple(shape)
    vectors = math.prod(packing.codes_shape(fmt, shape)[:-1]) if fmt.has_vectors else 0
    if isinstance(fmt, FloatFormat):
        coarse = _FLOAT32_BYTES if fmt.has_coarse_scale else 0
        return _bytes(math.prod(shape) * fmt.bits) + _bytes(vectors * fmt.scale_storage_bits) + coarse
    codes, scales = packing.packed_shapes(fmt, shape)
    scale_bytes = _bytes(vectors * fmt.scale_storage_bits) if scales is None else math.prod(scales)
    coarse = _FLOAT32_BYTES // 2 if fmt.coarse_fp16 else _FLOAT32_BYTES
    return math.prod(codes) + scale_bytes + (shape[0] * coarse if fmt.has_coarse_scale else 0)


def file_bytes(entry: LayerHeader, parts: LayerTensors, shape: Sequence[int]) -> int:
    """Bytes that a layer's weight takes in the file: its format's from version 2 on, whole bytes before."""
    if entry.weight_shape is not None and parts.weight_values is None:
        return packed_bytes(shape, entry.spec.weight)
    weight = parts.weight
    return tensor_bytes(
        part for part in (weight.codes, weight.vector_scale, weight.coarse_scale, weight.values) if part is not None
    )


def unquantized(layers: Iterable[LayerHeader], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that are no part of a quantized weight."""
    weights = {
        f"{entry.name}.{part}".removeprefix(".")
        for entry in layers
        for part in LayerTensors._fields
        if part != "activation_range"
    }
    return {name: tensor for name, tensor in tensors.items() if name not in weights}


def tensor_bytes(tensors: Iterable[Tensor], floating: torch.dtype | None = None) -> int:
    """Bytes of tensors, those of floating point as if they were of the type ``floating``."""
    return sum(
        tensor.numel()
        * (floating.itemsize if floating is not None and tensor.is_floating_point() else tensor.element_size())
        for tensor in tensors
    )


def _bytes(bits: int) -> int:
    return -(-bits // 8)
