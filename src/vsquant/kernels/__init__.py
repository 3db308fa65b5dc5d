"""How quantization runs: one operator per operation, its backends side by side."""

from vsquant.kernels import native
from vsquant.kernels.eager import QuantizedTensor, dequantize
from vsquant.kernels.operators import Share, fake_quantize, quantize
from vsquant.kernels.partial_sums import PartialSumOperand, partial_sums

__all__ = [
    "PartialSumOperand",
    "QuantizedTensor",
    "Share",
    "dequantize",
    "fake_quantize",
    "partial_sums",
    "quantize",
]

native.load()
