"""How many bytes a weight takes once packed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from vsquant.packing.bits import codes_shape, packed_shapes
from vsquant.spec.formats import FloatFormat, TensorFormat

_FLOAT32_BYTES: Final = 4


def packed_bytes(shape: Sequence[int], fmt: TensorFormat) -> int:
    """Bytes of a weight (K, C, *kernel) in its format: streams of codes and of vector scales, and coarse scales.

    Comparison formats have no streams here: theirs are counted with their codes and scales as dense.
    """
    shape = tuple(shape)
    vectors = math.prod(codes_shape(fmt, shape)[:-1]) if fmt.has_vectors else 0
    if isinstance(fmt, FloatFormat):
        coarse = _FLOAT32_BYTES if fmt.has_coarse_scale else 0
        return _bytes(math.prod(shape) * fmt.bits) + _bytes(vectors * fmt.scale_storage_bits) + coarse
    codes, scales = packed_shapes(fmt, shape)
    scale_bytes = _bytes(vectors * fmt.scale_storage_bits) if scales is None else math.prod(scales)
    coarse = _FLOAT32_BYTES // 2 if fmt.coarse_fp16 else _FLOAT32_BYTES
    return math.prod(codes) + scale_bytes + (shape[0] * coarse if fmt.has_coarse_scale else 0)


def _bytes(bits: int) -> int:
    return -(-bits // 8)
