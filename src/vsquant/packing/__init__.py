"""How quantized weights are stored: the canonical bit layout, and the interleaved one that kernels read.

Both are written down byte by byte in docs/design/packed-layouts.md.
"""

from vsquant.packing.bits import (
    codes_shape,
    pack_codes,
    pack_vector_scale,
    packed_shapes,
    unpack_codes,
    unpack_vector_scale,
    why_not_packed,
)
from vsquant.packing.interleaved import (
    BLOCK_ELEMENTS,
    PANEL_CHANNELS,
    InterleavedWeight,
    deinterleave,
    interleave,
    interleaved_shapes,
    is_depthwise,
    weight_sums,
    why_not_interleaved,
)
from vsquant.packing.sizes import packed_bytes

__all__ = [
    "BLOCK_ELEMENTS",
    "PANEL_CHANNELS",
    "InterleavedWeight",
    "codes_shape",
    "deinterleave",
    "interleave",
    "interleaved_shapes",
    "is_depthwise",
    "pack_codes",
    "pack_vector_scale",
    "packed_bytes",
    "packed_shapes",
    "unpack_codes",
    "unpack_vector_scale",
    "weight_sums",
    "why_not_interleaved",
    "why_not_packed",
]
