"""How wide the integers of a layer grow: scale products, eq. (8), and accumulators, eq. (9)."""

from __future__ import annotations

from vsquant.errors import SpecError
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat


def integer_operand(fmt: TensorFormat | None, role: str) -> IntegerFormat:
    """The format itself if its codes and vector scales are integers.

    Raises:
        SpecError: for floating-point activations, comparison formats and fp16/fp32 vector scales, with the reason.
    """
    if fmt is None:
        raise SpecError(f"an integer sum needs a quantized {role}; a16 keeps it in floating point. Choose a2 to a8")
    if isinstance(fmt, FloatFormat):
        raise SpecError(f"an integer sum needs an integer {role} format, not the comparison format {fmt.name!r}")
    if isinstance(fmt.scale, str):
        raise SpecError(
            f"an integer sum needs integer vector scales or none on the {role}, not {fmt.scale}; "
            f"write the scale as 2..10 bits or x"
        )
    return fmt


def product_shift(weight: IntegerFormat, activation: IntegerFormat, product_bits: int | None) -> int:
    """Shift d of eq. (8): the bits that rounding the scale product to P bits drops; 0 where it is exact."""
    if product_bits is None:
        return 0
    return max(0, weight.scale_width_bits + activation.scale_width_bits - product_bits)


def round_scale_product(product: int, shift: int, product_bits: int | None) -> int:
    """The rho of eq. (8): a product of two vector scales rounded half up and held to P bits; exact at shift 0."""
    if shift == 0 or product_bits is None:
        return product
    return min((product + (1 << (shift - 1))) >> shift, (1 << product_bits) - 1)


def max_scale_product(weight: IntegerFormat, activation: IntegerFormat, product_bits: int | None) -> int:
    """Largest rho(sigma_w * sigma_a) of eq. (8); a side without integer vector scales counts as 1."""
    shift = product_shift(weight, activation, product_bits)
    return round_scale_product(weight.scale_top * activation.scale_top, shift, product_bits)


def code_product_range(weight: IntegerFormat, activation: IntegerFormat) -> tuple[int, int]:
    """Smallest and largest product of a weight code and an activation code."""
    products = [w * a for w in (weight.qmin, weight.qmax) for a in (activation.qmin, activation.qmax)]
    return min(products), max(products)


def accumulator_bits(
    weight: IntegerFormat, activation: IntegerFormat, product_bits: int | None, reduction_length: int
) -> int:
    """Smallest two's complement width that holds every S of eq. (7) over ``reduction_length`` elements, eq. (9)."""
    if type(reduction_length) is not int or reduction_length < 1:
        raise SpecError(f"reduction_length must be a positive integer, not {reduction_length!r}")
    low, high = code_product_range(weight, activation)
    scale = reduction_length * max_scale_product(weight, activation, product_bits)
    return 1 + max((high * scale).bit_length(), (-low * scale - 1).bit_length() if low else 0)


def max_reduction_length(
    weight: IntegerFormat, activation: IntegerFormat, product_bits: int | None, width_bits: int
) -> int:
    """Most elements whose S of eq. (7) fits ``width_bits`` of two's complement whatever the codes; may be 0."""
    if type(width_bits) is not int or width_bits < 1:
        raise SpecError(f"width_bits must be a positive integer, not {width_bits!r}")
    low, high = code_product_range(weight, activation)
    scale = max_scale_product(weight, activation, product_bits)
    limit = 1 << (width_bits - 1)
    longest = (limit - 1) // (high * scale)
    return min(longest, limit // (-low * scale)) if low else longest
