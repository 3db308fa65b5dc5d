"""Scale mode search against a search by hand, element by element in Python's own floats."""

from __future__ import annotations

import numpy as np
import pytest

from vsquant import reference
from vsquant.errors import ShapeError, SpecError
from vsquant.reference.integer_formats import element_codes
from vsquant.spec.formats import IntegerFormat

F32 = np.float32
FORMATS = [
    IntegerFormat(bits=bits, scale=scale, vector_size=4, full_range=full, scale_top_pow2=top, coarse_fp16=g16)
    for bits, scale in ((2, 2), (3, 3), (4, 6))
    for full in (False, True)
    for top in (False, True)
    for g16 in (False, True)
]


def weights(rows=3, length=14, seed=0):
    random = np.random.default_rng(seed)
    spread = np.exp(0.7 * random.normal(size=(rows, -(-length // 4))).repeat(4, axis=1)[:, :length])
    return (random.normal(size=(rows, length)) * spread).astype(F32)


def error_by_hand(vector, sigma, gamma, h, fmt):
    step = F32(sigma) * gamma
    codes = element_codes(vector.reshape(1, 1, -1), step.reshape(1, 1), fmt).ravel()
    total = 0.0
    for x, q, weight in zip(vector, codes, h, strict=True):
        difference = float(x) - float(F32(q) * step)
        total += weight * (difference * difference)
    return total


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_each_scale_is_the_smallest_best_one(fmt, weighted):
    x = weights()
    h = np.random.default_rng(1).exponential(size=x.shape[1]) if weighted else None
    found = reference.quantize(x, fmt, scale_mode="search", importance=h)
    assert np.array_equal(found.coarse_scale, reference.quantize(x, fmt).coarse_scale)
    padded = np.pad(x, ((0, 0), (0, 2))).reshape(3, 4, 4)
    h_vectors = np.pad(np.ones(14) if h is None else h, (0, 2)).reshape(4, 4)
    for row, gamma in enumerate(found.coarse_scale):
        for j in range(4):
            errors = [
                error_by_hand(padded[row, j], sigma, gamma, h_vectors[j], fmt) for sigma in range(1, fmt.scale_top + 1)
            ]
            assert found.vector_scale[row, j] == 1 + errors.index(min(errors))
    step = found.vector_scale.astype(F32) * found.coarse_scale[:, None]
    assert np.array_equal(found.codes, element_codes(padded, step, fmt))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_never_worse_than_requantize(fmt):
    x = weights(16, 32, seed=2)
    errors = [
        ((reference.quantize(x, fmt, scale_mode=mode).dequantize() - x.astype(float)) ** 2).reshape(16, 8, 4).sum(2)
        for mode in ("search", "requantize")
    ]
    assert (errors[0] <= errors[1] * (1 + 1e-12)).all() and errors[0].sum() < errors[1].sum()


def test_vectors_and_rows_of_zeros():
    x = np.zeros((2, 8), F32)
    x[0, 0] = 1
    for top, smallest in ((False, 0), (True, 1)):
        fmt = IntegerFormat(bits=4, scale=4, vector_size=4, scale_top_pow2=top)
        found = reference.quantize(x, fmt, scale_mode="search")
        assert found.vector_scale[0, 1] == 1, "every scale leaves no error: the smallest of 1..top"
        assert (found.vector_scale[1] == smallest).all(), "gamma is 0"
        assert not found.codes[0, 1].any() and not found.codes[1].any()


@pytest.mark.parametrize("value", [3e38, 1e-45, 2e-42])
def test_the_ends_of_float32(value):
    x = np.array([[value, -value / 2, value / 3, 0]], F32)
    found = reference.quantize(x, IntegerFormat(bits=4, scale=3, vector_size=2), scale_mode="search")
    assert found.vector_scale.min() >= 0 and np.isfinite(found.dequantize()).all()


def test_formats_without_integer_scales_are_as_in_requantize():
    x = weights()
    for fmt in (IntegerFormat(bits=4, scale=None, vector_size=None), IntegerFormat(bits=4, scale="fp32")):
        assert np.array_equal(reference.quantize(x, fmt, scale_mode="search").codes, reference.quantize(x, fmt).codes)


def test_importance_is_for_the_search_and_fits():
    x, fmt = weights(), FORMATS[0]
    rows = np.random.default_rng(1).exponential(size=x.shape)
    whole = reference.quantize(x, fmt, scale_mode="search", importance=rows)
    for row in range(3):
        alone = reference.quantize(x[row : row + 1], fmt, scale_mode="search", importance=rows[row])
        assert np.array_equal(alone.codes[0], whole.codes[row])
    with pytest.raises(SpecError, match="importance must be None in scale_mode 'requantize'"):
        reference.quantize(x, fmt, importance=rows)
    with pytest.raises(ShapeError, match=r"one weight for each element of a row, \(14,\), or of all rows, \(3, 14\)"):
        reference.quantize(x, fmt, scale_mode="search", importance=rows[:, :4])
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ShapeError, match="importance must be finite and not negative"):
            reference.quantize(x, fmt, scale_mode="search", importance=np.full(14, bad))
