"""What the format means: NumPy, as short as the definition, and what every backend is compared with."""

from vsquant.reference.float_formats import FloatQuantized, quantize_float
from vsquant.reference.functions import erf, gelu
from vsquant.reference.integer_formats import Quantized, quantize_integer
from vsquant.reference.integer_linear import LinearResult, integer_sum, linear, round_product
from vsquant.reference.layout import conv_activation_rows, conv_weight_rows
from vsquant.reference.quantization import quantize

__all__ = [
    "FloatQuantized",
    "LinearResult",
    "Quantized",
    "conv_activation_rows",
    "conv_weight_rows",
    "erf",
    "gelu",
    "integer_sum",
    "linear",
    "quantize",
    "quantize_float",
    "quantize_integer",
    "round_product",
]
