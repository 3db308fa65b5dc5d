"""What a quantization format is: frozen, hashable, pure data. Every other part of vsquant derives from it."""

from vsquant.spec.comparison import COMPARISON_FORMATS
from vsquant.spec.formats import (
    DEFAULT_VECTOR_SIZE,
    FloatFormat,
    IntegerFormat,
    TensorFormat,
    VectorScale,
    padded_length,
)
from vsquant.spec.layer import GammaMode, LayerSpec, ScaleMode
from vsquant.spec.notation import GRAMMAR
from vsquant.spec.presets import PRESETS, Preset
from vsquant.spec.workload import Workload

__all__ = [
    "COMPARISON_FORMATS",
    "DEFAULT_VECTOR_SIZE",
    "GRAMMAR",
    "PRESETS",
    "FloatFormat",
    "GammaMode",
    "IntegerFormat",
    "LayerSpec",
    "Preset",
    "ScaleMode",
    "TensorFormat",
    "VectorScale",
    "Workload",
    "padded_length",
]
