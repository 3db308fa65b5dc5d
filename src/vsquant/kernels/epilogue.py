"""What follows the sums of a layer: eq. (7)'s scales, bias, residual, function, and the next layer's codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant.kernels import eager
from vsquant.kernels.products import Formats
from vsquant.reference.functions import ERF_BOUND, ERF_DENOMINATOR, ERF_NUMERATOR, SQRT_HALF
from vsquant.spec.formats import IntegerFormat

Function: TypeAlias = Literal["none", "relu", "relu6", "gelu"]
"""What is applied to outputs after bias and residual; ``gelu`` is eq. (11)."""

FUNCTIONS: Final[tuple[Function, ...]] = ("none", "relu", "relu6", "gelu")


class Epilogue(NamedTuple):
    """y = f( fl(fl(gamma_a*gamma_w) * fl(S)) * 2^d + bias + residual ), left to right, every operation rounded."""

    bias: Tensor | None = None
    residual: Tensor | None = None
    function: Function = "none"

    def scaled(self, sums: Tensor, activation: Tensor, weight: Tensor, formats: Formats) -> Tensor:
        """Outputs from fl(S) (..., K); gamma_a broadcasts to (..., 1), gamma_w is (K,); formats say which there are."""
        pairs = ((activation, formats.activation), (weight, formats.weight))
        scales = [scale for scale, fmt in pairs if fmt.has_coarse_scale]
        if scales:
            sums = (scales[0] if len(scales) == 1 else scales[0] * scales[1]) * sums
        return self.applied(sums * 2.0**formats.shift if formats.shift else sums)

    def applied(self, y: Tensor) -> Tensor:
        """Bias, residual, function."""
        y = y if self.bias is None else y + self.bias
        y = y if self.residual is None else y + self.residual.to(torch.float32)
        return apply_function(y, self.function)


class Requantized(NamedTuple):
    """What a layer gives to the next: codes, vector scales, coarse scales, and the float outputs or nothing."""

    codes: Tensor
    vector_scale: Tensor
    coarse_scale: Tensor
    y: Tensor


def apply_function(y: Tensor, function: str) -> Tensor:
    """The function of an epilogue by name."""
    if function == "relu":
        return F.relu(y)
    if function == "relu6":
        return F.relu6(y)
    return gelu(y) if function == "gelu" else y


def gelu(y: Tensor) -> Tensor:
    """Eq. (11) on float32 ``y``, operation by operation: PyTorch's own differs in the last places."""
    bounded = (y * SQRT_HALF).clamp_(-ERF_BOUND, ERF_BOUND)
    square = bounded * bounded
    numerator, denominator = _polynomial(square, ERF_NUMERATOR), _polynomial(square, ERF_DENOMINATOR)
    erf = bounded.mul_(numerator).div_(denominator)
    return (y * 0.5).mul_(erf.add_(1.0))


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """By Horner's rule, from the highest power, with no fused multiply-add."""
    total = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total.mul_(x).add_(coefficient)
    return total


def requantize(y: Tensor, range_: Tensor, fmt: IntegerFormat, scale_mode: str, keep_float: bool) -> Requantized:
    """Codes of outputs ``y`` (samples, ..., K), float32, with a static gamma: (samples, ..., vectors, V)."""
    rows = y.flatten(1, -2) if y.dim() > 3 else y
    quantized = eager.quantize(rows, range_, fmt, "group", scale_mode)
    codes, scale, coarse = plain_tensors(quantized)
    lead = y.shape[:-1]
    return Requantized(
        codes=codes.view(*lead, *codes.shape[2:]),
        vector_scale=scale.view(*lead, scale.shape[2]) if scale.numel() else scale,
        coarse_scale=coarse,
        y=y if keep_float else y.new_empty(0),
    )


def plain_tensors(quantized: eager.QuantizedTensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes and scales as operators pass them: empty tensors for None."""
    codes, scale, coarse = quantized
    return (
        codes,
        codes.new_empty(0, dtype=torch.int16) if scale is None else scale,
        codes.new_empty(0, dtype=torch.float32) if coarse is None else coarse.contiguous(),
    )
