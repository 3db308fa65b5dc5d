"""What the format means: NumPy, as short as the definition, and what every backend is compared with."""

from vsquant.reference.float_formats import FloatQuantized, quantize_float
from vsquant.reference.functions import erf, gelu
from vsquant.reference.integer_formats import Quantized, quantize_integer
from vsquant.reference.integer_linear import LinearResult, integer_sum, linear, round_product
from vsquant.reference.layout import conv_activation_rows, conv_weight_rows
from vsquant.reference.post_processing import PostProcessed, PostProcessing, post_process, rescale
from vsquant.reference.quantization import quantize

__all__ = [
    "FloatQuantized",
    "LinearResult",
    "PostProcessed",
    "PostProcessing",
    "Quantized",
    "conv_activation_rows",
    "conv_weight_rows",
    "erf",
    "gelu",
    "integer_sum",
    "linear",
    "post_process",
    "quantize",
    "quantize_float",
    "quantize_integer",
    "rescale",
    "round_product",
]
