"""A static activation range that learns: quantization with a straight-through gradient for the range A of eq. (4).

As LSQ (Esser et al. 2020, arXiv 1902.08153) does for one step size. With x^ = q*S and S the float scale of an element,

    (1) dx^/dS = q - x/S within the codes' range, q where x is clipped
    (2) dS/dA  = 1/qmax without vectors;  (sigma - s/gamma) / (qmax*top) under vector scales, and top instead of the
        difference where sigma is saturated: only there does the range clip

and x itself passes its gradient on unchanged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.kernels.numerics import largest, pad_tail
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import ScaleMode


def quantize_with_range(
    x: Tensor, coarse_range: Tensor, fmt: IntegerFormat, *, scale_mode: ScaleMode = "requantize"
) -> Tensor:
    """`vsquant.kernels.fake_quantize` under a static range (1,), differentiable in ``x`` and in the range.

    ``x`` is (groups, rows, length), float32.
    """
    result: Tensor = _QuantizeWithRange.apply(x, coarse_range, fmt, scale_mode)  # type: ignore[no-untyped-call]
    return result


class _QuantizeWithRange(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, coarse_range: Tensor, fmt: IntegerFormat, scale_mode: ScaleMode) -> Tensor:
        ctx.save_for_backward(x, coarse_range)
        ctx.fmt, ctx.scale_mode = fmt, scale_mode
        return kernels.fake_quantize(x, fmt, coarse_range=coarse_range, scale_mode=scale_mode)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        (gradient,) = gradients
        x, coarse_range = ctx.saved_tensors
        by_range = None
        if ctx.needs_input_grad[1]:
            slope = _slope(x, coarse_range, ctx.fmt, ctx.scale_mode)
            by_range = (gradient * slope).sum().reshape(coarse_range.shape)
        return gradient, by_range, None, None


def _slope(x: Tensor, coarse_range: Tensor, fmt: IntegerFormat, scale_mode: ScaleMode) -> Tensor:
    """dx^/dA of every element, eqs. (1) and (2)."""
    codes, sigma, gamma = kernels.quantize(x, fmt, coarse_range=coarse_range, scale_mode=scale_mode)
    assert gamma is not None
    vectors = pad_tail(x, fmt.vector_size).contiguous().view(codes.shape)
    gamma = gamma.unsqueeze(-1)
    if sigma is None:
        scale, scale_slope = gamma.expand(codes.shape[:-1]), torch.full_like(gamma, 1 / fmt.qmax)
    else:
        scale = sigma * gamma
        step = largest(vectors, absolute=fmt.signed) / fmt.qmax
        ratio = step / gamma
        inside = (ratio >= 1) & (ratio <= fmt.scale_top)
        scale_slope = torch.where(inside, sigma - ratio, sigma.to(ratio.dtype)) / (fmt.qmax * fmt.scale_top)
    ratios = torch.where(scale > 0, 1 / torch.where(scale > 0, scale, 1.0), 0.0).unsqueeze(-1) * vectors
    kept = (ratios >= fmt.qmin) & (ratios <= fmt.qmax)
    slope = torch.where(kept, codes - ratios, codes.to(ratios.dtype)) * scale_slope.unsqueeze(-1)
    return slope.flatten(2)[..., : x.shape[-1]]
