"""The lane bit for bit: the plain model, the fast one and eqs. (7)-(8) of the reference, for every kind of spec."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsquant import reference
from vsquant.errors import ShapeError, WidthError
from vsquant.hardware import Lane, LaneOperand, lane_sums, run_lane
from vsquant.reference.integer_formats import join_vectors, split_vectors
from vsquant.spec import PRESETS, LayerSpec

F32 = np.float32
PUBLISHED = [preset.spec for preset in PRESETS.values() if preset.spec.has_integer_sums]


def operand(q, size):
    """A quantized array as the lane is fed: cut into the lane's vectors where it has none of its own."""
    codes = q.codes if q.format.has_vectors else split_vectors(join_vectors(q.codes, q.length), size)
    return LaneOperand(codes=codes, vector_scale=q.vector_scale)


def plain_sums(lane, weight, activation):
    """`run_lane` for every pair of rows: the accumulators after the last vector, and the gated vectors."""
    steps = [
        [
            run_lane(
                lane,
                w.tolist(),
                None if weight.vector_scale is None else weight.vector_scale[k].tolist(),
                a.tolist(),
                None if activation.vector_scale is None else activation.vector_scale[n].tolist(),
            )
            for k, w in enumerate(weight.codes)
        ]
        for n, a in enumerate(activation.codes)
    ]
    sums = [[run[-1].accumulator for run in row] for row in steps]
    return np.array(sums), sum(step.gated for row in steps for run in row for step in run)


@st.composite
def specs(draw):
    """A spec that has an integer sum: every dimension of the notation drawn on its own."""
    scale = st.sampled_from(["x", *range(2, 11)])
    weight, activation = draw(scale), draw(scale)
    text = f"w{draw(st.integers(2, 8))}a{draw(st.integers(2, 8))}" + draw(st.sampled_from(["", "u"]))
    if weight != "x" or activation != "x":
        text += f"-s{weight}/{activation}-v{draw(st.integers(2, 20))}"
    if "x" not in (weight, activation):
        text += draw(st.sampled_from(["", *(f"-p{bits}" for bits in range(1, 22))]))
    text += draw(st.sampled_from(["-tensor", ""])) + draw(st.sampled_from(["", "-full"]))
    if weight != "x":
        text += draw(st.sampled_from(["", "-top"]))
    return LayerSpec.parse(text + draw(st.sampled_from(["", "-g16"])))


def rows(seed, count, length):
    """Rows with zeros, at times whole vectors of them; magnitudes that fp16 scales can follow."""
    rng = np.random.default_rng(seed)
    values = 1000 * rng.standard_normal((count, length)) * np.exp(rng.standard_normal((count, length)))
    values = np.copysign(np.clip(np.abs(values), 10, 40000), values)
    values[rng.random((count, length)) < 0.2] = 0
    values[:, : length // 3] *= rng.integers(0, 2)
    return values.astype(F32)


@settings(max_examples=120)
@given(spec=specs(), seed=st.integers(0, 2**32 - 1), length=st.integers(1, 50), count=st.integers(1, 3))
def test_plain_fast_and_reference_give_the_same_sums(spec, seed, length, count):
    x, w = rows(seed, count, length), rows(seed + 1, 3, length)
    lane = Lane.for_spec(spec, max_reduction_length=64)
    largest = 2000.0 if spec.gamma == "static" else None
    activation = operand(reference.quantize(x, spec.activation, "tensor", coarse_range=largest), lane.vector_size)
    weight = operand(reference.quantize(w, spec.weight), lane.vector_size)
    fast = lane_sums(lane, weight, activation)
    sums, gated = plain_sums(lane, weight, activation)
    np.testing.assert_array_equal(fast.sums, reference.linear(x, w, spec, activation_range=largest).S)
    np.testing.assert_array_equal(fast.sums, sums)
    assert fast.gated == gated


@pytest.mark.parametrize("scale_mode", ["requantize", "paper", "search"])
@pytest.mark.parametrize("spec", PUBLISHED, ids=str)
def test_every_published_spec_gives_the_sums_of_the_reference(spec, scale_mode):
    spec = dataclasses.replace(spec, gamma="tensor")
    x, w = rows(1, 5, 70), rows(2, 4, 70)
    lane = Lane.for_spec(spec)
    weight = operand(reference.quantize(w, spec.weight, "row", scale_mode), lane.vector_size)
    mode = "requantize" if scale_mode == "search" else scale_mode
    activation = operand(reference.quantize(x, spec.activation, "tensor", mode), lane.vector_size)
    expected = reference.linear(x, w, spec, scale_mode).S
    np.testing.assert_array_equal(lane_sums(lane, weight, activation).sums, expected)


@pytest.mark.parametrize("text", ["w2a2-s2/2-v2", "w2a2u-s2/2-v2-p2", "w2a2-s2/2-v2-p3-top-full", "w2a2u-s2/x-v2-full"])
def test_every_vector_of_a_small_format_goes_through_both_models_alike(text):
    spec = LayerSpec.parse(text)
    lane = Lane.for_spec(spec, max_reduction_length=2)
    pairs = {}
    for role, fmt in (("weight", spec.weight), ("activation", spec.activation)):
        codes = list(itertools.product(range(fmt.qmin, fmt.qmax + 1), repeat=2))
        scales = range(fmt.scale_min, fmt.scale_top + 1) if fmt.two_level else [None]
        every = list(itertools.product(codes, scales))
        sigma = np.array([[scale] for _, scale in every]) if fmt.two_level else None
        pairs[role] = LaneOperand(codes=np.array([[code] for code, _ in every]), vector_scale=sigma)
    fast = lane_sums(lane, pairs["weight"], pairs["activation"])
    sums, gated = plain_sums(lane, pairs["weight"], pairs["activation"])
    np.testing.assert_array_equal(fast.sums, sums)
    assert fast.gated == gated
    assert gated > 0
    assert (fast.sums.min(), fast.sums.max()) == lane.accumulator_range


def test_a_vector_is_gated_where_its_scale_product_is_zero():
    lane = Lane.for_spec(LayerSpec.parse("w4a4-s4/4-v2-p2"))
    weights, scales = [[1, -1], [7, 7], [7, 7]], [15, 3, 15]
    steps = run_lane(lane, weights, scales, [[3, 3], [7, 7], [7, 7]], [15, 3, 15])
    assert [step.gated for step in steps] == [False, True, False]
    assert [step.dot for step in steps] == [0, 98, 98]
    assert [step.scale_product for step in steps] == [3, 0, 3]
    assert [step.accumulator for step in steps] == [0, 0, 294]


def test_a_value_that_its_register_does_not_hold_is_refused():
    lane = Lane.for_spec(LayerSpec.parse("w4a4-s4/4-v2"), max_reduction_length=2)
    assert run_lane(lane, [[7, 7]], [15], [[7, 7]], [15])[-1].accumulator == 98 * 225
    for operands, message in (
        (([[8, 0]], [1], [[1, 1]], [1]), r"a weight code must fit 4 bits \(two's complement\), -8..7, not be 8"),
        (([[1, 1]], [1], [[0, -9]], [1]), r"an activation code must fit 4 bits"),
        (([[-8, 0]], [1], [[-8, 0]], [1]), r"a product of codes must fit 7 bits"),
        (([[1, 1]], [16], [[1, 1]], [16]), r"a scale product must fit 8 bits \(unsigned\), 0..255, not be 256"),
        (([[7, 7]] * 2, [15] * 2, [[7, 7]] * 2, [15] * 2), r"the accumulator must fit 16 bits"),
    ):
        with pytest.raises(WidthError, match=message):
            run_lane(lane, *operands)


def test_the_fast_model_refuses_what_the_plain_one_would():
    lane = Lane.for_spec(LayerSpec.parse("w4a4u-s4/4-v2"), max_reduction_length=2)
    good = LaneOperand(codes=np.array([[[7, 7]]]), vector_scale=np.array([[15]]))

    def refused(error, message, weight=good, activation=good):
        with pytest.raises(error, match=message):
            lane_sums(lane, weight, activation)

    code = dataclasses.replace(good, codes=np.array([[[-8, 7]]]))
    refused(WidthError, r"weight codes must be -7..7, as the lane's format says, not -8..7", weight=code)
    refused(WidthError, r"activation codes must be 0..15, .* not -8..7", activation=code)
    scale = dataclasses.replace(good, vector_scale=np.array([[16]]))
    refused(WidthError, r"weight vector scales must be 0..15, .* not 16..16", weight=scale)
    unscaled = dataclasses.replace(good, vector_scale=None)
    refused(ShapeError, "the activation must come with vector scales", activation=unscaled)
    many = LaneOperand(codes=np.full((1, 3, 2), 7), vector_scale=np.full((1, 3), 15))
    refused(WidthError, "at most 1 vectors in 17 bits, not 3; drain", weight=many, activation=many)
    refused(ShapeError, "the same number of vectors of at most 2", activation=many)
    with pytest.raises(ShapeError, match=r"codes must be of shape \(rows, vectors, V\), not \(2,\)"):
        LaneOperand(codes=np.zeros(2, dtype=int), vector_scale=None)
    with pytest.raises(ShapeError, match="one scale for each"):
        LaneOperand(codes=np.zeros((1, 2, 2), dtype=int), vector_scale=np.zeros((1, 3), dtype=int))


def test_no_rows_and_no_vectors_sum_to_nothing():
    lane = Lane.for_spec(LayerSpec.parse("w4a4"))
    none = LaneOperand(codes=np.zeros((0, 3, 16), dtype=np.int8), vector_scale=None)
    some = LaneOperand(codes=np.ones((2, 3, 16), dtype=np.int8), vector_scale=None)
    assert lane_sums(lane, some, none).sums.shape == (0, 2)
    empty = LaneOperand(codes=np.ones((2, 0, 16), dtype=np.int8), vector_scale=None)
    np.testing.assert_array_equal(lane_sums(lane, empty, empty).sums, np.zeros((2, 2)))
