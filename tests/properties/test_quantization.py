"""What follows from equations (1)-(6), whatever the numbers: symmetries, error bounds, independence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsquant.reference import Quantized, quantize
from vsquant.spec.formats import IntegerFormat

F32 = np.float32
ROUNDING = 2.0**-23
modes = st.sampled_from(["paper", "requantize"])
repeatable = settings(max_examples=200, derandomize=True, deadline=None, database=None)


@st.composite
def formats(draw: st.DrawFn, **fixed: object) -> IntegerFormat:
    """Formats that both scale modes are defined for, fp16 scales aside (they refuse some numbers)."""
    options = {
        "bits": draw(st.integers(2, 8)),
        "signed": draw(st.booleans()),
        "scale": draw(st.sampled_from([None, "fp32", 2, 4, 6, 10])),
    } | fixed
    size = None if options["scale"] is None else draw(st.sampled_from([2, 4, 16]))
    full = bool(options["signed"]) and "full_range" not in fixed and draw(st.booleans())
    return IntegerFormat(vector_size=size, **({"full_range": full} | options))


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Rows of normal float32 numbers of mixed sizes, some zero; far from overflow and underflow."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 40)))
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-8, 9, shape)
    return np.where(rng.random(shape) < 0.2, 0, x).astype(F32)


def steps(q: Quantized) -> np.ndarray:
    """The float step of every element, (rows, length) float64."""
    scale = np.ones(q.codes.shape[:2]) if q.vector_scale is None else q.vector_scale.astype(np.float64)
    scale = scale if q.coarse_scale is None else scale * q.coarse_scale[:, None]
    return np.repeat(scale[..., None], q.codes.shape[2], axis=2).reshape(len(scale), -1)[:, : q.length]


@repeatable
@given(x=arrays(), fmt=formats(), mode=modes, share=st.sampled_from(["row", "tensor"]))
def test_codes_and_scales_stay_within_their_bits_and_tails_are_zero(x, fmt, mode, share):
    q = quantize(x, fmt, share, mode)
    assert q.codes.min(initial=0) >= fmt.qmin and q.codes.max(initial=0) <= fmt.qmax
    assert not q.codes.reshape(len(x), -1)[:, x.shape[1] :].any()
    if fmt.two_level:
        assert q.vector_scale.min() >= fmt.scale_min and q.vector_scale.max() <= fmt.scale_top


@repeatable
@given(x=arrays(), fmt=formats(), share=st.sampled_from(["row", "tensor"]))
def test_requantized_values_are_nearest_unless_clipped(x, fmt, share):
    q = quantize(x, fmt, share)
    step, x64 = steps(q), x.astype(np.float64)
    low, high = fmt.qmin * step, fmt.qmax * step
    error = np.abs(q.dequantize() - np.clip(x64, low, high))
    assert (error <= step / 2 + ROUNDING * np.abs(x64) + ROUNDING * step).all()


@repeatable
@given(x=arrays(), fmt=formats())
def test_some_vector_of_every_group_has_the_top_scale_and_some_element_the_top_code(x, fmt):
    q = quantize(x, fmt)
    occupied = (np.abs(x) if fmt.signed else x).max(axis=1) > 0
    if fmt.two_level:
        assert (q.vector_scale.max(axis=1)[occupied] == fmt.scale_top).all()
    extreme = np.maximum(q.codes.max(axis=(1, 2)) == fmt.qmax, q.codes.min(axis=(1, 2)) == fmt.qmin)
    assert extreme[occupied].all()


@repeatable
@given(x=arrays(), fmt=formats(), mode=modes, exponent=st.integers(-40, 40))
def test_a_power_of_two_moves_only_the_float_scale(x, fmt, mode, exponent):
    factor = F32(2.0**exponent)
    plain, scaled = quantize(x, fmt, "row", mode), quantize(x * factor, fmt, "row", mode)
    np.testing.assert_array_equal(plain.codes, scaled.codes)
    np.testing.assert_array_equal(plain.dequantize() * factor, scaled.dequantize())
    if fmt.two_level:
        np.testing.assert_array_equal(plain.vector_scale, scaled.vector_scale)


@repeatable
@given(x=arrays(), fmt=formats(signed=True, full_range=False), mode=modes)
def test_negation_negates_the_codes(x, fmt, mode):
    np.testing.assert_array_equal(quantize(-x, fmt, "row", mode).codes, -quantize(x, fmt, "row", mode).codes)


@repeatable
@given(x=arrays(), fmt=formats(signed=False), mode=modes)
def test_unsigned_codes_see_only_what_is_positive(x, fmt, mode):
    np.testing.assert_array_equal(
        quantize(x, fmt, "row", mode).dequantize(), quantize(np.maximum(x, 0), fmt, "row", mode).dequantize()
    )


@repeatable
@given(x=arrays(), fmt=formats(), mode=modes, data=st.data())
def test_rows_and_the_order_of_elements_within_a_vector_do_not_matter(x, fmt, mode, data):
    whole = quantize(x, fmt, "row", mode).dequantize()
    for row, values in zip(x, whole, strict=True):
        np.testing.assert_array_equal(quantize(row[None], fmt, "row", mode).dequantize()[0], values)
    size = fmt.vector_size or x.shape[1]
    order = np.arange(x.shape[1])
    order[:size] = data.draw(st.permutations(order[:size].tolist()))
    np.testing.assert_array_equal(quantize(x[:, order], fmt, "row", mode).dequantize(), whole[:, order])


@repeatable
@given(x=arrays(), fmt=formats(), mode=modes, extra=st.integers(1, 20))
def test_zeros_at_the_end_change_nothing(x, fmt, mode, extra):
    longer = np.pad(x, ((0, 0), (0, extra)))
    values = quantize(longer, fmt, "row", mode).dequantize()
    np.testing.assert_array_equal(values[:, : x.shape[1]], quantize(x, fmt, "row", mode).dequantize())
    assert not values[:, x.shape[1] :].any()


@repeatable
@given(x=arrays(), fmt=formats(scale=4), mode=modes)
def test_quantizing_with_the_observed_maximum_as_static_range_is_quantizing_dynamically(x, fmt, mode):
    if fmt.full_range:
        fmt = replace(fmt, full_range=False)
    largest = float((np.abs(x) if fmt.signed else x).max(initial=0))
    if largest == 0:
        return
    dynamic, static = quantize(x, fmt, "tensor", mode), quantize(x, fmt, "tensor", mode, coarse_range=largest)
    np.testing.assert_array_equal(dynamic.codes, static.codes)
    np.testing.assert_array_equal(dynamic.vector_scale, static.vector_scale)
    assert dynamic.coarse_scale.tobytes() == static.coarse_scale.tobytes()


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_requantizing_is_no_worse_on_the_whole_than_keeping_the_first_codes(bits):
    x = np.random.default_rng(bits).standard_normal((400, 64)).astype(F32) * F32(0.1)
    fmt = IntegerFormat(bits=bits, scale=4)
    errors = [((quantize(x, fmt, "row", mode).dequantize() - x) ** 2).sum() for mode in ("requantize", "paper")]
    assert errors[0] < errors[1]
