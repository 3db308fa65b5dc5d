"""A chained model is a module like any other: layouts, copies, compilation, and its report."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.transform.chains import Block, ResNet, both, images
from torch import Tensor, nn

import vsquant
from vsquant.errors import VsquantError
from vsquant.nn import IntegerLayer
from vsquant.transform.chain_parts import ChainReport


def test_layouts_of_images_stay_what_they_were() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 20, 3), nn.ReLU())
            self.linear = nn.Linear(20 * 16, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.convs(x)
            return self.linear(y.view(len(y), -1))

    x = images(2, 3, 8, 8)
    plain, chained = both(Viewing(), "w4a8-s4/8", x)
    assert torch.equal(chained(x), plain(x))
    last = x.contiguous(memory_format=torch.channels_last)
    assert plain.convs(last).is_contiguous(memory_format=torch.channels_last)


def test_residuals_stay_channels_last() -> None:
    """Only what a float operation reads is copied to the layout of the input."""
    x = images(4, 3, 16, 16)
    _, chained = both(ResNet(), "w4a4u-s4/6", x)
    residuals = []
    for _, layer in vsquant.quantized_layers(chained):
        layer.register_forward_pre_hook(
            lambda module, args, kwargs: residuals.append(kwargs.get("residual")), with_kwargs=True
        )
    chained(x)
    seen = [residual for residual in residuals if residual is not None]
    assert len(seen) == 3
    assert all(residual.is_contiguous(memory_format=torch.channels_last) for residual in seen)


def test_a_chained_model_is_a_module_like_any_other() -> None:
    x = images(4, 3, 16, 16)
    model = ResNet()
    model.config = {"labels": 10}
    plain, chained = both(model, "w4a4u-s4/6", x)
    assert isinstance(chained, ResNet)
    assert isinstance(chained[2], Block)
    assert list(chained.state_dict()) == list(plain.state_dict())
    copied = copy.deepcopy(chained)
    assert torch.equal(copied(x), chained(x))
    for each in (chained, copied):
        assert each.config == {"labels": 10}
        assert vsquant.quantization_record(each) == vsquant.quantization_record(plain)
        assert len(vsquant.chain_report(each).chained) == 6
    names = [name for name, _ in vsquant.quantized_layers(plain)]
    assert [name for name, _ in vsquant.quantized_layers(chained)] == names
    assert all(isinstance(layer, IntegerLayer) for _, layer in vsquant.quantized_layers(chained))


def test_a_chained_model_compiles_and_exports() -> None:
    x = images(4, 3, 16, 16)
    _, chained = both(ResNet(), "w4a4u-s4/6", x)
    compiled = torch.compile(chained, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), chained(x))
    assert torch.equal(torch.export.export(chained, (x,)).module()(x), chained(x))


def test_layers_with_the_same_to_say_share_a_line() -> None:
    x = images(3, 32)
    _, chained = both(nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh()), "w4a8-s4/8-token", x)
    assert vsquant.chain_report(chained).layers[0].reason == "nothing that follows takes codes: 1"
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32))
    _, chained = both(Shared(model), "w4a8-s4/8", x)
    assert str(vsquant.chain_report(chained)).splitlines()[1:] == [
        "layers.0, layers.1, layers.2: floats: nothing that follows takes codes: tanh()"
    ]


class Shared(nn.Module):
    """Layers whose outputs go through a function that integer layers do not take in."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def test_a_model_that_was_not_chained_says_so() -> None:
    plain, _ = both(nn.Sequential(nn.Linear(16, 16)), "w4a8-s4/8", images(3, 16))
    assert vsquant.chain_report(plain) == ChainReport(requested=False)
    assert str(vsquant.chain_report(plain)) == "not chained (chain=False)"
    with pytest.raises(VsquantError) as error:
        vsquant.chain_report(nn.Linear(16, 16))
    assert str(error.value) == "the model must come from vsquant.to_integer, not be a Linear"
