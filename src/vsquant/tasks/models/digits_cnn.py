"""The small residual network of the digits task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from vsquant.errors import DataError


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        result: torch.Tensor = self.relu2(out + self.shortcut(x))
        return result


class DigitsCnn(nn.Module):
    """Stem, ``blocks`` residual blocks at each of ``widths`` (halving the image between widths), mean, linear layer."""

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        if not widths or min(widths) < 1 or blocks < 1:
            raise DataError(f"widths and blocks of a digits network must be positive, not {list(widths)} and {blocks}")
        self.conv = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages = []
        inputs = widths[0]
        for number, width in enumerate(widths):
            stages.append(ResidualBlock(inputs, width, 1 if number == 0 else 2))
            stages += [ResidualBlock(width, width, 1) for _ in range(blocks - 1)]
            inputs = width
        self.blocks = nn.Sequential(*stages)
        self.linear = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 8, 8) grey levels in 0 … 1 to logits (N, 10)."""
        out = self.blocks(self.relu(self.bn(self.conv(x))))
        logits: torch.Tensor = self.linear(out.mean((2, 3)))
        return logits
