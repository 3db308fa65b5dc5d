"""EfficientNet-Lite0 (Tan and Le 2019, arXiv 1905.11946; lite variant of the TensorFlow TPU models, 2020).

Written over plain convolutions: TensorFlow's "SAME" padding is a `ZeroPad2d` before every strided one. Module names are
those of the published weights, so their state loads as it is.
"""

from __future__ import annotations

import torch
from torch import nn

# repeats, kernel, stride of the first, expansion, input channels, output channels
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_EPSILON = 1e-3
_MOMENTUM = 0.01


def _same_padding(kernel: int, stride: int) -> nn.Module:
    """What "SAME" adds before a strided convolution of an even-sized image: the odd pixel goes right and below."""
    total = kernel - stride
    before = total // 2
    return nn.ZeroPad2d((before, total - before, before, total - before))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=_EPSILON, momentum=_MOMENTUM)


class MBConv(nn.Module):
    """Inverted residual: 1×1 expansion (if any), depthwise convolution, 1×1 projection."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        self.residual = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = _norm(hidden)
            self._relu0 = nn.ReLU6()
        self._pad = _same_padding(kernel, stride) if stride > 1 else nn.Identity()
        padding = 0 if stride > 1 else kernel // 2
        self._depthwise_conv = nn.Conv2d(
            hidden, hidden, kernel, stride=stride, padding=padding, groups=hidden, bias=False
        )
        self._bn1 = _norm(hidden)
        self._relu1 = nn.ReLU6()
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        hidden = self._relu0(self._bn0(self._expand_conv(x))) if self.expands else x
        hidden = self._relu1(self._bn1(self._depthwise_conv(self._pad(hidden))))
        out: torch.Tensor = self._bn2(self._project_conv(hidden))
        return out + x if self.residual else out


def _blocks() -> list[MBConv]:
    blocks = []
    for repeats, kernel, stride, expansion, inputs, outputs in _STAGES:
        blocks.append(MBConv(inputs, outputs, kernel=kernel, stride=stride, expansion=expansion))
        blocks += [MBConv(outputs, outputs, kernel=kernel, stride=1, expansion=expansion) for _ in range(repeats - 1)]
    return blocks


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 over (N, 3, 224, 224) images scaled to about -1 … 1; 1000 logits."""

    def __init__(self) -> None:
        super().__init__()
        self._pad = _same_padding(3, 2)
        self._conv_stem = nn.Conv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = _norm(32)
        self._relu0 = nn.ReLU6()
        self._blocks = nn.ModuleList(_blocks())
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._relu1 = nn.ReLU6()
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to logits (N, 1000); H and W multiples of 32."""
        out = self._relu0(self._bn0(self._conv_stem(self._pad(x))))
        for block in self._blocks:
            out = block(out)
        out = self._relu1(self._bn1(self._conv_head(out)))
        logits: torch.Tensor = self._fc(self._dropout(out.mean((2, 3))))
        return logits
