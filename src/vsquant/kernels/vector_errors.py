"""Squared errors of vectors under given steps, and the best of three neighbouring vector scales."""

from __future__ import annotations

import torch
from torch import Tensor

from vsquant.kernels.numerics import BLOCK_ELEMENTS
from vsquant.spec.formats import IntegerFormat


def squared_error(x: Tensor, step: Tensor, h: Tensor | None, fmt: IntegerFormat) -> Tensor:
    """Sum over i of h_i (x_i - x^_i)^2 of every column of ``x`` (V, vectors), codes by eq. (3): float64, index order.

    One element a row: sums over a vector are then sums of rows, in the definition's order.
    """
    terms = x.to(torch.float64).sub_(codes(x, step, fmt).mul_(step)).square_()
    terms = terms if h is None else terms.mul_(h)
    error = terms[0]
    for term in terms[1:]:
        error = error + term
    return error


def codes(x: Tensor, step: Tensor, fmt: IntegerFormat) -> Tensor:
    """Eq. (3) as float32; 0 where the step is 0."""
    return x.div(torch.where(step > 0, step, torch.inf)).round_().clamp_(fmt.qmin, fmt.qmax)


def best_of_three(vectors: Tensor, sigma: Tensor, gamma: Tensor, fmt: IntegerFormat) -> Tensor:
    """Of sigma-1, sigma and sigma+1 within 1..top the one of least squared error, the smaller of equals.

    Args:
        vectors: (..., V), float32.
        sigma: scales of eq. (5) after requantizing, (...), as float32; those of 0 stay.
        gamma: coarse scales that broadcast to ``sigma``.
        fmt: the format.
    """
    flat, first = vectors.reshape(-1, vectors.shape[-1]), sigma.reshape(-1)
    coarse = gamma.expand(sigma.shape).reshape(-1)
    chosen = torch.empty_like(first)
    step = max(1, BLOCK_ELEMENTS // max(1, vectors.shape[-1]) // 4)  # float64 and temporaries
    for start in range(0, len(first), step):
        block = slice(start, start + step)
        chosen[block] = _best(flat[block].t().contiguous(), first[block], coarse[block], fmt)
    return chosen.view(sigma.shape)


def _best(x: Tensor, sigma: Tensor, gamma: Tensor, fmt: IntegerFormat) -> Tensor:
    best = (sigma - 1).clamp(min=1)
    least = squared_error(x, best * gamma, None, fmt)
    for offset in (0, 1):
        candidate = (sigma + offset).clamp(min=1, max=fmt.scale_top)
        error = squared_error(x, candidate * gamma, None, fmt)
        better = error < least
        best, least = torch.where(better, candidate, best), torch.where(better, error, least)
    return torch.where((sigma > 0) & (gamma > 0), best, sigma)
