"""Chained integer layers: the same bits with no float between."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vsquant
from vsquant import Recipe
from vsquant.nn import IntegerActivation


class Block(nn.Module):
    """A residual block with a convolution on the shortcut where sizes change."""

    def __init__(self, channels: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, outputs, 3, stride, 1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.down = nn.Conv2d(channels, outputs, 1, stride) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.relu(self.conv1(x)))
        out += self.down(x)
        return self.relu(out)


class ResNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 20, 3, padding=1),
            nn.ReLU(),
            Block(20, 20),
            Block(20, 32, 2),
            nn.Dropout(),
            Block(32, 32),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class Inverted(nn.Module):
    """Expansion, depthwise, projection and a plain residual, as in EfficientNet-Lite."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(20, 40, 1)
        self.depthwise = nn.Conv2d(40, 40, 3, padding=1, groups=40)
        self.project = nn.Conv2d(40, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu6(self.depthwise(F.relu6(self.expand(x))))
        return x + F.dropout(self.project(out), training=self.training)


class FeedForward(nn.Module):
    """As in a transformer, with two layers that read the same activation."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.gate = nn.Linear(40, 72), nn.Linear(72, 40), nn.Linear(72, 40)
        self.norm = nn.LayerNorm(40)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.up(x))
        return self.norm((self.down(hidden) + x) * torch.sigmoid(self.gate(hidden)))


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def both(model: nn.Module, spec: str | Recipe, *batches: Tensor) -> tuple[nn.Module, nn.Module]:
    """The integer model as it is, and chained."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    simulated = vsquant.quantize(model.eval(), spec, calibration=batches)
    return vsquant.to_integer(simulated, chain=False), vsquant.to_integer(simulated)


def codes_seen(model: nn.Module, x: Tensor) -> dict[str, bool]:
    """For every integer layer whether its input came as codes."""
    seen: dict[str, bool] = {}
    for name, layer in vsquant.quantized_layers(model):
        layer.register_forward_pre_hook(
            lambda module, args, name=name: seen.update({name: isinstance(args[0], IntegerActivation)})
        )
    model(x)
    return seen


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w8a8u", "w4a8-s4/x", "w3a6-s3/8-v32", "w4a4-s4/6-p6", "w4a4-s4/4-v8"])
def test_a_residual_network_keeps_its_bits(spec: str) -> None:
    x = images(4, 3, 16, 16)
    plain, chained = both(ResNet(), spec, x)
    assert torch.equal(chained(x), plain(x))
    fresh = images(2, 3, 9, 11)
    assert torch.equal(chained(fresh), plain(fresh))


def test_what_a_residual_network_chains() -> None:
    x = images(4, 3, 16, 16)
    _, chained = both(ResNet(), "w4a4u-s4/6", x)
    assert str(vsquant.chain_report(chained)).splitlines() == [
        "6 of 9 traced layers give codes to the next, 7 take in what follows them",
        "0: relu fused; codes to 2.conv1, and floats",
        "2.conv1: relu fused; codes to 2.conv2",
        "2.conv2: residual and relu fused; codes to 3.conv1, 3.down",
        "3.conv1: relu fused; codes to 3.conv2",
        "3.conv2: residual and relu fused; codes to 5.conv1, and floats",
        "3.down: floats: nothing that follows takes codes: iadd()",
        "5.conv1: relu fused; codes to 5.conv2",
        "5.conv2: residual and relu fused; floats: nothing that follows takes codes: 6",
        "8: floats: nothing that follows takes codes: the output",
    ]
    assert codes_seen(chained, x) == {name: name not in ("0", "8") for name, _ in vsquant.quantized_layers(chained)}


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w8a8", "w8a8u-sx/8"])
def test_depthwise_layers_chain(spec: str) -> None:
    x = images(2, 20, 8, 8)
    plain, chained = both(nn.Sequential(Inverted(), Inverted()), spec, x)
    assert torch.equal(chained(x), plain(x))
    lines = str(vsquant.chain_report(chained)).splitlines()[1:]
    assert lines[0] == "0.expand: relu6 fused; codes to 0.depthwise"
    assert lines[1] == "0.depthwise: relu6 fused; codes to 0.project"
    assert lines[2] == "0.project: residual fused; codes to 1.expand, and floats"


@pytest.mark.parametrize("spec", ["w4a8-s4/8", "w4a8-s4/x", "w8a8", "w4a4-s4/4-v8"])
@pytest.mark.parametrize("shape", [(40,), (5, 40), (2, 5, 40), (2, 3, 5, 40)])
def test_a_feed_forward_layer_keeps_its_bits(spec: str, shape: tuple[int, ...]) -> None:
    x = images(*shape)
    plain, chained = both(FeedForward(), spec, x)
    assert torch.equal(chained(x), plain(x))
    assert str(vsquant.chain_report(chained)).splitlines() == [
        "1 of 3 traced layers give codes to the next, 2 take in what follows them",
        "up: gelu fused; codes to down, gate",
        "down: residual fused; floats: nothing that follows takes codes: mul()",
        "gate: floats: nothing that follows takes codes: sigmoid()",
    ]


def test_one_dimensional_convolutions_chain() -> None:
    x = images(2, 20, 30)
    model = nn.Sequential(nn.Conv1d(20, 24, 3, padding=1), nn.GELU(), nn.Conv1d(24, 16, 5, stride=2))
    plain, chained = both(model, "w4a8-s4/6", x)
    assert torch.equal(chained(x), plain(x))
    assert vsquant.chain_report(chained).chained[0].consumers == ("2",)
