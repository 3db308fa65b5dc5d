"""Bytes: of weights in their formats, in a file, and of the whole model in floating point."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from vsquant.export.header import LayerHeader
from vsquant.export.validation import LayerTensors
from vsquant.packing import packed_bytes


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
