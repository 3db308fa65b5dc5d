"""The eager backend: eqs. (1)-(6) in plain PyTorch, written as fast as eager operators allow.

Tensors are (groups, rows, length); vectors run along ``length``; gamma is shared by a group or by a row. Elements pass
through the cache in blocks, because a chain of eager operators over a large tensor is bound by memory traffic and by
page faults of its temporaries; what there is one of per vector is 1/V of the data and is kept whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vsquant.kernels.float_formats import float_values
from vsquant.kernels.numerics import BLOCK_ELEMENTS, largest, pad_tail, require_finite, to_fp16
from vsquant.kernels.vector_errors import best_of_three
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat


class QuantizedTensor(NamedTuple):
    """Codes (groups, rows, vectors, V); sigma or s (groups, rows, vectors) or None; gamma (groups, 1 or rows)."""

    codes: Tensor
    vector_scale: Tensor | None
    coarse_scale: Tensor | None


class _Scales(NamedTuple):
    """Float scales that broadcast to (groups, rows, vectors): x is divided by ``divisor`` and the codes are multiplied
    by ``multiplier``; the two differ in scale mode ``paper`` and where a scale of zero must not divide.
    """

    divisor: Tensor
    multiplier: Tensor
    vector_scale: Tensor | None
    coarse_scale: Tensor | None


def fake_quantize(x: Tensor, coarse_range: Tensor | None, fmt: TensorFormat, share: str, scale_mode: str) -> Tensor:
    """Dequantized values x^ of eq. (6), shape and dtype of ``x``; computed in float32 whatever the dtype."""
    x32 = x.detach().to(torch.float32).contiguous()
    if isinstance(fmt, FloatFormat):
        return float_values(x32, fmt, share).to(x.dtype).contiguous()
    padded = pad_tail(x32, fmt.vector_size)
    vectors = _vectors(padded, fmt)
    scales = _scales(vectors, coarse_range, fmt, share, scale_mode)
    out = torch.empty_like(vectors)
    for source, target, divisor, multiplier in _blocks(vectors, out, scales):
        _codes(source, divisor, fmt, out=target).mul_(multiplier)
    return out.view(padded.shape)[..., : x.shape[-1]].to(x.dtype).contiguous()


def quantize(
    x: Tensor, coarse_range: Tensor | None, fmt: IntegerFormat, share: str, scale_mode: str
) -> QuantizedTensor:
    """Codes and scales of eqs. (1)-(5); codes are int8 (uint8 for 8-bit unsigned), integer vector scales int16."""
    vectors = _vectors(pad_tail(x.detach().to(torch.float32).contiguous(), fmt.vector_size), fmt)
    scales = _scales(vectors, coarse_range, fmt, share, scale_mode)
    codes = torch.empty_like(vectors, dtype=code_dtype(fmt))
    for source, target, divisor, _ in _blocks(vectors, codes, scales):
        target.copy_(_codes(source, divisor, fmt))
    coarse = scales.coarse_scale
    return QuantizedTensor(codes, scales.vector_scale, None if coarse is None else coarse.expand(len(codes), -1))


def code_dtype(fmt: IntegerFormat) -> torch.dtype:
    """What holds the codes of ``fmt``: uint8 for 8-bit unsigned ones, otherwise int8."""
    return torch.int8 if fmt.qmax < 128 else torch.uint8


def dequantize(quantized: QuantizedTensor, length: int) -> Tensor:
    """Eq. (6): float32 (groups, rows, length) from codes and scales."""
    codes, vector_scale, coarse_scale = quantized
    scale = torch.ones((), device=codes.device) if coarse_scale is None else coarse_scale.unsqueeze(-1)
    if vector_scale is not None:
        scale = vector_scale.to(torch.float32) * scale
    values = codes.to(torch.float32) * scale.unsqueeze(-1)
    return values.flatten(2)[..., :length]


def _vectors(padded: Tensor, fmt: IntegerFormat) -> Tensor:
    groups, rows, length = padded.shape
    size = fmt.vector_size or length
    return padded.view(groups, rows, length // size if size else 0, size)


def _scales(vectors: Tensor, coarse_range: Tensor | None, fmt: IntegerFormat, share: str, scale_mode: str) -> _Scales:
    if fmt.scale is None:
        return _conventional_scales(vectors, coarse_range, fmt, share)
    occupied, step = _vector_steps(vectors, fmt)
    if fmt.scale in ("fp16", "fp32"):
        step = to_fp16(step, round_up=False) if fmt.scale == "fp16" else step
        return _Scales(_safe(step), step, step, None)
    qmax, top = step.new_tensor(fmt.qmax), step.new_tensor(fmt.scale_top)
    step_max = _shared_max(step, share) if coarse_range is None else coarse_range.view(-1, 1, 1) / qmax
    gamma = step_max / top
    gamma = to_fp16(gamma, round_up=True) if fmt.coarse_fp16 else gamma
    sigma = step.div(_safe(gamma)).round_().clamp_(fmt.scale_min, fmt.scale_top)
    if scale_mode != "paper":
        sigma = torch.where(occupied & (gamma > 0), sigma.clamp(min=1), sigma)
    if scale_mode == "best-of-three":
        sigma = best_of_three(vectors, sigma, gamma, fmt)
    multiplier = sigma * gamma
    divisor = multiplier if scale_mode != "paper" else torch.where(gamma > 0, step, 0.0)
    return _Scales(_safe(divisor), multiplier, sigma.to(torch.int16), gamma.squeeze(-1))


def _conventional_scales(vectors: Tensor, coarse_range: Tensor | None, fmt: IntegerFormat, share: str) -> _Scales:
    """One scale per coarse group: s = fl(A / qmax), or eq. (2) on values clamped to A under ``-full``."""
    if coarse_range is None:
        step = _shared_max(_vector_steps(vectors, fmt)[1], share)
    elif fmt.full_range:
        limit = coarse_range.view(-1, 1, 1, 1)
        step = _shared_max(_vector_steps(torch.clamp(vectors, -limit, limit), fmt)[1], share)
    else:
        require_finite(vectors)
        step = coarse_range.view(-1, 1, 1) / coarse_range.new_tensor(fmt.qmax)
    step = to_fp16(step, round_up=True) if fmt.coarse_fp16 else step
    return _Scales(_safe(step), step, None, step.squeeze(-1))


def _vector_steps(vectors: Tensor, fmt: IntegerFormat) -> tuple[Tensor, Tensor]:
    """Eqs. (1)-(2): where alpha_j > 0, and the float steps s_j."""
    qmax = vectors.new_tensor(fmt.qmax)
    if not fmt.full_range:
        alpha = largest(vectors, absolute=fmt.signed)
        require_finite(alpha if fmt.signed else vectors)
        return alpha > 0, alpha / qmax
    up, down = largest(vectors, absolute=False), largest(vectors.neg(), absolute=False)
    require_finite(torch.maximum(up, down))
    return (up > 0) | (down > 0), torch.maximum(up / qmax, down / vectors.new_tensor(-fmt.qmin))


def _shared_max(step: Tensor, share: str) -> Tensor:
    """Largest step of those that share gamma: (groups, 1, 1) or (groups, rows, 1)."""
    dims = (1, 2) if share == "group" else (2,)
    if step.numel() == 0:
        return step.new_zeros([1 if d in dims else n for d, n in enumerate(step.shape)])
    return step.amax(dim=dims, keepdim=True)


def _safe(scale: Tensor) -> Tensor:
    """A divisor that makes the quotient zero where the scale is zero."""
    return torch.where(scale > 0, scale, torch.inf)


def _codes(vectors: Tensor, divisor: Tensor, fmt: IntegerFormat, out: Tensor | None = None) -> Tensor:
    """Eq. (3) as float32; a code of zero has no sign, as the integer it stands for has none."""
    return torch.div(vectors, divisor, out=out).round_().clamp_(fmt.qmin, fmt.qmax).add_(0.0)


def _blocks(vectors: Tensor, out: Tensor, scales: _Scales) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Cache-sized blocks of the elements, of the output, and of both scales."""
    if vectors.numel() == 0:
        return
    shape = vectors.shape[:-1]
    source, target = vectors.view(-1, vectors.shape[-1]), out.view(-1, vectors.shape[-1])
    divisor, multiplier = (s.expand(shape).reshape(-1, 1) for s in (scales.divisor, scales.multiplier))
    rows = max(1, BLOCK_ELEMENTS // source.shape[1])
    for start in range(0, source.shape[0], rows):
        block = slice(start, start + rows)
        yield source[block], target[block], divisor[block], multiplier[block]
