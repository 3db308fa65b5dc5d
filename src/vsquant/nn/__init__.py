"""Quantized modules: simulated quantization with straight-through gradients."""

from vsquant.nn.conv import QuantConv1d, QuantConv2d
from vsquant.nn.geometry import ConvGeometry
from vsquant.nn.layer import QuantLayer, needs_range
from vsquant.nn.linear import QuantEmbedding, QuantLinear
from vsquant.nn.matmul import QuantMatmul
from vsquant.nn.weights import QuantizedWeight, quantize_weight

__all__ = [
    "ConvGeometry",
    "QuantConv1d",
    "QuantConv2d",
    "QuantEmbedding",
    "QuantLayer",
    "QuantLinear",
    "QuantMatmul",
    "QuantizedWeight",
    "needs_range",
    "quantize_weight",
]
