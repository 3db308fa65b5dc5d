"""The interleaved layout of `vsquant.packing` read in PyTorch, on any device: what eager operators do with a weight."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from vsquant.packing import BLOCK_ELEMENTS, PANEL_CHANNELS
from vsquant.spec.formats import IntegerFormat, padded_length

NIBBLE_BITS: Final = 4
_NIBBLE_OFFSET: Final = 8


def deinterleave_codes(packed: Tensor, fmt: IntegerFormat, outputs: int, groups: int) -> Tensor:
    """Codes int8 (K, blocks * 16) from panels of blocks."""
    count, blocks, _ = packed.shape
    if fmt.bits > NIBBLE_BITS:
        panels = packed.view(count, blocks, 4, PANEL_CHANNELS, 4).permute(0, 3, 1, 2, 4)
    else:
        halves = torch.stack((packed & 15, packed >> NIBBLE_BITS)).to(torch.int8) - _NIBBLE_OFFSET
        panels = halves.view(2, count, blocks, 2, PANEL_CHANNELS, 4).permute(1, 4, 2, 3, 0, 5)
    return _channels(panels.reshape(count, PANEL_CHANNELS, -1), outputs, groups)


def deinterleave_scales(packed: Tensor, fmt: IntegerFormat, outputs: int, groups: int) -> Tensor:
    """Vector scales (K, vectors of all kernel positions) from panels: int16, or float32 where they are floats."""
    if not fmt.two_level:
        return _channels(packed.transpose(1, 2), outputs, groups).to(torch.float32)
    if fmt.scale_storage_bits <= NIBBLE_BITS:
        packed = torch.cat((packed & 15, packed >> NIBBLE_BITS), dim=2)
    return _channels(packed.transpose(1, 2), outputs, groups).to(torch.int16) + fmt.scale_min


def deinterleave_code_rows(packed: Tensor, fmt: IntegerFormat, rows: Tensor) -> Tensor:
    """Codes int8 (n, blocks * 16) of the channels ``rows`` (n,) of an ungrouped weight."""
    count, blocks, _ = packed.shape
    panel, channel = rows // PANEL_CHANNELS, rows % PANEL_CHANNELS
    if fmt.bits > NIBBLE_BITS:
        words = packed.view(count, blocks, 4, PANEL_CHANNELS, 4).permute(0, 3, 1, 2, 4)[panel, channel]
        return words.reshape(len(rows), blocks * BLOCK_ELEMENTS)
    words = packed.view(count, blocks, 2, PANEL_CHANNELS, 4).permute(0, 3, 1, 2, 4)[panel, channel]
    halves = torch.stack((words & 15, words >> NIBBLE_BITS), dim=3).to(torch.int8) - _NIBBLE_OFFSET
    return halves.view(len(rows), blocks * BLOCK_ELEMENTS)


def deinterleave_scale_rows(packed: Tensor, fmt: IntegerFormat, rows: Tensor) -> Tensor:
    """Vector scales (n, vectors) of the channels ``rows`` (n,) of an ungrouped weight, as `deinterleave_scales`."""
    panel, channel = rows // PANEL_CHANNELS, rows % PANEL_CHANNELS
    entries = packed.transpose(1, 2)
    if not fmt.two_level:
        return entries[panel, channel].to(torch.float32)
    if fmt.scale_storage_bits > NIBBLE_BITS:
        return entries[panel, channel].to(torch.int16) + fmt.scale_min
    half = PANEL_CHANNELS // 2
    shift = (channel // half * NIBBLE_BITS).to(torch.uint8).unsqueeze(1)
    return ((entries[panel, channel % half] >> shift) & 15).to(torch.int16) + fmt.scale_min


def without_padding(codes: Tensor, fmt: IntegerFormat) -> Tensor:
    """Codes (..., vectors * V) of rows (..., blocks * 16), in which vectors take whole blocks."""
    size = fmt.vector_size
    if size is None or size % BLOCK_ELEMENTS == 0:
        return codes
    vectors = codes.view(*codes.shape[:-1], -1, padded_length(size, BLOCK_ELEMENTS))
    return vectors[..., :size].flatten(-2)


def _channels(panels: Tensor, outputs: int, groups: int) -> Tensor:
    """(K, length) from (groups * panels, 16, length), without the channels that fill a group's last panel."""
    grouped = panels.reshape(groups, -1, panels.shape[2])
    return grouped[:, : outputs // groups].reshape(outputs, panels.shape[2])
