"""What tests of chained layers share: a residual network, its images, and the chained twin of a model."""

from __future__ import annotations

import torch
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
