"""Sums that no float and no int32 holds: exact by the widths that the spec derives."""

from __future__ import annotations

import pytest
import torch

from vsquant import LayerSpec
from vsquant.kernels import PartialSumOperand, partial_sums, products
from vsquant.kernels.products import FLOAT32_BITS, FLOAT64_BITS, Formats, Operand, product_sums
from vsquant.spec.formats import IntegerFormat

INT32 = 32


# 4-bit weights and 8-bit activations, without and with activation vector scales.
@pytest.mark.parametrize(
    ("text", "longest"),
    [
        ("w4a8-s4/x", 161_041),
        ("w4a8-s6/x", 38_343),
        ("w4a8-s8/x", 9_473),
        ("w4a8-s10/x", 2_361),
        ("w4a8-s4/4", 10_736),
        ("w4a8-s4/8", 631),
        ("w4a8-s4/10", 157),
        ("w4a8-s6/8", 150),
        ("w4a8-s6/10", 37),
    ],
)
def test_int32_holds_reductions_up_to_a_length(text: str, longest: int) -> None:
    spec = LayerSpec.parse(text)
    assert spec.max_reduction_length(INT32) == longest
    assert spec.accumulator_bits(longest) == INT32
    assert spec.accumulator_bits(longest + 1) == INT32 + 1


# In whole vectors of 16, as kernels add them.
@pytest.mark.parametrize(
    ("text", "longest"), [("w4a8-s4/8", 624), ("w4a8-s4/10", 144), ("w4a8-s6/8", 144), ("w4a8-s6/10", 32)]
)
def test_int32_holds_whole_vectors_up_to_a_length(text: str, longest: int) -> None:
    assert LayerSpec.parse(text).max_reduction_length(INT32) // 16 * 16 == longest


def largest_operands(spec: LayerSpec, length: int, remainder: int) -> tuple[Operand, Operand, int]:
    """Operands whose every code and scale is the largest, but for the last code of a: S is the bound less a little."""
    size = spec.vector_size or length
    operands = []
    for fmt in (spec.activation, spec.weight):
        codes = torch.full((1, length // size, size), fmt.qmax, dtype=torch.int8 if fmt.qmax < 128 else torch.uint8)
        scale = torch.full(codes.shape[:2], fmt.scale_top, dtype=torch.int16) if fmt.has_vectors else None
        operands.append(Operand(codes, scale))
    operands[0].codes[0, -1, -1] -= remainder
    product = spec.weight.scale_top * spec.activation.scale_top * spec.weight.qmax
    return *operands, product * (spec.activation.qmax * length - remainder)


@pytest.mark.parametrize("remainder", [0, 1, 3])
@pytest.mark.parametrize("text", ["w8a8-s10/10", "w4a4-s4/4", "w8a8", "w8a8u-s8/x", "w2a8u-s2/10"])
def test_sums_are_exact_at_every_cut(monkeypatch: pytest.MonkeyPatch, text: str, remainder: int) -> None:
    spec = LayerSpec.parse(text)
    assert isinstance(spec.activation, IntegerFormat) and isinstance(spec.weight, IntegerFormat)
    for width in (42, FLOAT64_BITS):
        monkeypatch.setattr(products, "FLOAT64_BITS", width)
        for length in (32, 16 * 700):
            a, w, expected = largest_operands(spec, length, remainder)
            sums = product_sums(a, w, Formats(spec.activation, spec.weight, None))
            assert sums.item() == torch.tensor(expected).to(torch.float32).item()


def test_a_sum_beyond_float64_is_rounded_once() -> None:
    spec = LayerSpec.parse("w8a8-s10/10")
    length = 16 * -(-spec.max_reduction_length(FLOAT64_BITS) // 16) + 16
    a, w, expected = largest_operands(spec, length, 1)
    assert expected > 1 << 53
    sums = product_sums(a, w, Formats(spec.activation, spec.weight, None))
    assert sums.item() == torch.tensor(expected).to(torch.float32).item()


def test_rounded_products_are_exact_at_every_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = LayerSpec.parse("w8a8-s10/10-p12")
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (2, 3, 40, 16), dtype=torch.int8, generator=generator)
    scales = torch.randint(0, 1024, (2, 3, 40), dtype=torch.int16, generator=generator)
    a, w = (Operand(codes[i], scales[i]) for i in range(2))
    formats = Formats(spec.activation, spec.weight, spec.product_bits)
    whole = product_sums(a, w, formats)
    monkeypatch.setattr(products, "FLOAT64_BITS", 36)
    assert formats.longest(36) // 16 < 40
    assert torch.equal(product_sums(a, w, formats), whole)
    operands = (PartialSumOperand(*operand) for operand in (a, w))
    exact = partial_sums(*operands, shift=formats.shift, product_bits=12)
    assert torch.equal(whole, exact.to(torch.float32))


@pytest.mark.parametrize("text", ["w4a8-s4/x", "w8a8", "w4a4-s4/4", "w8a8-s4/4"])
def test_float32_is_taken_only_where_it_holds_every_sum(text: str) -> None:
    spec = LayerSpec.parse(text)
    formats = Formats(spec.activation, spec.weight, None)
    longest = spec.max_reduction_length(FLOAT32_BITS)
    narrow = max(fmt.qmax * fmt.scale_top for fmt in (spec.weight, spec.activation)) <= 256
    assert formats.exact_dtype(longest) == (torch.float32 if narrow else torch.float64)
    assert formats.exact_dtype(longest + 1) == torch.float64
