"""How quantized weights are stored: the canonical bit layout, and the interleaved one that kernels read.

Both are written down byte by byte in docs/design/packed-layouts.md.
"""

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

__all__ = [
    "BLOCK_ELEMENTS",
    "PANEL_CHANNELS",
    "InterleavedWeight",
    "deinterleave",
    "interleave",
    "interleaved_shapes",
    "is_depthwise",
    "weight_sums",
    "why_not_interleaved",
]
