"""The operator that searches scales gives what the definition gives: codes, scales, and the errors behind them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vsquant import kernels, reference
from vsquant.errors import NonFiniteError, ShapeError, SpecError
from vsquant.kernels.format_text import format_text
from vsquant.spec.formats import IntegerFormat

FORMATS = [
    IntegerFormat(bits=bits, scale=scale, vector_size=size, full_range=full, scale_top_pow2=top)
    for bits, scale, size in ((2, 2, 2), (3, 3, 16), (4, 4, 16), (4, 6, 5), (8, 5, 16), (6, 10, 64))
    for full in (False, True)
    for top in (False, True)
]
every_format = pytest.mark.parametrize("fmt", FORMATS, ids=format_text)


def weights(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.randn(*shape[:2], 1, generator=generator).exp()


def searched(x, fmt, importance=None):
    gamma = kernels.quantize(x, fmt).coarse_scale.reshape(-1)
    return gamma, kernels.search_scales(x, fmt, gamma, importance)


def definition(x, fmt, importance):
    """Codes, scales and gamma of each group, whose rows share gamma."""
    groups = []
    for group, rows in enumerate(x):
        h = None if importance is None else importance[group % len(importance)].numpy()
        groups.append(reference.quantize(rows.numpy(), fmt, "tensor", scale_mode="search", importance=h))
    return groups


@pytest.mark.parametrize("weighing", [0, 1, 3])
@pytest.mark.parametrize("length", [1, 48, 67])
@every_format
def test_the_same_as_the_definition(fmt, length, weighing):
    x = weights(3, 2, length)
    x[1, 0] = 0
    x[2] *= 1e-30
    h = torch.rand(weighing, length, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    importance = h.where(h > 0.2, 0) if weighing else None
    gamma, found = searched(x, fmt, importance)
    for group, expected in enumerate(definition(x, fmt, importance)):
        assert np.array_equal(found.codes[group].numpy(), expected.codes)
        assert np.array_equal(found.vector_scale[group].numpy(), expected.vector_scale)
        assert float(gamma[group]) == float(expected.coarse_scale[0])
        weight = np.ones(length) if importance is None else importance[group % weighing].numpy()
        size = fmt.vector_size
        terms = np.zeros((2, -(-length // size) * size))
        terms[:, :length] = weight * np.square(x[group].numpy() - expected.dequantize().astype(float))
        error = np.zeros(terms.shape[0] * terms.shape[1] // size)
        for i in range(size):
            error = error + terms.reshape(-1, size)[:, i]
        assert np.array_equal(found.error[group].numpy().ravel(), error)


@every_format
def test_another_gamma_is_searched_as_given(fmt):
    x = weights(4, 1, 40)
    gamma = torch.tensor([0.0, 1e-3, 0.05, 10.0])
    found = kernels.search_scales(x, fmt, gamma)
    assert (found.vector_scale[0] == fmt.scale_min).all() and not found.codes[0].any()
    lost = x[0].double().square().sum() - found.error[0].sum()
    assert abs(float(lost)) < 1e-12 * float(found.error[0].sum())
    for group in (1, 2, 3):
        range_ = float(gamma[group]) * fmt.scale_top * fmt.qmax
        static = reference.quantize(x[group].numpy(), fmt, scale_mode="search", coarse_range=range_)
        if static.coarse_scale[0] == gamma[group].numpy():
            assert np.array_equal(found.codes[group].numpy(), static.codes)


@pytest.mark.parametrize("shape", [(0, 1, 16), (2, 0, 16), (2, 3, 0)])
def test_empty_tensors(shape):
    _, found = searched(torch.ones(shape), FORMATS[4])
    assert found.codes.shape == (*shape[:2], -(-shape[2] // FORMATS[4].vector_size), FORMATS[4].vector_size)


def test_strides_do_not_matter():
    x = weights(4, 6, 32).transpose(0, 1)
    expected, found = (searched(each, FORMATS[8])[1] for each in (x.contiguous(), x))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_pytorch_accepts_the_operator():
    x, fmt = weights(2, 1, 20), FORMATS[4]
    for importance in (None, torch.ones(1, 20, dtype=torch.float64)):
        arguments = (x, torch.tensor([0.1, 0.2]), importance, format_text(fmt))
        torch.library.opcheck(torch.ops.vsquant.search_scales.default, arguments)


def test_what_is_refused():
    x, fmt, gamma = weights(2, 1, 16), FORMATS[4], torch.ones(2)
    for arguments, kind, message in (
        ((x, IntegerFormat(bits=4, scale="fp16"), gamma), SpecError, "where they are integers"),
        ((x[0], fmt, gamma), ShapeError, r"x must be \(groups, rows, length\)"),
        ((x, fmt, gamma[:1]), ShapeError, r"coarse_scale must be one per group \(2\)"),
        (
            (x, fmt, gamma, torch.ones(16)),
            ShapeError,
            r"importance must be of shape \(1, 16\) or \(2, 16\), not \(16,\)",
        ),
        ((x, fmt, gamma, -torch.ones(1, 16)), ShapeError, "importance must be finite and not negative"),
        ((x * torch.nan, fmt, gamma), NonFiniteError, "it holds NaN"),
        ((x, fmt, gamma / 0), NonFiniteError, "it holds Inf"),
    ):
        with pytest.raises(kind, match=message):
            kernels.search_scales(*arguments)
