"""Searching a whole weight: gamma too, channels by their weight, and every option that keeps the hardware."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vsquant import kernels, reference
from vsquant.errors import SpecError
from vsquant.optimize import GAMMA_RATIOS, ScaleSearch, SearchOptions, method_text, parse_method, search_weight
from vsquant.spec.formats import IntegerFormat

OPTIONS = [
    {"full_range": full, "scale_top_pow2": top, "coarse_fp16": g16}
    for full in (False, True)
    for top in (False, True)
    for g16 in (False, True)
]


def synthetic(rows: int = 64) -> torch.Tensor:
    """w = z * exp(0.5 u), z per element and u per vector standard normal, 64 vectors a row, seed 0."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(rows, 64, 16, generator=generator)
    return (z * (0.5 * torch.randn(rows, 64, 1, generator=generator)).exp()).reshape(rows, 1, 1024)


def sqnr_db(x: torch.Tensor, quantized: kernels.QuantizedTensor) -> float:
    error = kernels.dequantize(quantized, x.shape[2]).double() - x
    return 10 * math.log10(float(x.double().square().sum() / error.square().sum()))


@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: "".join("ft16"[i] for i, on in enumerate(options.values()) if on) or "plain"
)
def test_gamma_is_the_best_of_the_candidates(options):
    fmt, x = IntegerFormat(bits=3, scale=3, vector_size=4, **options), synthetic()[:6, :, :30]
    found = search_weight(x, fmt, SearchOptions(gamma=True))
    plain = search_weight(x, fmt)
    for row in range(6):
        errors = []
        for ratio in (1.0, *GAMMA_RATIOS):
            gamma = plain.coarse_scale[row] * torch.tensor(ratio)
            if fmt.coarse_fp16:
                gamma = kernels.numerics.to_fp16(gamma, round_up=True)
            errors.append(float(kernels.search_scales(x[row : row + 1], fmt, gamma).error.sum()))
        values = kernels.dequantize(kernels.QuantizedTensor(*(part[row : row + 1] for part in found)), 30)
        error = float((values.double() - x[row]).square().sum())
        assert error == pytest.approx(min(errors), rel=1e-12) and min(errors) <= errors[0]
        assert found.vector_scale[row].max() <= fmt.scale_top and found.vector_scale[row].min() >= 1
        assert found.codes[row].max() <= fmt.qmax and found.codes[row].min() >= fmt.qmin


@pytest.mark.parametrize(("bits", "scale"), [(3, 3), (3, 6), (4, 3), (4, 4), (4, 6), (6, 4)])
def test_gains_on_the_synthetic_weights(bits, scale):
    x, fmt = synthetic(), IntegerFormat(bits=bits, scale=scale)
    rounded = sqnr_db(x, kernels.quantize(x, fmt))
    searched, joint = (sqnr_db(x, search_weight(x, fmt, SearchOptions(gamma=gamma))) for gamma in (False, True))
    assert searched - rounded > 0.3 and joint > searched
    full = IntegerFormat(bits=bits, scale=scale, full_range=True)
    assert sqnr_db(x, search_weight(x, full)) > searched


def test_importance_moves_the_error_to_where_it_does_not_matter():
    x, fmt = synthetic(), IntegerFormat(bits=3, scale=4)
    h = torch.rand(1, 1024, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).pow(4)
    weighed, plain = (
        kernels.dequantize(search_weight(x, fmt, options), 1024).double().sub(x).square()
        for options in (SearchOptions(importance=h), SearchOptions())
    )
    assert (weighed * h).sum() < 0.97 * (plain * h).sum() and weighed.sum() > plain.sum()


def test_vectors_that_calibration_never_reached_are_searched_unweighed():
    x, fmt = synthetic(4)[..., :40], IntegerFormat(bits=4, scale=4)
    h = torch.ones(1, 40, dtype=torch.float64)
    h[0, 16:] = 0
    found, plain = search_weight(x, fmt, SearchOptions(importance=h)), search_weight(x, fmt)
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True))


def test_fp16_gammas_stay_normal():
    fmt = IntegerFormat(bits=4, scale=4, coarse_fp16=True)
    for size in (2.0**-13 * 105, 65504.0 * 100):
        x = torch.zeros(1, 1, 16)
        x[0, 0, :3] = torch.tensor([size, size / 3, size / 7])
        gamma = search_weight(x, fmt, SearchOptions(gamma=True)).coarse_scale
        assert torch.equal(gamma, gamma.half().float()) and gamma >= 2.0**-14


def test_the_same_as_the_definition():
    x, fmt = synthetic(3), IntegerFormat(bits=4, scale=6)
    h = np.random.default_rng(0).exponential(size=1024)
    found = search_weight(x, fmt, SearchOptions(importance=torch.from_numpy(h)[None]))
    expected = reference.quantize(x[:, 0].numpy(), fmt, scale_mode="search", importance=h)
    assert np.array_equal(found.codes[:, 0].numpy(), expected.codes)
    assert np.array_equal(found.vector_scale[:, 0].numpy(), expected.vector_scale)


def test_options_as_text():
    method = ScaleSearch(importance="second-moment", gamma=True)
    assert method_text(method) == "search:importance=second-moment,gamma=true"
    assert parse_method(method_text(method)) == method and parse_method("search:gamma=true") == ScaleSearch(gamma=True)
    with pytest.raises(SpecError, match=r"options of method search must be one of importance, gamma and a value"):
        parse_method("search:gama=true")
    with pytest.raises(SpecError, match="importance must be one of none, second-moment, not 'first'"):
        parse_method("search:importance=first")
    with pytest.raises(SpecError, match="gamma must be true or false, not 1"):
        parse_method("search:gamma=1")
