"""Schemas of the integer products. Python defines them, native code registers its kernels under the same names.

``WEIGHT`` is a weight in the interleaved layout (`PackedWeight`); formats travel as texts (`format_text`), ``"16"`` for
activations that stay floating point; an empty tensor stands for scales that a format has not. ``product_bits`` is P of
eq. (8), 0 for none. Outputs are y = f( fl(fl(gamma_a*gamma_w) * fl(S)) * 2^d + b + residual ), every operation rounded.
"""

from __future__ import annotations

from typing import Final

NAMESPACE: Final = "vsquant"
"""Operators that run native where native code has registered a kernel, and eager elsewhere."""
EAGER_NAMESPACE: Final = "vsquant_eager"
"""The same operators, always eager."""

WEIGHT: Final = "Tensor weight_codes, Tensor weight_scale, Tensor weight_sums, Tensor weight_coarse"
_EPILOGUE: Final = "Tensor? bias, Tensor? residual, int out_features, str weight_format, str activation_format"
_GEOMETRY: Final = "int[] kernel, int[] stride, int[] padding, int[] dilation, int groups"
_FLOAT: Final = (
    f"Tensor x, Tensor? activation_range, {WEIGHT}, {_EPILOGUE}, str share, str scale_mode, int product_bits, "
    "str function"
)
_CODES: Final = (
    f"Tensor codes, Tensor vector_scale, Tensor coarse_scale, {WEIGHT}, {_EPILOGUE}, int product_bits, str function"
)
_OUTPUT: Final = "Tensor output_range, str output_format, str scale_mode, bool keep_float"
_QUANTIZED: Final = "(Tensor codes, Tensor vector_scale, Tensor coarse_scale, Tensor y)"
_QUANTIZED_OUT: Final = (
    "Tensor(a!) out_codes, Tensor(b!) out_vector_scale, Tensor(c!) out_coarse_scale, Tensor(d!) out_y"
)

ARGUMENTS: Final[dict[str, str]] = {
    "linear": _FLOAT,
    "linear_codes": _CODES,
    "linear_requantize": f"{_CODES}, {_OUTPUT}",
    "conv2d": f"{_FLOAT}, {_GEOMETRY}",
    "conv2d_codes": f"{_CODES}, {_GEOMETRY}",
    "conv2d_requantize": f"{_CODES}, {_GEOMETRY}, {_OUTPUT}",
    "matmul": (
        "Tensor left, Tensor right, Tensor? left_range, Tensor? right_range, str left_format, str right_format, "
        "str share, str scale_mode, int product_bits"
    ),
}
"""Arguments by operation."""


def schema(operation: str) -> str:
    """Arguments and results of an operation."""
    return f"({ARGUMENTS[operation]}) -> {_QUANTIZED if operation.endswith('_requantize') else 'Tensor'}"


def out_schema(operation: str) -> str:
    """The same with the result written to ``out``, or the four results of operations that requantize to ``out_…``."""
    if operation.endswith("_requantize"):
        return f"({ARGUMENTS[operation]}, *, {_QUANTIZED_OUT}) -> ()"
    return f"({ARGUMENTS[operation]}, *, Tensor(a!) out) -> Tensor(a!)"
