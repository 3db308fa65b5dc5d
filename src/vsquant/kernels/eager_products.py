"""The eager backend of the operators in `vsquant.kernels.schemas`, argument by argument as there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch.nn.functional as F
from torch import Tensor

from vsquant.kernels import eager
from vsquant.kernels.convolutions import Walk, conv_sums
from vsquant.kernels.epilogue import Epilogue, Function, Requantized, plain_tensors, requantize
from vsquant.kernels.format_text import parse_format
from vsquant.kernels.numerics import split_dim
from vsquant.kernels.packed_weight import weight_rows
from vsquant.kernels.products import Formats, Operand, product_sums
from vsquant.spec.formats import IntegerFormat

FLOAT_ACTIVATIONS: Final = "16"
"""What stands for the format of activations that stay floating point."""


@dataclass(frozen=True, kw_only=True)
class _Weight:
    """An interleaved weight as operators are given it."""

    codes: Tensor
    scale: Tensor
    coarse: Tensor
    outputs: int
    format: IntegerFormat

    def operand(self, walk: Walk) -> Operand:
        """Codes (K, R*S, vectors, V), or (K, R*S, 1, padded C / groups), and vector scales (K, R*S, vectors)."""
        codes, scale = weight_rows(self.codes, self.scale, self.format, self.outputs, walk.groups, walk.positions)
        return Operand(split_dim(codes, 2, (-1, self.format.vector_size or codes.shape[2])), scale)

    def values(self, walk: Walk, channels: int) -> Tensor:
        """Float32 values (K, R*S, C / groups) by eq. (6)."""
        codes, scale = self.operand(walk)
        coarse = self.coarse.unsqueeze(1) if self.format.has_coarse_scale else None
        return eager.dequantize(eager.QuantizedTensor(codes, scale, coarse), channels)


def linear(
    x: Tensor,
    activation_range: Tensor | None,
    weight_codes: Tensor,
    weight_scale: Tensor,
    weight_sums: Tensor,
    weight_coarse: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    weight_format: str,
    activation_format: str,
    share: str,
    scale_mode: str,
    product_bits: int,
    function: Function,
) -> Tensor:
    """``x`` (samples, rows, C) to (samples, rows, K) in its dtype."""
    if activation_format == FLOAT_ACTIVATIONS:
        weight = _weight(weight_codes, weight_scale, weight_coarse, out_features, weight_format)
        values = weight.values(Walk(), x.shape[-1])[:, 0]
        epilogue = Epilogue(bias=bias, residual=residual, function=function)
        return epilogue.applied(F.linear(x.float(), values)).to(x.dtype)
    fmt = _integer_format(activation_format)
    quantized = plain_tensors(eager.quantize(x, activation_range, fmt, share, scale_mode))
    return linear_codes(
        *quantized,
        weight_codes,
        weight_scale,
        weight_sums,
        weight_coarse,
        bias,
        residual,
        out_features,
        weight_format,
        activation_format,
        product_bits,
        function,
    ).to(x.dtype)


def linear_codes(
    codes: Tensor,
    vector_scale: Tensor,
    coarse_scale: Tensor,
    weight_codes: Tensor,
    weight_scale: Tensor,
    weight_sums: Tensor,
    weight_coarse: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    weight_format: str,
    activation_format: str,
    product_bits: int,
    function: Function,
) -> Tensor:
    """Codes (samples, rows, vectors, V) to float32 (samples, rows, K)."""
    weight = _weight(weight_codes, weight_scale, weight_coarse, out_features, weight_format)
    formats = Formats(_integer_format(activation_format), weight.format, product_bits or None)
    operand = weight.operand(Walk())
    scale = vector_scale.flatten(0, 1) if formats.activation.has_vectors else None
    sums = product_sums(
        Operand(codes.flatten(0, 1), scale),
        Operand(operand.codes[:, 0], None if operand.scale is None else operand.scale[:, 0]),
        formats,
    )
    epilogue = Epilogue(bias=bias, residual=residual, function=function)
    return epilogue.scaled(
        sums.view(*codes.shape[:2], out_features), coarse_scale.unsqueeze(-1), weight_coarse, formats
    )


def conv2d(
    x: Tensor,
    activation_range: Tensor | None,
    weight_codes: Tensor,
    weight_scale: Tensor,
    weight_sums: Tensor,
    weight_coarse: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    weight_format: str,
    activation_format: str,
    share: str,
    scale_mode: str,
    product_bits: int,
    function: Function,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """``x`` (N, H, W, C) to (N, H', W', K) in its dtype."""
    if activation_format == FLOAT_ACTIVATIONS:
        walk = walk_of(kernel, stride, padding, dilation, groups)
        weight = _weight(weight_codes, weight_scale, weight_coarse, out_features, weight_format)
        values = weight.values(walk, x.shape[3] // groups)
        epilogue = Epilogue(bias=bias, residual=residual, function=function)
        return epilogue.applied(_float_conv(x.float(), values, walk)).to(x.dtype)
    fmt = _integer_format(activation_format)
    quantized = plain_tensors(quantize_map(x, activation_range, fmt, share, scale_mode, groups))
    return conv2d_codes(
        *quantized,
        weight_codes,
        weight_scale,
        weight_sums,
        weight_coarse,
        bias,
        residual,
        out_features,
        weight_format,
        activation_format,
        product_bits,
        function,
        kernel,
        stride,
        padding,
        dilation,
        groups,
    ).to(x.dtype)


def conv2d_codes(
    codes: Tensor,
    vector_scale: Tensor,
    coarse_scale: Tensor,
    weight_codes: Tensor,
    weight_scale: Tensor,
    weight_sums: Tensor,
    weight_coarse: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    weight_format: str,
    activation_format: str,
    product_bits: int,
    function: Function,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Codes (N, H, W, groups * vectors, V) to float32 (N, H', W', K)."""
    walk = walk_of(kernel, stride, padding, dilation, groups)
    weight = _weight(weight_codes, weight_scale, weight_coarse, out_features, weight_format)
    formats = Formats(_integer_format(activation_format), weight.format, product_bits or None)
    scale = vector_scale if formats.activation.has_vectors else None
    sums = conv_sums(Operand(codes, scale), weight.operand(walk), formats, walk)
    epilogue = Epilogue(bias=bias, residual=residual, function=function)
    return epilogue.scaled(sums, coarse_scale.view(-1, 1, 1, 1), weight_coarse, formats)


def requantizing(of_codes: Callable[..., Tensor]) -> Callable[..., Requantized]:
    """An operation on codes made one that gives the codes of the next layer: ``linear_requantize``,
    ``conv2d_requantize``. Its arguments are followed by the output's range, format, scale mode, and whether to keep y.
    """

    def run(*arguments: Any) -> Requantized:
        *layer, output_range, output_format, scale_mode, keep_float = arguments
        return requantize(of_codes(*layer), output_range, _integer_format(output_format), scale_mode, keep_float)

    return run


def matmul(
    left: Tensor,
    right: Tensor,
    left_range: Tensor | None,
    right_range: Tensor | None,
    left_format: str,
    right_format: str,
    share: str,
    scale_mode: str,
    product_bits: int,
) -> Tensor:
    """``left`` (groups, M, K) times ``right`` (groups, L, K) transposed, in the dtype of ``left``."""
    formats = Formats(_integer_format(left_format), _integer_format(right_format), product_bits or None)
    a = eager.quantize(left, left_range, formats.activation, share, scale_mode)
    w = eager.quantize(right, right_range, formats.weight, share, scale_mode)
    y = product_sums(Operand(a.codes, a.vector_scale), Operand(w.codes, w.vector_scale), formats)
    left_coarse = None if a.coarse_scale is None else a.coarse_scale.unsqueeze(2)
    right_coarse = None if w.coarse_scale is None else w.coarse_scale.unsqueeze(1)
    if left_coarse is not None and right_coarse is not None:
        y = (left_coarse * right_coarse) * y
    elif (coarse := right_coarse if left_coarse is None else left_coarse) is not None:
        y = coarse * y
    return (y * 2.0**formats.shift if formats.shift else y).to(left.dtype)


def quantize_map(
    x: Tensor, range_: Tensor | None, fmt: IntegerFormat, share: str, scale_mode: str, groups: int
) -> eager.QuantizedTensor:
    """Codes (N, H, W, groups * vectors, V) of a channels-last map; without vectors (N, H, W, 1, C)."""
    parts = groups if fmt.has_vectors else 1
    rows = x.reshape(x.shape[0], x.shape[1] * x.shape[2] * parts, x.shape[3] // parts)
    codes, scale, coarse = eager.quantize(rows, range_, fmt, share, scale_mode)
    lead = (*x.shape[:3], parts * codes.shape[2])
    return eager.QuantizedTensor(codes.view(*lead, codes.shape[3]), None if scale is None else scale.view(lead), coarse)


def walk_of(kernel: list[int], stride: list[int], padding: list[int], dilation: list[int], groups: int) -> Walk:
    """The geometry as operators are given it."""
    top, bottom, left, right = padding
    return Walk(
        kernel=(kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        padding=(top, bottom, left, right),
        dilation=(dilation[0], dilation[1]),
        groups=groups,
    )


def _float_conv(x: Tensor, values: Tensor, walk: Walk) -> Tensor:
    """A float convolution, channels last, by weights (K, R*S, C / groups)."""
    top, bottom, left, right = walk.padding
    weight = split_dim(values, 1, walk.kernel).permute(0, 3, 1, 2)
    padded = F.pad(x.permute(0, 3, 1, 2), [left, right, top, bottom])
    y = F.conv2d(padded, weight, None, walk.stride, 0, walk.dilation, walk.groups)
    return y.permute(0, 2, 3, 1).contiguous()


def _weight(codes: Tensor, scale: Tensor, coarse: Tensor, outputs: int, text: str) -> _Weight:
    return _Weight(codes=codes, scale=scale, coarse=coarse, outputs=outputs, format=_integer_format(text))


def _integer_format(text: str) -> IntegerFormat:
    fmt = parse_format(text)
    assert isinstance(fmt, IntegerFormat)
    return fmt
