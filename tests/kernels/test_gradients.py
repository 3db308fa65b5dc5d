"""Integer products have no gradient, and say so when one is asked for: never silently, never by a warning."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant.errors import VsquantError
from vsquant.kernels import backends


def model() -> nn.Module:
    """Float layers around integer ones, so that what reaches these wants a gradient."""
    torch.manual_seed(0)
    layers = [
        nn.Linear(32, 48),
        nn.Tanh(),
        nn.Linear(48, 48),
        nn.Tanh(),
        nn.Linear(48, 48),
        nn.Tanh(),
        nn.Linear(48, 4),
    ]
    float_model = nn.Sequential(*layers).eval()
    calibration = [torch.randn(8, 32)]
    return vsquant.to_integer(
        vsquant.quantize(float_model, "w4a8-s4/8-tensor", first_last="float", calibration=calibration)
    )


def outputs(model: nn.Module, x: Tensor, backend: str | None) -> Tensor:
    called = model if backend is None else torch.compile(model, fullgraph=True, backend=backend)
    result: Tensor = called(x)
    return result


@pytest.mark.parametrize("backend", [None, "eager", "aot_eager"])
def test_backward_is_refused_and_forward_does_not_warn(backend: str | None) -> None:
    integer = model()
    x = torch.randn(3, 32)
    with torch.inference_mode():
        expected = integer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = outputs(integer, x, backend)
        assert torch.equal(y, expected) and y.requires_grad
        with pytest.raises(VsquantError, match="a gradient must not be asked through integer layers, which have none"):
            y.sum().backward()


class Residual(nn.Module):
    """Two branches of integer layers, of which one gives the floats that the other adds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.third(nn.functional.relu(self.second(nn.functional.relu(self.first(x))) + x))


def chained(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


CHAINS = {
    "linear": (lambda: chained(nn.Linear(32, 48), nn.Linear(48, 48), nn.Linear(48, 16)), (4, 32)),
    "residual": (Residual, (4, 32)),
    "conv": (lambda: chained(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 8, 3)), (2, 3, 9, 9)),
    "pool": (lambda: nn.Sequential(*chained(nn.Conv2d(3, 16, 3)), nn.MaxPool2d(2), nn.Conv2d(16, 8, 3)), (2, 3, 9, 9)),
    "float end": (lambda: nn.Sequential(*chained(nn.Linear(32, 48), nn.Linear(48, 48)), Float(48)), (4, 32)),
}


class Float(nn.Module):
    """Arithmetic with a parameter that is no layer, and wants a gradient."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(length))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize("compiled", [None, "aot_eager"])
@pytest.mark.parametrize("kernels", ["eager", "cpu"])
@pytest.mark.parametrize(
    ("name", "spec"), [("pool", "w8a8"), *((name, "w4a8-s4/8") for name in CHAINS if name != "pool")]
)
def test_backward_through_chained_layers_is_refused(
    name: str, spec: str, kernels: str, compiled: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels not in backends():
        pytest.skip("the native library was not built")
    monkeypatch.setenv("VSQUANT_BACKEND", kernels)
    torch.manual_seed(0)
    build, shape = CHAINS[name]
    x = torch.randn(shape)
    integer = vsquant.to_integer(vsquant.quantize(build().eval(), spec, calibration=[x]))
    assert vsquant.chain_report(integer).chained
    with torch.inference_mode():
        expected = integer(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = outputs(integer, x.clone().requires_grad_(), compiled)
        assert torch.equal(y, expected) and y.requires_grad
        with pytest.raises(VsquantError, match="a gradient must not be asked through integer layers, which have none"):
            y.sum().backward()


def test_outputs_need_no_gradient_where_inputs_do_not() -> None:
    integer = model()[2]
    assert not integer(torch.randn(3, 48)).requires_grad
    with torch.no_grad():
        assert not integer(torch.randn(3, 48, requires_grad=True)).requires_grad


def test_the_simulated_model_keeps_its_straight_through_gradient() -> None:
    torch.manual_seed(0)
    simulated = vsquant.quantize(nn.Sequential(nn.Linear(32, 8)).eval(), "w4a8-s4/8-tensor")
    x = torch.randn(3, 32, requires_grad=True)
    simulated(x).sum().backward()
    assert torch.allclose(x.grad, simulated[0].weight.sum(0).expand(3, 32))
