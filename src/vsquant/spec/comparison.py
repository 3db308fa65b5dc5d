"""The comparison formats by name: what the weight and the activation operand hold. Only data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from vsquant.spec.formats import FloatFormat

NVFP4: Final = FloatFormat(name="nvfp4", element="e2m1", block_scale="e4m3", vector_size=16, tensor_scale=True)
NVFP4_4OVER6: Final = replace(NVFP4, name="nvfp4-4over6", best_of_two=True)
MXFP4: Final = FloatFormat(name="mxfp4", element="e2m1", block_scale="e8m0", vector_size=32)
MXINT8: Final = FloatFormat(name="mxint8", element="int8", block_scale="e8m0", vector_size=32)
INT4_G128: Final = FloatFormat(name="int4-g128", element="int4", block_scale="fp16", vector_size=128)

COMPARISON_FORMATS: Final[Mapping[str, tuple[FloatFormat, FloatFormat | None]]] = MappingProxyType(
    {
        "nvfp4": (NVFP4, NVFP4),
        "nvfp4-4over6": (NVFP4_4OVER6, NVFP4_4OVER6),
        "mxfp4": (MXFP4, MXFP4),
        "mxint8": (MXINT8, MXINT8),
        "int4-g128": (INT4_G128, None),
    }
)
"""Name of a comparison spec -> (weight format, activation format or None where activations stay floating point)."""
