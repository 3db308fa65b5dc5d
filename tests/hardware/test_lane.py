"""Every width of a lane: wide enough for the worst operands, and not a bit wider."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from vsquant.errors import SpecError
from vsquant.hardware import Lane
from vsquant.hardware.lane import signed_bits
from vsquant.reference import integer_sum, round_product
from vsquant.reference.integer_formats import Quantized
from vsquant.spec import PRESETS, LayerSpec

PUBLISHED = [preset.spec for preset in PRESETS.values() if preset.spec.has_integer_sums]
AWKWARD = [
    LayerSpec.parse(text)
    for text in (
        "w2a2",
        "w2a2u-full",
        "w8a8u-full",
        "w3a4-s4/4-p4",
        "w4a4-s4/4-p6",
        "w4a4u-s4/6-p4",
        "w4a8-s6/10-p8",
        "w6a8-s6/10-p6-full",
        "w4a4-s4/4-top",
        "w4a4u-s4/4-p8-top-full",
        "w4a4-s2/2-p3-top",
        "w4a8-s4/x",
        "w4a8u-sx/6",
        "w4a4-s4/4-v64-p1",
        "w4a4-s10/10-v7-p30-top-full-g16",
    )
]
SPECS = list(dict.fromkeys(PUBLISHED + AWKWARD))


def operand(fmt, codes, sigma, vector_size):
    """One row of whole vectors whose codes are all one code and whose scales are all one scale."""
    q = np.asarray(codes, dtype=np.int32).reshape(1, -1, vector_size)
    scales = np.full(q.shape[:2], sigma, dtype=np.int32) if fmt.two_level else None
    codes = q if fmt.has_vectors else q.reshape(1, 1, -1)
    return Quantized(format=fmt, length=q.size, codes=codes, vector_scale=scales, coarse_scale=np.ones(1, np.float32))


def extreme_sum(lane, length, pick):
    """S of eq. (7) over ``length`` elements in whole vectors: the codes that ``pick`` chooses, the largest scales."""
    pairs = itertools.product((lane.weight.qmin, lane.weight.qmax), (lane.activation.qmin, lane.activation.qmax))
    w, a = pick(pairs, key=lambda pair: pair[0] * pair[1])
    padded = -(-length // lane.vector_size) * lane.vector_size
    occupied = np.arange(padded) < length
    size = lane.vector_size
    weight = operand(lane.weight, occupied * w, lane.weight.scale_top, size)
    activation = operand(lane.activation, occupied * a, lane.activation.scale_top, size)
    return int(integer_sum(activation, weight, lane.product_bits)[0, 0])


def fits(value, bits):
    return -(1 << (bits - 1)) <= value < 1 << (bits - 1)


def assert_smallest(width, worst):
    assert all(fits(value, width) for value in worst)
    assert not all(fits(value, width - 1) for value in worst)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_worst_operands_fit_every_width_and_no_smaller_one(spec):
    lane = Lane.for_spec(spec, max_reduction_length=512)
    extremes = [[extreme_sum(lane, length, pick) for pick in (min, max)] for length in (lane.vector_size, 512)]
    assert extremes == [list(lane.scaled_range), list(lane.accumulator_range)]
    assert_smallest(lane.scaled_bits, extremes[0])
    assert_smallest(lane.accumulator_bits, extremes[1])


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_dot_product_of_extreme_codes_fits_and_no_smaller_width_does(spec):
    lane = Lane.for_spec(spec)
    products = [
        w * a
        for w in range(lane.weight.qmin, lane.weight.qmax + 1)
        for a in range(lane.activation.qmin, lane.activation.qmax + 1)
    ]
    assert_smallest(lane.code_product_bits, products)
    assert_smallest(lane.dot_bits, [lane.vector_size * min(products), lane.vector_size * max(products)])


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.is_baseline], ids=str)
def test_every_scale_product_fits_and_no_smaller_width_does(spec):
    lane = Lane.for_spec(spec)
    w, a = (
        np.arange(fmt.scale_min, fmt.scale_top + 1) if fmt.two_level else [1] for fmt in (spec.weight, spec.activation)
    )
    products = round_product(np.outer(w, a), lane.scale_shift, lane.product_bits)
    assert int(products.max()) == lane.max_scale_product
    assert lane.max_scale_product >> lane.scale_product_bits == 0
    assert lane.max_scale_product >> (lane.scale_product_bits - 1) == 1


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_as_many_vectors_fit_the_accumulator_as_it_says(spec):
    lane = Lane.for_spec(spec, max_reduction_length=300)
    low, high = lane.scaled_range
    assert lane.max_vectors >= 300 // lane.vector_size
    assert all(fits(value * lane.max_vectors, lane.accumulator_bits) for value in (low, high))
    assert not all(fits(value * (lane.max_vectors + 1), lane.accumulator_bits) for value in (low, high))


def test_without_vector_scales_the_dot_product_is_what_is_accumulated():
    lane = Lane.for_spec(LayerSpec.parse("w8a8"))
    assert (lane.weight_scale_bits, lane.activation_scale_bits, lane.scale_product_bits) == (0, 0, 0)
    assert lane.scaled_bits == lane.dot_bits
    assert lane.vector_size == 16


def test_the_widths_of_the_published_4_bit_lane():
    parameters = Lane.for_spec(LayerSpec.parse("4/4U/4/6")).verilog_parameters()
    assert parameters == {
        "V": 16,
        "WB": 4,
        "AB": 4,
        "A_SIGNED": 0,
        "WSB": 4,
        "ASB": 6,
        "PB": 0,
        "W_TOP": 0,
        "SCALE_PRODUCT_BITS": 10,
        "DOT_BITS": 12,
        "SCALED_BITS": 22,
        "ACC_BITS": 30,
        "MAX_VECTORS": 338,
    }


def test_a_scale_top_that_is_a_power_of_two_is_fed_one_less_and_needs_no_wasted_bit():
    lane = Lane.for_spec(LayerSpec.parse("w4a4-s4/4-p8-top"))
    assert lane.verilog_parameters() | {"WSB": 4, "W_TOP": 1, "PB": 8} == lane.verilog_parameters()
    assert lane.scale_shift == 1
    assert lane.max_scale_product == (16 * 15 + 1) // 2 == 120
    assert lane.scale_product_bits == 7


def test_a_product_wider_than_both_scales_is_exact():
    assert Lane.for_spec(LayerSpec.parse("w4a4-s4/6-p10")).verilog_parameters()["PB"] == 0


def test_signed_bits():
    assert [signed_bits(values) for values in ((-1, 0), (-1, 1), (-2, 1), (-3, 1), (-128, 127), (-128, 128))] == [
        1,
        2,
        2,
        3,
        8,
        9,
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("w4a16-s4/x", "needs a quantized activation; a16"),
        ("w4a4-sfp16/fp16", "not fp16"),
        ("w4a4-sfp32/4", "not fp32"),
        ("nvfp4", "not the comparison format 'nvfp4'"),
    ],
)
def test_a_spec_without_an_integer_sum_is_refused_with_the_reason(text, reason):
    with pytest.raises(SpecError, match=reason):
        Lane.for_spec(LayerSpec.parse(text))


def test_sizes_that_contradict_the_spec_are_refused():
    spec = LayerSpec.parse("w4a4-s4/4-v32")
    assert Lane.for_spec(spec).vector_size == 32
    with pytest.raises(SpecError, match=r"vector_size must be the spec's V, 32, where vectors have scales, not 16"):
        Lane.for_spec(spec, vector_size=16)
    with pytest.raises(SpecError, match=r"vector_size must be 2..1024, not 0"):
        Lane.for_spec(LayerSpec.parse("w4a4"), vector_size=0)
    with pytest.raises(SpecError, match=r"max_reduction_length must be at least one vector, 32, not 31"):
        Lane.for_spec(spec, max_reduction_length=31)
    with pytest.raises(SpecError, match="rounding the scale product needs integer vector scales on both operands"):
        dataclasses.replace(Lane.for_spec(LayerSpec.parse("w4a4")), product_bits=4)
