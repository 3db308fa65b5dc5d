"""Comparison formats in plain PyTorch, equal to `vsquant.reference.float_formats` bit for bit."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from vsquant.kernels.numerics import pad_tail, require_finite, to_fp16
from vsquant.spec.formats import FloatFormat

E2M1_MAX: Final = 6.0
E4M3_MAX: Final = 448.0
INT4_MAX: Final = 7.0
MXINT8_STEP: Final = 2.0**-6
E8M0_SMALLEST: Final = -127


def float_values(x: Tensor, fmt: FloatFormat, share: str) -> Tensor:
    """Dequantized values of float32 ``x`` (groups, rows, length); ``share`` says what one tensor scale spans."""
    require_finite(x)
    padded = pad_tail(x, fmt.vector_size)
    blocks = padded.view(*padded.shape[:2], padded.shape[2] // fmt.vector_size, fmt.vector_size)
    largest = torch.linalg.vector_norm(blocks, float("inf"), dim=-1, keepdim=True)
    if fmt.block_scale == "e8m0":
        scale = _shared_power(largest, emax=2 if fmt.element == "e2m1" else 0)
    elif fmt.block_scale == "e4m3":
        scale = _scaled_e4m3(largest, share)
    else:
        scale = to_fp16(largest / x.new_tensor(INT4_MAX), round_up=False)
    ratio = blocks / torch.where(scale > 0, scale, 1.0)
    values = _round_element(ratio, fmt).mul_(scale)
    return values.view(padded.shape)[..., : x.shape[-1]]


def _shared_power(largest: Tensor, emax: int) -> Tensor:
    """OCP MX: 2^(floor(log2 alpha) - emax), the exponent kept in E8M0; zero for an all-zero block."""
    exponent = torch.frexp(largest)[1] - 1 - emax
    power = torch.ldexp(torch.ones_like(largest), exponent.clamp(min=E8M0_SMALLEST))
    return torch.where(largest > 0, power, 0.0)


def _scaled_e4m3(largest: Tensor, share: str) -> Tensor:
    """NVFP4: E4M3 block scales under g = alpha_tensor / (6 * 448); returns fl(s * g)."""
    tensor_max = largest.amax(dim=(1, 2) if share == "group" else 2, keepdim=True) if largest.numel() else largest
    g = tensor_max / largest.new_tensor(E2M1_MAX * E4M3_MAX)
    ratio = (largest / largest.new_tensor(E2M1_MAX)) / torch.where(g > 0, g, 1.0)
    return ratio.clamp_(max=E4M3_MAX).to(torch.float8_e4m3fn).to(torch.float32) * g


def _round_element(ratio: Tensor, fmt: FloatFormat) -> Tensor:
    """The nearest element, ties to even, saturating."""
    if fmt.element == "int8":
        step = ratio.new_tensor(MXINT8_STEP)
        return (ratio / step).round_().clamp_(-127, 127).mul_(step)
    if fmt.element == "int4":
        return ratio.round_().clamp_(-INT4_MAX, INT4_MAX)
    size = ratio.abs()
    spacing = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return (ratio / spacing).round_().mul_(spacing).clamp_(-E2M1_MAX, E2M1_MAX)
