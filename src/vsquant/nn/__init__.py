"""Quantized modules: simulated with straight-through gradients, and integer."""

from vsquant.nn.conv import QuantConv1d, QuantConv2d
from vsquant.nn.geometry import ConvGeometry
from vsquant.nn.integer_conv import IntegerConv2d
from vsquant.nn.integer_layer import Fusion, IntegerActivation, IntegerLayer, floats_of
from vsquant.nn.integer_linear import IntegerEmbedding, IntegerLinear
from vsquant.nn.integer_matmul import IntegerMatmul
from vsquant.nn.integer_pool import max_pooled
from vsquant.nn.layer import QuantLayer, needs_range
from vsquant.nn.linear import QuantEmbedding, QuantLinear
from vsquant.nn.matmul import QuantMatmul
from vsquant.nn.parts import LayerParts
from vsquant.nn.weights import (
    QuantizedWeight,
    by_position,
    element_codes,
    element_steps,
    quantize_weight,
    with_element_codes,
)

__all__ = [
    "ConvGeometry",
    "Fusion",
    "IntegerActivation",
    "IntegerConv2d",
    "IntegerEmbedding",
    "IntegerLayer",
    "IntegerLinear",
    "IntegerMatmul",
    "LayerParts",
    "QuantConv1d",
    "QuantConv2d",
    "QuantEmbedding",
    "QuantLayer",
    "QuantLinear",
    "QuantMatmul",
    "QuantizedWeight",
    "by_position",
    "element_codes",
    "element_steps",
    "floats_of",
    "max_pooled",
    "needs_range",
    "quantize_weight",
    "with_element_codes",
]
