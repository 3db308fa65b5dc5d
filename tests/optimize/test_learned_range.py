"""The gradient of a static activation range, beside plain autograd through straight-through rounding."""

import pytest
import torch

from vsquant.kernels import fake_quantize
from vsquant.optimize.learned_range import quantize_with_range
from vsquant.spec import LayerSpec

SPECS = ["w4a4-s4/4", "w4a4u-s4/4", "w4a3-s4/6", "w8a4", "w8a4u"]


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def _plain(x, range_, fmt):
    """Eqs. (1)-(6) with every rounding straight-through, the vectors' own steps held fixed."""
    if fmt.scale is None:
        scale = range_ / fmt.qmax
        return _Round.apply((x / scale).clamp(fmt.qmin, fmt.qmax)) * scale
    vectors = x.unflatten(-1, (-1, fmt.vector_size))
    magnitude = vectors.abs() if fmt.signed else vectors.clamp(min=0)
    step = magnitude.amax(-1, keepdim=True).detach() / fmt.qmax
    gamma = range_ / fmt.qmax / fmt.scale_top
    sigma = _Round.apply((step / gamma).clamp(1, fmt.scale_top))
    scale = sigma * gamma
    return (_Round.apply((vectors / scale).clamp(fmt.qmin, fmt.qmax)) * scale).flatten(-2)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("range_", [0.7, 1.6, 6.0])
def test_gradient_of_the_range_is_that_of_straight_through_rounding(spec, range_):
    fmt = LayerSpec.parse(spec).activation
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 4, 32, generator=generator)
    weights = torch.randn(x.shape, generator=generator)
    ours, plain = (torch.tensor([range_], requires_grad=True) for _ in range(2))
    (quantize_with_range(x, ours, fmt) * weights).sum().backward()
    (_plain(x, plain, fmt) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", SPECS)
def test_values_are_those_of_the_kernels_and_x_passes_its_gradient_on(spec):
    fmt = LayerSpec.parse(spec).activation
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2)).requires_grad_()
    range_ = torch.tensor([1.5])
    y = quantize_with_range(x, range_, fmt)
    assert torch.equal(y, fake_quantize(x.detach(), fmt, coarse_range=range_))
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_a_range_that_clips_too_much_grows():
    fmt = LayerSpec.parse("w4a4u-s4/4").activation
    x = torch.rand(8, 16, 64, generator=torch.Generator().manual_seed(3))
    log = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([log], lr=0.05)
    start = torch.tensor([0.3])
    for _ in range(80):
        optimizer.zero_grad()
        (quantize_with_range(x, start * log.exp(), fmt) - x).square().mean().backward()
        optimizer.step()

    def error(range_):
        return (fake_quantize(x, fmt, coarse_range=range_) - x).square().mean()

    assert error(start * log.detach().exp()) < error(start) / 10
