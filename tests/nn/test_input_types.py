"""What quantized layers, simulated and integer, say of inputs that a float layer would not take either."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant.errors import ShapeError, VsquantError
from vsquant.nn import IntegerLayer, QuantLayer


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)
        self.linear = nn.Linear(36, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.conv(x).flatten(2))
        return out


IMAGES = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
ROWS = IMAGES.reshape(-1)[:72].view(2, 36)


@pytest.fixture(params=["simulated", "integer", "chained"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    simulated = vsquant.quantize(Model().eval(), "w4a8-s4/8", calibration=[IMAGES])
    return (
        simulated if request.param == "simulated" else vsquant.to_integer(simulated, chain=request.param == "chained")
    )


def said_of(layer: nn.Module, x: Any) -> str:
    with pytest.raises(VsquantError) as error:
        layer(x)
    return str(error.value)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_what_is_not_floating_point_is_refused(model: nn.Module, dtype: torch.dtype) -> None:
    expected = f"must be floating point, not {dtype}; convert it: x.to(torch.float32)"
    assert said_of(model.linear, torch.ones(2, 36, dtype=dtype)) == f"input of layer 'linear' {expected}"
    assert said_of(model.conv, torch.ones(1, 4, 8, 8, dtype=dtype)) == f"input of layer 'conv' {expected}"
    assert said_of(model, torch.ones(1, 4, 8, 8, dtype=dtype)) == f"input of layer 'conv' {expected}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_float_type_is_refused_as_float_layers_refuse_it(model: nn.Module, dtype: torch.dtype) -> None:
    for name, x in (("linear", ROWS), ("conv", IMAGES)):
        assert said_of(model.get_submodule(name), x.to(dtype)) == (
            f"input of layer '{name}' must be torch.float32 as the layer is, not {dtype}; convert the input, "
            f"x.to(torch.float32), or the model, model.to({dtype})"
        )


def test_autocast_and_float32_are_taken_as_float_layers_take_them(model: nn.Module) -> None:
    expected = model.linear(ROWS.bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(model.linear(ROWS.bfloat16()).float(), expected, rtol=0.02, atol=0.02)
    assert model.bfloat16().linear(ROWS).dtype == torch.bfloat16


def test_a_model_of_doubles_computes_in_float32(model: nn.Module) -> None:
    expected = model(IMAGES)
    y = model.double()(IMAGES.double())
    assert y.dtype == torch.float64
    torch.testing.assert_close(y.float(), expected, rtol=1e-5, atol=1e-5)


def test_what_is_no_tensor_or_has_no_dimensions(model: nn.Module) -> None:
    assert isinstance(model.linear, (QuantLayer, IntegerLayer))
    assert said_of(model.linear, [1.0] * 36) == "input of layer 'linear' must be a tensor, not list"
    assert said_of(model.conv, 1.0) == "input of layer 'conv' must be a tensor, not float"
    with pytest.raises(ShapeError, match="input of layer 'linear' must have 36 channels, not 0"):
        model.linear(torch.tensor(1.0))
