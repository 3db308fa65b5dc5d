"""Eqs. (H1)-(H5) against exact fractions, exhaustively where formats are small."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsquant.errors import ShapeError, SpecError, WidthError
from vsquant.reference import PostProcessing, post_process, rescale
from vsquant.spec.formats import IntegerFormat

SMALL = [
    IntegerFormat(bits=2, signed=False, vector_size=2, scale=2),
    IntegerFormat(bits=2, vector_size=2, scale=2),
    IntegerFormat(bits=3, vector_size=2, scale=3),
    IntegerFormat(bits=4, vector_size=None, scale=None),
    IntegerFormat(bits=3, signed=False, vector_size=None, scale=None),
]


def passing(fmt, fraction_bits, extra_bits=0, *, relu=False, channels=2):
    """Constants under which t is S itself, until it saturates."""
    one = np.ones(channels, dtype=np.int64)
    return PostProcessing(
        format=fmt,
        fraction_bits=fraction_bits,
        value_bits=1 + ((fmt.qmax * fmt.scale_top) << fraction_bits).bit_length() + extra_bits,
        relu=relu,
        multiplier=one,
        shift=0 * one,
        bias=0 * one,
    )


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def by_hand(values, fmt, fraction_bits):
    """One vector's codes and scale by the words of the definition: half away from zero, at least 1, at most top."""
    magnitude = [abs(v) if fmt.signed else max(v, 0) for v in values]
    unit = 2**fraction_bits
    sigma = 1
    if fmt.scale is not None:
        sigma = min(half_up(Fraction(max(magnitude), fmt.qmax * unit)), fmt.scale_top)
        sigma = max(sigma, 1) if max(magnitude) else sigma
    codes = [min(half_up(Fraction(m, max(sigma, 1) * unit)), fmt.qmax) for m in magnitude]
    return [-c if v < 0 else c for c, v in zip(codes, values, strict=True)], sigma


@pytest.mark.parametrize("fraction_bits", [1, 2])
@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_every_vector_of_a_small_format(fmt, fraction_bits):
    constants = passing(fmt, fraction_bits)
    reach = range(-constants.largest_value, constants.largest_value + 1)
    sums = np.array(list(itertools.product(reach, repeat=2)))
    result = post_process(sums, constants)
    np.testing.assert_array_equal(result.values, sums)
    for row, values in enumerate(sums.tolist()):
        codes, sigma = by_hand(values, fmt, fraction_bits)
        assert result.codes[row, 0].tolist() == codes
        assert fmt.scale is None or int(result.vector_scale[row, 0]) == sigma


@pytest.mark.parametrize("fmt", SMALL, ids=str)
def test_saturating_changes_neither_codes_nor_scales(fmt):
    narrow, wide = passing(fmt, 2), passing(fmt, 2, extra_bits=3)
    sums = np.array(
        list(itertools.product(range(-2 * narrow.largest_value, 2 * narrow.largest_value + 1, 3), repeat=2))
    )
    saturated, unlimited = post_process(sums, narrow), post_process(sums, wide)
    assert np.abs(saturated.values).max() == narrow.largest_value < np.abs(unlimited.values).max()
    np.testing.assert_array_equal(saturated.codes, unlimited.codes)
    if fmt.scale is not None:
        np.testing.assert_array_equal(saturated.vector_scale, unlimited.vector_scale)


@given(
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=5),
    st.integers(0, 2**16 - 1),
    st.integers(0, 50),
)
def test_rescaling_rounds_the_exact_product_half_up(values, multiplier, shift):
    given_ = np.array(values)[:, None]
    rescaled = rescale(given_, np.array([multiplier]), np.array([shift]))[:, 0]
    assert rescaled.tolist() == [half_up(Fraction(v * multiplier, 2**shift)) for v in values]


def test_each_channel_has_its_own_constants_and_relu_comes_after_the_bias():
    fmt = IntegerFormat(bits=8, vector_size=None, scale=None)
    constants = PostProcessing(
        format=fmt,
        fraction_bits=4,
        value_bits=13,
        relu=True,
        multiplier=np.array([3, 5]),
        shift=np.array([1, 2]),
        bias=np.array([-10, 7]),
    )
    result = post_process(np.array([[7, -8], [-7, 8]]), constants)
    assert result.values.tolist() == [[(21 + 1) // 2 - 10, 0], [0, 10 + 7]]
    assert result.codes[:, 0].tolist() == [[0, 0], [0, 1]]


def test_a_residual_is_a_bias_of_every_element():
    fmt = IntegerFormat(bits=4, vector_size=2, scale=4)
    alone = passing(fmt, 3)
    sums, residual = np.array([[5, -6], [700, 0]]), np.array([[1, 2], [3, 4]])
    added = PostProcessing(
        format=fmt,
        fraction_bits=3,
        value_bits=alone.value_bits,
        relu=False,
        multiplier=alone.multiplier,
        shift=alone.shift,
        bias=residual,
    )
    assert post_process(sums, added).values.tolist() == post_process(sums + residual, alone).values.tolist()


def test_channels_that_fill_no_vector_are_padded_with_zeros():
    fmt = IntegerFormat(bits=4, vector_size=4, scale=4)
    result = post_process(np.array([[80, 0, 0, 0, 8, -8]]), passing(fmt, 3, channels=6))
    assert result.codes.shape == (1, 2, 4)
    assert result.codes[0, 1].tolist() == [1, -1, 0, 0]
    assert result.vector_scale.tolist() == [[1, 1]]
    empty = post_process(np.zeros((0, 6), dtype=np.int64), passing(fmt, 3, channels=6))
    assert empty.codes.shape == (0, 2, 4)


def test_what_is_not_defined_is_refused():
    fmt = IntegerFormat(bits=4, vector_size=2, scale=4)
    good = passing(fmt, 3)
    fields = {name: getattr(good, name) for name in PostProcessing.__dataclass_fields__}

    def refused(error, message, **changes):
        with pytest.raises(error, match=message):
            PostProcessing(**{**fields, **changes})

    refused(SpecError, "fraction_bits must be at least 1, not 0", fraction_bits=0)
    refused(SpecError, r"value_bits must be more than 10 to hold qmax \* top \* 2\^F, not 10", value_bits=10)
    refused(SpecError, "makes activation codes", format=IntegerFormat(bits=4, scale=4, full_range=True))
    refused(SpecError, "under a coarse scale", format=IntegerFormat(bits=4, scale="fp16"))
    refused(ShapeError, "not negative", multiplier=-good.multiplier)
    refused(ShapeError, "for every channel", shift=np.zeros(3, dtype=int))
    with pytest.raises(WidthError, match="must fit 64 bits"):
        rescale(np.array([[1 << 50]]), np.array([1 << 15]), np.array([3]))
