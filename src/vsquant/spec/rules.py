"""What the parts of a layer spec demand of each other; each function gives the reason of a refusal, or None."""

from __future__ import annotations

from typing import Final

from vsquant.spec.comparison import COMPARISON_FORMATS
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat

MAX_PRODUCT_BITS: Final = 32


def gamma_problem(activation: TensorFormat | None) -> str | None:
    """Why no mode of the activation's coarse scale may be named, if so."""
    if activation is None:
        return "a16 keeps activations in floating point, so they have no coarse scale"
    if isinstance(activation, FloatFormat):
        return f"{activation.name} is a comparison format and takes no options"
    if not activation.has_coarse_scale:
        return f"an activation with {activation.scale} vector scales has no coarse scale"
    return None


def product_problem(weight: TensorFormat, activation: TensorFormat | None, product_bits: int) -> str | None:
    """Why the scale product cannot be rounded to ``product_bits`` bits, if so (eq. (8))."""
    if activation is None:
        return "a16 keeps activations in floating point, so there is no scale product to round"
    if not (weight.two_level and activation.two_level):
        return "rounding the scale product needs integer vector scales on both operands, such as -s4/6"
    if type(product_bits) is not int or not 1 <= product_bits <= MAX_PRODUCT_BITS:
        return f"product bits must be 1..{MAX_PRODUCT_BITS}, not {product_bits!r}"
    return None


def operand_problem(weight: object, activation: object) -> str | None:
    """Why two formats cannot be the weight and the activation of one layer, if so."""
    if not isinstance(weight, IntegerFormat | FloatFormat):
        return f"weight must be an IntegerFormat or a FloatFormat, not {weight!r}"
    if not isinstance(activation, IntegerFormat | FloatFormat | None):
        return f"activation must be an IntegerFormat, a FloatFormat or None (floating point), not {activation!r}"
    if isinstance(weight, FloatFormat) or isinstance(activation, FloatFormat):
        return _comparison_problem(weight, activation)
    if not weight.signed:
        return "weights must be signed; only activations can be unsigned"
    if activation is None:
        return None
    for option, given in (
        ("full_range (-full)", activation.full_range),
        ("scale_top_pow2 (-top)", activation.scale_top_pow2),
        ("coarse_fp16 (-g16)", activation.coarse_fp16),
    ):
        if given:
            return f"{option} must be the weight's alone, not the activation's"
    if None not in (weight.vector_size, activation.vector_size) and weight.vector_size != activation.vector_size:
        return (
            f"both operands must have one vector size, not {weight.vector_size} (weight) "
            f"and {activation.vector_size} (activation)"
        )
    return None


def _comparison_problem(weight: TensorFormat, activation: TensorFormat | None) -> str | None:
    for pair in COMPARISON_FORMATS.values():
        if pair == (weight, activation):
            return None
    names = ", ".join(COMPARISON_FORMATS)
    return f"comparison formats must come as one of the named pairs ({names}), not {weight!r} with {activation!r}"
