"""One layer behind quantized layers: its weight makes up for its input's error, its bias for the mean."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vsquant import ErrorFeedback, LayerSpec, kernels
from vsquant.optimize.input_moments import InputMoments
from vsquant.optimize.layer_feedback import LayerFeedback, bias_shift, compensated, layer_feedback
from vsquant.spec.formats import IntegerFormat


def layer(seed: int) -> tuple[Tensor, Tensor, Tensor, InputMoments]:
    """A weight (12, 1, 40), rows x of the float network, rows x̂ with an error that depends on x, and their moments."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(12, 1, 40, generator=generator)
    mixing = torch.randn(40, 40, generator=generator)
    x = torch.randn(1, 2000, 40, generator=generator) @ mixing / 6 + 0.5
    seen = 0.8 * x + 0.3 * torch.randn(x.shape, generator=generator) + 0.1
    moments = InputMoments("layer", groups=1, length=40)
    moments.add(seen, x)
    return weight, x[0].double(), seen[0].double(), moments


def output_error(weight: Tensor, x: Tensor, seen: Tensor, found: LayerFeedback) -> float:
    quantized = kernels.dequantize(found.weight, 40)[:, 0].double()
    shift = 0 if found.bias_shift is None else found.bias_shift.double()
    return float((x @ weight[:, 0].double().T - seen @ quantized.T - shift).square().mean())


def test_compensated_weight_is_the_least_squares_solution() -> None:
    weight, x, seen, moments = layer(seed=0)
    found = compensated(weight, moments.hessian(centred=False), moments.deviation(centred=False), 1e-9)
    wanted = torch.linalg.lstsq(seen, x @ weight[:, 0].double().T).solution.T
    torch.testing.assert_close(found[:, 0].double(), wanted, rtol=0, atol=1e-4)


def test_bias_shift_makes_the_means_agree() -> None:
    weight, x, seen, moments = layer(seed=1)
    quantized = torch.round(weight)
    left = x @ weight[:, 0].double().T - seen @ quantized[:, 0].double().T - bias_shift(weight, quantized, moments)
    assert float(left.mean(dim=0).abs().max()) < 1e-4


def test_each_option_lowers_the_output_error() -> None:
    weight, x, seen, moments = layer(seed=2)
    fmt = LayerSpec.parse("w4a16-s4/x").weight
    assert isinstance(fmt, IntegerFormat)
    gamma = kernels.quantize(weight, fmt).coarse_scale
    assert gamma is not None

    def error(method: ErrorFeedback, *, has_bias: bool = True) -> float:
        found = layer_feedback(weight, moments, fmt, method, coarse_scale=gamma.reshape(-1), has_bias=has_bias)
        assert (found.bias_shift is not None) == (method.free_bias and has_bias)
        return output_error(weight, x, seen, found)

    plain = error(ErrorFeedback(compensation=0, free_bias=False))
    with_bias = error(ErrorFeedback(compensation=0))
    half, whole = error(ErrorFeedback(compensation=0.5)), error(ErrorFeedback(compensation=1))
    assert whole < half < plain
    assert whole < error(ErrorFeedback(compensation=1, free_bias=False))
    assert error(ErrorFeedback(compensation=1), has_bias=False) == error(ErrorFeedback(compensation=1, free_bias=False))
    assert with_bias == pytest.approx(plain, rel=0.5)
