"""Comparison formats in plain PyTorch, equal to `vsquant.reference.float_formats` bit for bit."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from vsquant.kernels.numerics import BLOCK_ELEMENTS, largest, pad_tail, require_finite, to_fp16
from vsquant.spec.formats import FloatFormat

E2M1_MAX: Final = 6.0
E2M1_SECOND: Final = 4.0
E4M3_MAX: Final = 448.0
E4M3_REACH: Final = {False: E4M3_MAX, True: 256.0}
"""The block scale of a tensor's largest block, without and with best-of-two scaling."""
INT4_MAX: Final = 7.0
MXINT8_STEP: Final = 2.0**-6
E8M0_SMALLEST: Final = -127


def float_values(x: Tensor, fmt: FloatFormat, share: str) -> Tensor:
    """Dequantized values of float32 ``x`` (groups, rows, length); ``share`` says what one tensor scale spans."""
    padded = pad_tail(x, fmt.vector_size)
    blocks = padded.view(*padded.shape[:2], padded.shape[2] // fmt.vector_size, fmt.vector_size)
    alpha = largest(blocks, absolute=True).unsqueeze(-1)
    require_finite(alpha)
    if fmt.block_scale == "e8m0":
        scale = _shared_power(alpha, emax=2 if fmt.element == "e2m1" else 0)
    elif fmt.block_scale == "e4m3":
        scale = _scaled_e4m3(blocks, alpha, fmt, share)
    else:
        scale = to_fp16(alpha / x.new_tensor(INT4_MAX), round_up=False)
    values = torch.empty_like(blocks)
    source, target, flat_scale = blocks.flatten(0, 2), values.flatten(0, 2), scale.flatten(0, 2)
    for start in range(0, len(source), BLOCK_ELEMENTS // fmt.vector_size):
        block = slice(start, start + BLOCK_ELEMENTS // fmt.vector_size)
        torch.mul(_elements(source[block], flat_scale[block], fmt), flat_scale[block], out=target[block])
    return values.view(padded.shape)[..., : x.shape[-1]]


def _shared_power(alpha: Tensor, emax: int) -> Tensor:
    """OCP MX: 2^(floor(log2 alpha) - emax), the exponent kept in E8M0; zero for an all-zero block."""
    exponent = torch.frexp(alpha)[1] - 1 - emax
    power = torch.ldexp(torch.ones_like(alpha), exponent.clamp(min=E8M0_SMALLEST))
    return torch.where(alpha > 0, power, 0.0)


def _scaled_e4m3(blocks: Tensor, alpha: Tensor, fmt: FloatFormat, share: str) -> Tensor:
    """NVFP4: E4M3 block scales under g = alpha_tensor / (6 * 448), or 256 for 448; returns fl(s * g)."""
    tensor_max = alpha.amax(dim=(1, 2) if share == "group" else 2, keepdim=True) if alpha.numel() else alpha
    g = tensor_max / alpha.new_tensor(E2M1_MAX * E4M3_REACH[fmt.best_of_two])

    def scale(reach: float) -> Tensor:
        ratio = (alpha / alpha.new_tensor(reach)) / torch.where(g > 0, g, 1.0)
        return ratio.clamp_(max=E4M3_MAX).to(torch.float8_e4m3fn).to(torch.float32) * g

    if not fmt.best_of_two:
        return scale(E2M1_MAX)
    return _better_scale(blocks, scale(E2M1_MAX), scale(E2M1_SECOND), fmt)


def _better_scale(blocks: Tensor, first: Tensor, second: Tensor, fmt: FloatFormat) -> Tensor:
    """The scale of smaller squared error for each block; ``first`` where they are equal."""
    chosen = torch.empty_like(first)
    source, one, two, target = (each.flatten(0, 2) for each in (blocks, first, second, chosen))
    for start in range(0, len(source), BLOCK_ELEMENTS // fmt.vector_size):
        block = slice(start, start + BLOCK_ELEMENTS // fmt.vector_size)
        errors = [_squared_error(source[block], scale[block], fmt) for scale in (one, two)]
        torch.where(errors[1] < errors[0], two[block], one[block], out=target[block])
    return target.view(first.shape)


def _squared_error(blocks: Tensor, scale: Tensor, fmt: FloatFormat) -> Tensor:
    """Sum of (x - x^)^2 over each block, (blocks, 1) float64, in the order of its elements."""
    values = _elements(blocks, scale, fmt).mul_(scale)
    squares = (blocks.to(torch.float64) - values.to(torch.float64)).square_()
    total = torch.zeros_like(squares[:, :1])
    for element in range(squares.shape[1]):
        total += squares[:, element : element + 1]
    return total


def _elements(blocks: Tensor, scale: Tensor, fmt: FloatFormat) -> Tensor:
    """The elements of x / scale, before any scale; zeros where the scale is zero."""
    return _round_element(blocks / torch.where(scale > 0, scale, 1.0), fmt)


def _round_element(ratio: Tensor, fmt: FloatFormat) -> Tensor:
    """The nearest element, ties to even, saturating."""
    if fmt.element == "int8":
        step = ratio.new_tensor(MXINT8_STEP)
        return (ratio / step).round_().clamp_(-127, 127).mul_(step)
    if fmt.element == "int4":
        return ratio.round_().clamp_(-INT4_MAX, INT4_MAX)
    # Steps of 1/2 up to 2, of 1 up to 4, of 2 up to 6, each rounded on its own: passes that eager runs as vectors.
    size = ratio.abs()
    fine = size.clamp(max=2).mul_(2).round_().mul_(0.5)
    middle = size.clamp(2, 4).sub_(2).round_()
    coarse = size.clamp_(4, E2M1_MAX).sub_(4).mul_(0.5).round_().mul_(2)
    return fine.add_(middle).add_(coarse).copysign_(ratio)
