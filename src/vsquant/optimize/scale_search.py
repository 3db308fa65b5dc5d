"""Scale search over a weight: the vector scales of least error under gamma of eq. (4), or under the best of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.kernels.numerics import FP16_SMALLEST_NORMAL, pad_tail, split_dim, to_fp16
from vsquant.spec.formats import IntegerFormat

GAMMA_RATIOS: Final = tuple(round(0.6 + 0.04 * step, 2) for step in range(16) if step != 10)
"""What gamma of eq. (4) is multiplied by where it is searched too, beside 1."""

FP16_LARGEST: Final = 65504.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchOptions:
    """How one weight is searched.

    ``importance`` is h, (1 or K, C) and finite, 1 where it is not given; a vector in which all of it is 0 is searched
    with h = 1, so that what calibration never reached keeps sensible weights. With ``gamma``, every gamma of eq. (4)
    times one of `GAMMA_RATIOS` is searched as well, and each output keeps the gamma of least error: that of eq. (4)
    where none is better, among equals the one tried first.
    """

    importance: Tensor | None = None
    gamma: bool = False


PLAIN_SEARCH: Final = SearchOptions()


@torch.no_grad()
def search_weight(rows: Tensor, fmt: IntegerFormat, options: SearchOptions = PLAIN_SEARCH) -> kernels.QuantizedTensor:
    """Codes and scales of scale mode ``search`` for ``rows`` (K, positions, C), gamma over the whole of an output K.

    Raises:
        SpecError: ``fmt`` has no integer vector scales.
        NonFiniteError: ``rows`` holds NaN or Inf.
        ScaleRangeError: gamma would be zero, subnormal or infinite in fp16 (``-g16``).
    """
    coarse = kernels.quantize(rows, fmt).coarse_scale
    assert coarse is not None
    first = coarse.reshape(-1)
    weights = None if options.importance is None else _weighing_all(options.importance, fmt)
    best, gamma = kernels.search_scales(rows, fmt, first, weights), first.clone()
    for ratio in GAMMA_RATIOS if options.gamma else ():
        candidate = _candidate(first, ratio, fmt)
        found = kernels.search_scales(rows, fmt, candidate, weights)
        better = (_total(found) < _total(best)).nonzero()[:, 0]
        gamma[better] = candidate[better]
        for kept, new in zip(best, found, strict=True):
            kept[better] = new[better]
    return kernels.QuantizedTensor(best.codes, best.vector_scale, gamma.view_as(coarse))


def _total(found: kernels.SearchedScales) -> Tensor:
    return found.error.flatten(1).sum(dim=1)


def _candidate(gamma: Tensor, ratio: float, fmt: IntegerFormat) -> Tensor:
    """Gamma times ``ratio``; itself where fp16 does not hold the product (``-g16``)."""
    candidate = gamma * ratio
    if not fmt.coarse_fp16:
        return candidate
    held = (candidate >= FP16_SMALLEST_NORMAL) & (candidate <= FP16_LARGEST)
    return to_fp16(torch.where(held, candidate, gamma), round_up=True)


def _weighing_all(importance: Tensor, fmt: IntegerFormat) -> Tensor:
    assert fmt.vector_size is not None
    vectors = split_dim(pad_tail(importance, fmt.vector_size), 1, (-1, fmt.vector_size))
    weighed = torch.where((vectors > 0).any(dim=2, keepdim=True), vectors, 1.0)
    return weighed.flatten(1)[:, : importance.shape[1]]
