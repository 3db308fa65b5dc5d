"""What one call of an integer layer would be in a float model: the same input, weight, residual and function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from vsquant import kernels
from vsquant.nn import IntegerActivation, IntegerConv2d, IntegerEmbedding, IntegerLayer, IntegerLinear, IntegerMatmul

FloatCall: TypeAlias = Callable[[], Tensor]


def float_call(layer: IntegerLayer | IntegerMatmul, arguments: Mapping[str, Any]) -> FloatCall:
    """The float layer in the place of ``layer``, on what that is called with (by the names of its forward).

    Its weight and, where the layer is given codes, its input are dequantized beforehand (eq. 6). It adds the residual
    and applies the function that the integer layer takes in.
    """
    if isinstance(layer, IntegerMatmul):
        return partial(_product, arguments["a"], arguments["b"])
    if isinstance(layer, IntegerEmbedding):
        return partial(F.embedding, arguments["x"], layer.weight.to(layer.output_dtype))
    assert isinstance(layer, (IntegerLinear, IntegerConv2d))
    plain = _linear(layer) if isinstance(layer, IntegerLinear) else _convolution(layer)
    x = float_input(layer, arguments["x"]).to(layer.output_dtype)
    residual, function = arguments.get("residual"), arguments.get("function", "none")
    return (
        partial(plain, x) if residual is None and function == "none" else partial(_fused, plain, x, residual, function)
    )


def float_input(layer: IntegerLinear | IntegerConv2d, x: Tensor | IntegerActivation) -> Tensor:
    """``x`` itself, or the values of its codes, laid out as the float layer before would have given them."""
    if isinstance(x, Tensor):
        return x
    channels = layer.in_features if isinstance(layer, IntegerLinear) else layer.in_channels
    values = _dequantized(x, channels)
    if isinstance(layer, IntegerLinear):
        return values
    maps = values if layer.spatial == 2 else values.squeeze(1)
    images = maps.movedim(-1, 1)
    return images.contiguous() if x.contiguous else images


def _dequantized(x: IntegerActivation, channels: int) -> Tensor:
    """(*lead, channels)"""
    *lead, vectors, size = x.codes.shape
    samples, rows = (lead[0], math.prod(lead[1:])) if lead else (1, 1)
    quantized = kernels.QuantizedTensor(
        codes=x.codes.reshape(samples, rows, vectors, size),
        vector_scale=None if x.vector_scale is None else x.vector_scale.reshape(samples, rows, vectors),
        coarse_scale=x.coarse_scale,
    )
    return kernels.dequantize(quantized, channels).view(*lead, channels)


def _linear(layer: IntegerLinear) -> Callable[[Tensor], Tensor]:
    weight, bias = _parameters(layer)
    return partial(F.linear, weight=weight, bias=bias)


def _convolution(layer: IntegerConv2d) -> Callable[[Tensor], Tensor]:
    geometry = layer.geometry
    weight, bias = _parameters(layer)
    even = geometry.even_zeros
    convolve = partial(
        F.conv2d if layer.spatial == 2 else F.conv1d,
        weight=weight,
        bias=bias,
        stride=geometry.stride,
        padding=even or (0,) * layer.spatial,
        dilation=geometry.dilation,
        groups=geometry.groups,
    )
    return convolve if even is not None else lambda x: convolve(geometry.pad(x))


def _parameters(layer: IntegerLayer) -> tuple[Tensor, Tensor | None]:
    dtype = layer.output_dtype
    return layer.weight.to(dtype), None if layer.bias is None else layer.bias.to(dtype)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return a @ b


def _fused(plain: Callable[[Tensor], Tensor], x: Tensor, residual: Tensor | None, function: kernels.Function) -> Tensor:
    y = plain(x)
    return kernels.apply_function(y if residual is None else y + residual, function)
