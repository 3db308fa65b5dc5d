"""Chained integer layers: the same bits with no float between."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.transform.chains import ResNet, both, codes_seen, images
from torch import Tensor, nn

import vsquant


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
