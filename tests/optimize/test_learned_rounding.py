"""Learned rounding: variables start at the given codes, stay beside them, and lower the error they are given."""

import itertools

import pytest
import torch

from vsquant.kernels import quantize
from vsquant.optimize.learned_rounding import BETA_RANGE, RoundingVariables, Schedule, drop, learn
from vsquant.spec import LayerSpec


def _rounded(weight, fmt):
    """Steps and codes (rows, C) of weights rounded to nearest, whole vectors a row."""
    codes, sigma, gamma = quantize(weight[None], fmt, share="row")
    step = (sigma * gamma.unsqueeze(-1)).unsqueeze(-1).expand(codes.shape)
    return step.reshape(weight.shape), codes.reshape(weight.shape).float()


def _variables(weight, fmt, codes=None):
    step, rounded = _rounded(weight, fmt)
    return RoundingVariables(weight, step, rounded if codes is None else codes, qmin=fmt.qmin, qmax=fmt.qmax)


@pytest.mark.parametrize("spec", ["w3a8-s4/8", "w4a8-s4/8", "w4a8-s4/8-full", "w2a8-s4/8-top", "w8a8-s8/8"])
def test_nothing_learned_gives_the_codes_it_started_from(spec):
    fmt = LayerSpec.parse(spec).weight
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    weight[2, 16:32] = 0
    _, codes = _rounded(weight, fmt)
    assert torch.equal(_variables(weight, fmt).codes(), codes)


def test_codes_far_from_the_weight_are_kept_too():
    fmt = LayerSpec.parse("w4a8-s4/8").weight
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(8, 64, generator=generator)
    codes = torch.randint(fmt.qmin, fmt.qmax + 1, weight.shape, generator=generator).float()
    assert torch.equal(_variables(weight, fmt, codes).codes(), codes)


def test_whatever_is_learned_codes_are_beside_the_start_and_within_the_format():
    fmt = LayerSpec.parse("w3a8-s4/8").weight
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(8, 64, generator=generator)
    variables = _variables(weight, fmt)
    start = variables.codes()
    for pull in (-1e6, 1e6):
        with torch.no_grad():
            variables.variable.fill_(pull)
        codes = variables.codes()
        assert (codes - start).abs().max() <= 1
        assert codes.min() >= fmt.qmin
        assert codes.max() <= fmt.qmax
        assert torch.equal(variables.weight().detach(), codes * variables.step)


def test_rounded_to_nearest_the_relaxed_weight_is_the_weight_itself_within_the_format():
    fmt = LayerSpec.parse("w4a8-s6/8").weight
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(4))
    variables = _variables(weight, fmt)
    step = variables.step
    inside = (weight / step).abs() <= fmt.qmax
    assert inside.float().mean() > 0.9
    error = ((variables.weight().detach() - weight).abs() / step)[inside]
    assert error.max() < 0.02


def test_regulariser_is_zero_exactly_where_every_h_is_an_integer():
    fmt = LayerSpec.parse("w4a8-s4/8").weight
    variables = _variables(torch.randn(2, 32, generator=torch.Generator().manual_seed(5)), fmt)
    assert variables.regulariser(2.0) > 0
    with torch.no_grad():
        variables.variable.mul_(1e6)
    assert variables.regulariser(2.0) == 0


def test_beta_falls_from_first_to_last_after_the_warmup():
    schedule = Schedule(iterations=100, learning_rate=0.1, warmup=0.2, regularisation=1.0)
    betas = [schedule.beta(iteration) for iteration in range(100)]
    assert betas[:20] == [None] * 20
    assert betas[20] == BETA_RANGE[0]
    assert betas[-1] == pytest.approx(BETA_RANGE[1], abs=0.1)
    assert all(earlier > later for earlier, later in itertools.pairwise(betas[20:]))


def test_learning_finds_the_best_codes_of_a_tiny_problem():
    """All 2^8 roundings of eight weights against one correlated input, beside what is learned."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(64, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    weight = torch.randn(1, 8, generator=generator)
    step = torch.full_like(weight, 0.4)
    codes = (weight / step).round().clamp(-7, 7)
    target = x @ weight.t()

    def error(candidate):
        return float((x @ (candidate * step).t() - target).square().mean())

    variables = RoundingVariables(weight, step, codes, qmin=-7, qmax=7)
    bits = torch.arange(256)[:, None].bitwise_right_shift(torch.arange(8)) & 1
    best = min(error(variables.below + row) for row in bits)
    schedule = Schedule(iterations=400, learning_rate=0.03, warmup=0.2, regularisation=0.1)
    learn([variables], lambda _: (x @ variables.weight().t() - target).square().mean(), schedule)
    assert error(variables.codes()) < error(codes)
    assert error(variables.codes()) <= 1.5 * best


def test_learned_rounding_beats_nearest_on_heavy_tailed_vectors():
    """w = z exp(0.5 u), 64 vectors a row (seed 7), inputs of low rank: at least 5 dB less output error."""
    fmt = LayerSpec.parse("w3a8-s4/8").weight
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(16, 64, 16, generator=generator)
    weight = (weight * (0.5 * torch.randn(16, 64, 1, generator=generator)).exp()).flatten(1)
    x = torch.randn(512, 64, generator=generator) @ torch.randn(64, 1024, generator=generator) / 8
    target = x @ weight.t()
    variables = _variables(weight, fmt)
    start = variables.codes()

    def loss(iteration):
        rows = slice(32 * (iteration % 16), 32 * (iteration % 16 + 1))
        return (x[rows] @ variables.weight().t() - target[rows]).square().mean() / target.square().mean()

    learn([variables], loss, Schedule(iterations=200, learning_rate=0.1, warmup=0.2, regularisation=1.0))
    nearest = (x @ (start * variables.step).t() - target).square().mean()
    learned = (x @ (variables.codes() * variables.step).t() - target).square().mean()
    assert learned < nearest * 10**-0.5


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_dropping_keeps_that_share_of_elements_float(probability):
    generator = torch.Generator().manual_seed(8)
    x, quantized = torch.ones(200, 50), torch.zeros(200, 50)
    kept = drop(x, quantized, probability, generator)
    assert float(kept.mean()) == pytest.approx(probability, abs=0.02)


def test_the_same_seed_drops_the_same_elements():
    x, quantized = torch.ones(100), torch.zeros(100)
    first, second = (drop(x, quantized, 0.5, torch.Generator().manual_seed(9)) for _ in range(2))
    assert torch.equal(first, second)
