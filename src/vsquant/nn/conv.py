"""Quantized convolutions: vectors along the input channels at each kernel position."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant.errors import ShapeError, SpecError
from vsquant.nn.geometry import ConvGeometry
from vsquant.nn.layer import QuantLayer, check_input_type
from vsquant.nn.parts import LayerParts
from vsquant.nn.rounded_products import rounded_conv, straight_through
from vsquant.optimize.input_moments import conv_rows, samples_at_once


class _QuantConv(QuantLayer):
    """Convolutions of any number of spatial dimensions."""

    def __init__(self, parts: LayerParts, *, geometry: ConvGeometry) -> None:
        require_no_tokens(parts)
        super().__init__(parts)
        self.geometry = geometry
        self.out_channels, self.in_channels = parts.weight_shape[0], parts.weight_shape[1] * geometry.groups
        # What models ask of a convolution of theirs; some pad by it in their own forward.
        self.kernel_size, self.stride = geometry.kernel, geometry.stride
        self.dilation, self.groups, self.padding_mode = geometry.dilation, geometry.groups, geometry.padding_mode

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (N, C, *spatial) to (N, K, *spatial'); a missing sample dimension is allowed, as in PyTorch."""
        check_input_type(x, self.output_dtype, self.name)
        spatial = len(self.geometry.kernel)
        if x.dim() == spatial + 1:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        if x.dim() != spatial + 2:
            raise ShapeError(
                f"input of layer {self.name!r} must have {spatial + 2} dimensions (N, C, {spatial} spatial), "
                f"not {x.dim()}"
            )
        self._check_channels(x.shape[1], self.in_channels)
        rows, shape = self._rows(x)
        if self.spec.product_bits is None:
            y = self._simulate(rows, shape)
        else:
            y = rounded_conv(
                self._quantize_input(rows), shape, self.quantized_weight, self.bias, self.spec, self.geometry
            )
            y = straight_through(y, lambda: self._simulate(rows, shape), rows)
        return y.to(self.output_dtype)

    def input_rows(self, x: Tensor, *, quantized: bool) -> Iterator[Tensor]:
        """(groups, n, R*S*C/groups) of ``x`` (N, C, *spatial), padded as the layer pads, some samples at a time."""
        x = x.unsqueeze(0) if x.dim() == len(self.geometry.kernel) + 1 else x
        rows, shape = self._rows(x)
        padded = self.geometry.pad((self._fake_quantize_input(rows) if quantized else rows).view(shape).movedim(-1, 1))
        outputs = math.prod(self.geometry.output_size(x.shape[2:]))
        samples = samples_at_once(outputs, self.in_channels * math.prod(self.geometry.kernel))
        for part in torch.split(padded, samples):
            yield conv_rows(
                part,
                kernel=self.geometry.kernel,
                stride=self.geometry.stride,
                dilation=self.geometry.dilation,
                groups=self.geometry.groups,
            )

    def _rows(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        """``x`` (N, C, *spatial) as the rows to quantize, and its shape with the channels last."""
        last = x.movedim(1, -1).to(torch.float32)
        fmt = self.spec.activation
        # Only vectors must not cross groups; without them a row is all channels, which runs far faster for depthwise.
        parts = self.geometry.groups if fmt is not None and fmt.has_vectors else 1
        return last.reshape(x.shape[0], parts * math.prod(x.shape[2:]), self.in_channels // parts), last.shape

    def _simulate(self, rows: Tensor, shape: torch.Size) -> Tensor:
        geometry = self.geometry
        x = self._fake_quantize_input(rows).view(shape).movedim(-1, 1)
        padding = geometry.even_zeros
        if padding is None:
            x, padding = geometry.pad(x), (0,) * len(geometry.kernel)
        convolve = F.conv2d if len(geometry.kernel) == 2 else F.conv1d
        return convolve(x, self.weight, self.bias, geometry.stride, padding, geometry.dilation, geometry.groups)


class QuantConv1d(_QuantConv):
    """A convolution over (N, C, L)."""


class QuantConv2d(_QuantConv):
    """A convolution over (N, C, H, W)."""


def require_no_tokens(parts: LayerParts) -> None:
    """Refuse per-token scales for a convolution.

    Raises:
        SpecError: naming the layer.
    """
    if parts.spec.gamma == "token":
        raise SpecError(f"layer {parts.name!r}: a convolution has no tokens; use -tensor or -static, not {parts.spec}")
