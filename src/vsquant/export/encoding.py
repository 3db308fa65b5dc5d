"""How layers' tensors are stored from version 2 on: streams of bits (docs/reference/checkpoint-format.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from vsquant import packing
from vsquant.errors import CheckpointError, PackingError
from vsquant.export.header import Header, LayerHeader
from vsquant.spec.formats import IntegerFormat

Part: TypeAlias = Literal["weight_codes", "weight_vector_scale", "weight_coarse_scale"]

PARTS: Final[tuple[Part, ...]] = ("weight_codes", "weight_vector_scale", "weight_coarse_scale")

# What padding may add to a file's own size in memory: vectors of 1024 around single channels would be a thousandfold.
_FREE_BYTES: Final = 1 << 26
_TIMES_STORED: Final = 64


@dataclass(frozen=True, kw_only=True)
class StoredPart:
    """How one tensor of a quantized layer is stored; ``shape`` is the weight's, (K, C, *kernel)."""

    part: Part
    entry: LayerHeader
    format: IntegerFormat
    shape: tuple[int, ...]

    def encode(self, tensor: Tensor) -> Tensor:
        """The stored tensor: uint8 streams (K, bytes of a row) of integers, float16 or float32 of other scales.

        Raises:
            PackingError: the tensor is not what the format says.
        """
        if not self._is_stream:
            return tensor.to(self.dtype)
        pack = packing.pack_codes if self.part == "weight_codes" else packing.pack_vector_scale
        return torch.from_numpy(pack(tensor.numpy(), self.format, self.shape))

    def decode(self, stored: Tensor) -> Tensor:
        """The tensor as layers hold it.

        Raises:
            PackingError: ``stored`` is not what the format says; its numbers may still be out of their range.
        """
        if stored.dtype != self.dtype:
            raise PackingError(f"must be {self.dtype}, not {stored.dtype}")
        if not self._is_stream:
            return stored.to(torch.float32, copy=True)
        unpack = packing.unpack_codes if self.part == "weight_codes" else packing.unpack_vector_scale
        return torch.from_numpy(unpack(stored.numpy(), self.format, self.shape))

    @property
    def dtype(self) -> torch.dtype:
        """Of the stored tensor."""
        if self._is_stream:
            return torch.uint8
        is_half = self.format.scale == "fp16" if self.part == "weight_vector_scale" else self.format.coarse_fp16
        return torch.float16 if is_half else torch.float32

    @property
    def _is_stream(self) -> bool:
        return self.part == "weight_codes" or (self.part == "weight_vector_scale" and self.format.two_level)


def stored_parts(header: Header) -> Mapping[str, StoredPart]:
    """The tensors that are stored in a form of their own, by name; none in files of version 1."""
    return {
        f"{entry.name}.{part}" if entry.name else part: StoredPart(
            part=part, entry=entry, format=entry.spec.weight, shape=entry.weight_shape
        )
        for entry in header.layers
        if isinstance(entry.spec.weight, IntegerFormat) and entry.weight_shape is not None
        for part in PARTS
    }


def encode(header: Header, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All tensors as they are stored.

    Raises:
        CheckpointError: a layer holds codes or scales that its spec has not.
    """
    parts = stored_parts(header)
    return {name: _encoded(name, tensor, parts) for name, tensor in tensors.items()}


def decode(name: str, stored: Tensor, parts: Mapping[str, StoredPart], path: Path) -> Tensor:
    """The tensor ``name`` as layers hold it, in memory of its own.

    Raises:
        CheckpointError: it is not what the layer's spec says.
    """
    if name not in parts:
        return stored.clone()
    try:
        return parts[name].decode(stored)
    except PackingError as error:
        raise CheckpointError(f"{path}: tensor {name}: {error} (spec {parts[name].entry.spec})") from error


def _encoded(name: str, tensor: Tensor, parts: Mapping[str, StoredPart]) -> Tensor:
    if name not in parts:
        return tensor
    try:
        return parts[name].encode(tensor)
    except PackingError as error:
        raise CheckpointError(f"tensor {name} cannot be stored: {error} (spec {parts[name].entry.spec})") from error


def check_sizes(parts: Mapping[str, StoredPart], path: Path) -> None:
    """Whether the codes, once padded, stay in proportion to the file that they come from.

    Raises:
        CheckpointError: they would not; nothing of that size has been allocated.
    """
    limit = _FREE_BYTES + _TIMES_STORED * path.stat().st_size
    for name, part in parts.items():
        if part.part == "weight_codes":
            limit -= math.prod(packing.codes_shape(part.format, part.shape))
        if limit < 0:
            raise CheckpointError(
                f"{path}: tensor {name} must not be padded beyond {_TIMES_STORED} times the file's size: a weight of "
                f"{part.shape} in {part.entry.spec} would be"
            )
