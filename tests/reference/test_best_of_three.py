"""Scale mode best-of-three against the three neighbours by hand, element by element in Python's own floats."""

from __future__ import annotations

import numpy as np
import pytest

from vsquant import reference
from vsquant.reference.integer_formats import element_codes
from vsquant.spec.formats import IntegerFormat

F32 = np.float32
FORMATS = [
    IntegerFormat(bits=bits, scale=scale, vector_size=4, signed=signed)
    for bits, scale in ((2, 2), (4, 4), (3, 6), (8, 3))
    for signed in (False, True)
]


def activations(rows=6, length=14, seed=0):
    random = np.random.default_rng(seed)
    spread = np.exp(1.2 * random.normal(size=(rows, -(-length // 4))).repeat(4, axis=1)[:, :length])
    return (random.normal(size=(rows, length)) * spread).astype(F32)


def error_by_hand(vector, sigma, gamma, fmt):
    step = F32(sigma) * gamma
    codes = element_codes(vector.reshape(1, 1, -1), step.reshape(1, 1), fmt).ravel()
    total = 0.0
    for x, q in zip(vector, codes, strict=True):
        difference = float(x) - float(F32(q) * step)
        total += difference * difference
    return total


@pytest.mark.parametrize("range_", [None, 1.5])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_each_scale_is_the_smallest_best_of_its_neighbours(fmt, range_):
    x = activations()
    x[2, :4] = 0
    plain = reference.quantize(x, fmt, "tensor", coarse_range=range_)
    found = reference.quantize(x, fmt, "tensor", scale_mode="best-of-three", coarse_range=range_)
    assert np.array_equal(found.coarse_scale, plain.coarse_scale)
    padded = np.pad(x, ((0, 0), (0, 2))).reshape(6, 4, 4)
    for row in range(6):
        for j in range(4):
            sigma = int(plain.vector_scale[row, j])
            three = [s for s in (sigma - 1, sigma, sigma + 1) if 1 <= s <= fmt.scale_top] if sigma else [0]
            errors = [error_by_hand(padded[row, j], s, found.coarse_scale[0], fmt) for s in three]
            assert found.vector_scale[row, j] == three[errors.index(min(errors))]
    step = found.vector_scale.astype(F32) * found.coarse_scale
    assert np.array_equal(found.codes, element_codes(padded, step, fmt))


@pytest.mark.parametrize("fmt", FORMATS[1:], ids=str)
def test_between_requantize_and_search(fmt):
    x = activations(16, 32, seed=2) if fmt.signed else np.abs(activations(16, 32, seed=2))
    error = {
        mode: np.square(reference.quantize(x, fmt, "tensor", scale_mode=mode).dequantize() - x.astype(float)).sum()
        for mode in ("requantize", "best-of-three", "search")
    }
    assert error["search"] <= error["best-of-three"] <= error["requantize"]
    assert error["best-of-three"] < error["requantize"]


def test_formats_without_integer_scales_have_nothing_to_choose():
    x = activations()
    for scale in ("fp32", None):
        fmt = IntegerFormat(bits=4, scale=scale, vector_size=None if scale is None else 4)
        plain, found = (reference.quantize(x, fmt, scale_mode=mode) for mode in ("requantize", "best-of-three"))
        assert np.array_equal(plain.codes, found.codes)


def test_zeros_stay_zeros():
    found = reference.quantize(np.zeros((2, 8), F32), FORMATS[1], scale_mode="best-of-three")
    assert not found.vector_scale.any() and not found.codes.any()
