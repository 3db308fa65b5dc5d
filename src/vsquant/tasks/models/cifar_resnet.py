"""ResNet-20/32/44/56 for CIFAR-10 (He et al. 2015, section 4.2), with option-A shortcuts: they have no parameters."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from vsquant.errors import DataError

WIDTHS = (16, 32, 64)


class ZeroPadShortcut(nn.Module):
    """Option A: every ``stride``-th pixel, and zeros for the channels that are new, half on either side."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.padding = new_channels // 2
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C + new_channels, H / stride, W / stride)."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity() if inputs == outputs else ZeroPadShortcut(outputs - inputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        result: torch.Tensor = self.relu2(out + self.shortcut(x))
        return result


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class CifarResNet(nn.Module):
    """A CIFAR ResNet of ``depth`` = 6n + 2 layers over (N, 3, 32, 32) normalised images; 10 logits."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise DataError(f"depth must be 6n + 2 (20, 32, 44, 56 …), not {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.relu = nn.ReLU()
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], blocks, 1)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], blocks, 2)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], blocks, 2)
        self.linear = nn.Linear(WIDTHS[2], 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, 32, 32) to logits (N, 10)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: torch.Tensor = self.linear(out.mean((2, 3)))
        return logits
