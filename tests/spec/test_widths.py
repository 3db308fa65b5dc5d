"""Accumulator widths against every sum that small layers can produce, and the widths the design counts on."""

from __future__ import annotations

import itertools
import math

import pytest

from vsquant.errors import SpecError
from vsquant.spec import LayerSpec
from vsquant.spec.widths import round_scale_product

parse = LayerSpec.parse

SMALL = [
    "w2a2-s2/2-v2",
    "w2a2u-s2/2-v2",
    "w2a3-s2/3-v2",
    "w2a2-s2/2-v2-full",
    "w2a2u-s2/2-v2-full",
    "w2a2-s2/2-v2-top",
    "w2a2-s2/2-v2-p1",
    "w2a2-s2/2-v2-p3",
    "w2a2-s3/2-v2-p4-top-full",
    "w2a2-s2/2-v2-p4",
    "w2a2-s2/x-v2",
    "w2a2u-sx/3-v2",
    "w3a2",
    "w2a3u-full",
]


def scales(fmt):
    return range(fmt.scale_min, fmt.scale_top + 1) if fmt.two_level else [1]


def codes(fmt):
    return range(fmt.qmin, fmt.qmax + 1)


def scale_products(spec):
    """Every rho(sigma_w * sigma_a), by the words of eq. (8)."""
    products = {a * b for a in scales(spec.weight) for b in scales(spec.activation)}
    width = spec.weight.scale_width_bits + spec.activation.scale_width_bits
    if spec.product_bits is None or spec.product_bits >= width:
        return products
    d = width - spec.product_bits
    return {min(math.floor((p + 2 ** (d - 1)) / 2**d), 2**spec.product_bits - 1) for p in products}


def every_sum(spec, reduction_length):
    """Every S of eq. (7): vectors of V elements with one scale product each, the tail shorter."""
    element = {w * a for w in codes(spec.weight) for a in codes(spec.activation)}
    size = spec.vector_size or reduction_length
    sums = {0}
    for start in range(0, reduction_length, size):
        count = min(size, reduction_length - start)
        dots = {sum(terms) for terms in itertools.product(element, repeat=count)}
        vectors = {rho * dot for rho in scale_products(spec) for dot in dots}
        sums = {a + b for a in sums for b in vectors}
    return sums


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize("reduction_length", [1, 2, 3, 4, 5])
def test_accumulator_bits_is_the_smallest_width_of_every_sum(text, reduction_length):
    spec = parse(text)
    sums = every_sum(spec, reduction_length)
    bits = spec.accumulator_bits(reduction_length)
    assert -(2 ** (bits - 1)) <= min(sums) <= max(sums) <= 2 ** (bits - 1) - 1
    assert min(sums) < -(2 ** (bits - 2)) or max(sums) > 2 ** (bits - 2) - 1


@pytest.mark.parametrize("text", [*SMALL, "w4a8-s4/8", "w8a8u-s10/10-p6-full-top"])
@pytest.mark.parametrize("width_bits", [4, 8, 16, 24, 32, 53, 64])
def test_max_reduction_length_is_the_last_that_fits(text, width_bits):
    spec = parse(text)
    longest = spec.max_reduction_length(width_bits)
    assert longest == 0 or spec.accumulator_bits(longest) <= width_bits
    assert spec.accumulator_bits(longest + 1) > width_bits


@pytest.mark.parametrize(
    ("text", "longest", "whole_vectors"),
    [
        ("w4a8-s4/8", 631, 624),
        ("w4a8-s4/x", 161_041, 161_040),
        ("w4a8-s4/10", 157, 144),
        ("w4a8-s6/10", 37, 32),
    ],
)
def test_how_far_int32_reaches(text, longest, whole_vectors):
    spec = parse(text)
    assert spec.max_reduction_length(32) == longest
    assert longest // 16 * 16 == whole_vectors
    assert spec.accumulator_bits(longest) == 32
    assert spec.accumulator_bits(longest + 1) == 33


@pytest.mark.parametrize(
    ("text", "bits", "shift"),
    [
        ("w4a8-s4/6", 10, 0),
        ("w4a8-s4/6-p6", 6, 4),
        ("w4a8-s4/6-p10", 10, 0),
        ("w4a8-s4/6-p20", 10, 0),
        ("w4a8-s4/6-top", 11, 0),
        ("w4a8-s4/6-p10-top", 10, 1),
        ("w4a8-s4/x", 4, 0),
        ("w4a8", 0, 0),
    ],
)
def test_scale_product_bits_and_shift(text, bits, shift):
    spec = parse(text)
    assert spec.scale_product_bits == bits
    assert spec.product_shift == shift


def test_scale_product_rounds_half_up_and_saturates():
    assert [round_scale_product(p, 2, 2) for p in (0, 1, 2, 5, 6, 9, 13, 14, 15)] == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert round_scale_product(15, 0, 4) == 15
    assert round_scale_product(99, 0, None) == 99


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w4a16-s4/x", "an integer sum needs a quantized activation; a16 keeps it in floating point. Choose a2 to a8"),
        ("w4a8-sfp32/4", "an integer sum needs integer vector scales or none on the weight, not fp32"),
        ("w4a8-s4/fp16", "an integer sum needs integer vector scales or none on the activation, not fp16"),
        ("mxfp4", "an integer sum needs an integer weight format, not the comparison format 'mxfp4'"),
    ],
)
def test_sums_that_are_no_integers_have_no_width(text, message):
    spec = parse(text)
    for ask in (
        lambda: spec.accumulator_bits(16),
        lambda: spec.max_reduction_length(32),
        lambda: spec.scale_product_bits,
    ):
        with pytest.raises(SpecError) as caught:
            ask()
        assert message in str(caught.value)


@pytest.mark.parametrize("length", [0, -1, 2.0, True])
def test_lengths_must_be_positive_integers(length):
    with pytest.raises(SpecError, match="reduction_length must be a positive integer, not "):
        parse("w4a8-s4/8").accumulator_bits(length)
    with pytest.raises(SpecError, match="width_bits must be a positive integer, not "):
        parse("w4a8-s4/8").max_reduction_length(length)
