"""How quantization runs: one operator per operation, its backends side by side."""

from vsquant.kernels import native
from vsquant.kernels import product_operators as product_operators
from vsquant.kernels.convolutions import Walk
from vsquant.kernels.eager import QuantizedTensor, code_dtype, dequantize
from vsquant.kernels.eager_products import quantize_map
from vsquant.kernels.epilogue import FUNCTIONS, Epilogue, Function, apply_function
from vsquant.kernels.integer_layers import (
    Prepared,
    SettledLayer,
    Target,
    choose_for,
    input_codes,
    layer_codes,
    layer_outputs,
    layer_outputs_of_codes,
    matmul,
    prepare,
    settle,
    settled_outputs,
)
from vsquant.kernels.operators import Share, fake_quantize, quantize
from vsquant.kernels.packed_weight import PackedWeight, pack_weight, unpack_weight, unpacked_rows
from vsquant.kernels.partial_sums import PartialSumOperand, partial_sums
from vsquant.kernels.registry import Backend, Choice, backends, choose
from vsquant.kernels.scale_search import SearchedScales, search_scales

__all__ = [
    "FUNCTIONS",
    "Backend",
    "Choice",
    "Epilogue",
    "Function",
    "PackedWeight",
    "PartialSumOperand",
    "Prepared",
    "QuantizedTensor",
    "SearchedScales",
    "SettledLayer",
    "Share",
    "Target",
    "Walk",
    "apply_function",
    "backends",
    "choose",
    "choose_for",
    "code_dtype",
    "dequantize",
    "fake_quantize",
    "input_codes",
    "layer_codes",
    "layer_outputs",
    "layer_outputs_of_codes",
    "matmul",
    "pack_weight",
    "partial_sums",
    "prepare",
    "quantize",
    "quantize_map",
    "search_scales",
    "settle",
    "settled_outputs",
    "unpack_weight",
    "unpacked_rows",
]

native.load()
