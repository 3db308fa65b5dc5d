"""An order of input channels that makes vectors homogeneous: what a vector's largest element costs the others.

A vector's step is its largest magnitude over qmax, so with u_c what an error of channel c costs, an order's error is

    (1) Σ_j (Σ_{c in j} u_c) · Σ_r max_{c in j} |a_rc|²

over rows r of weights (u: the input's second moment) and of activations (u: the squared weights of the channel), up to
factors that no order changes. The order starts from sorted channels and is refined by swaps of two channels between
two vectors for as long as one lowers (1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from vsquant.errors import ShapeError

SWEEPS: Final = 3
_LEAST_GAIN: Final = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """Rows (R, C) of magnitudes with one column per channel, and what an error of each channel (C,) costs."""

    magnitudes: Tensor
    importance: Tensor

    def __post_init__(self) -> None:
        if self.magnitudes.dim() != 2 or self.importance.shape != self.magnitudes.shape[1:]:
            raise ShapeError(
                f"a profile must have magnitudes (R, C) and importance (C,), not {tuple(self.magnitudes.shape)} "
                f"and {tuple(self.importance.shape)}"
            )


def order_cost(profiles: Sequence[Profile], order: Tensor, vector_size: int) -> float:
    """Eq. (1) of channels in ``order`` (C,), vectors of ``vector_size``, the last one shorter if C is no multiple."""
    total = 0.0
    for vector in order.split(vector_size):
        for profile in profiles:
            peaks = profile.magnitudes[:, vector].amax(1).double().square().sum()
            total += float(profile.importance[vector].double().sum() * peaks)
    return total


def best_order(profiles: Sequence[Profile], vector_size: int, *, blocks: int = 1, sweeps: int = SWEEPS) -> Tensor:
    """An order (C,) of channels of low cost by eq. (1): position p holds channel ``order[p]``.

    Channels stay within their block, of which there are ``blocks`` of equal length (heads). Never worse than the order
    given, by eq. (1); the same at every call.
    """
    channels = profiles[0].importance.shape[0]
    given = torch.arange(channels)
    candidates = (given, _sorted(profiles, channels, blocks))
    order = min(candidates, key=lambda candidate: order_cost(profiles, candidate, vector_size)).clone()
    block_of = given // (channels // blocks)
    starts = range(0, channels, vector_size)
    for _ in range(sweeps):
        swaps = 0
        for first in starts:
            for second in range(first + vector_size, channels, vector_size):
                swaps += _swap(profiles, order, slice(first, first + vector_size),
                               slice(second, min(second + vector_size, channels)), block_of)  # fmt: skip
        if not swaps:
            break
    return order


def _sorted(profiles: Sequence[Profile], channels: int, blocks: int) -> Tensor:
    """Channels by the geometric mean of their root mean square over the profiles, block by block."""
    size = torch.zeros(channels, dtype=torch.float64)
    for profile in profiles:
        size += profile.magnitudes.double().square().mean(0).clamp_min(1e-30).log()
    by_block = size.reshape(blocks, -1).argsort(dim=1, descending=True, stable=True)
    return (by_block + torch.arange(blocks)[:, None] * (channels // blocks)).reshape(-1)


def _swap(profiles: Sequence[Profile], order: Tensor, first: slice, second: slice, block_of: Tensor) -> int:
    """Swap the two channels of two vectors that lower the cost most, in ``order`` itself; 1 if there were any."""
    left, right = order[first], order[second]
    allowed = block_of[left][:, None] == block_of[right][None, :]
    if not bool(allowed.any()):
        return 0
    before, after = 0.0, torch.zeros(len(left), len(right), dtype=torch.float64)
    for profile in profiles:
        a, b = profile.magnitudes[:, left], profile.magnitudes[:, right]
        u, v = profile.importance[left].double(), profile.importance[right].double()
        before += float(u.sum() * _energy(a.amax(1)) + v.sum() * _energy(b.amax(1)))
        exchanged = v[None, :] - u[:, None]
        after += (u.sum() + exchanged) * _energy(torch.maximum(_without(a)[:, :, None], b[:, None, :]))
        after += (v.sum() - exchanged) * _energy(torch.maximum(_without(b)[:, None, :], a[:, :, None]))
    after.masked_fill_(~allowed, torch.inf)
    best = int(after.argmin())
    if float(after.reshape(-1)[best]) >= before * (1 - _LEAST_GAIN):
        return 0
    row, column = divmod(best, len(right))
    order[first.start + row], order[second.start + column] = right[column].clone(), left[row].clone()
    return 1


def _without(magnitudes: Tensor) -> Tensor:
    """(R, V): the largest of each row with that element left out; 0 where it is the only one."""
    if magnitudes.shape[1] == 1:
        return torch.zeros_like(magnitudes)
    largest, places = magnitudes.topk(2, dim=1)
    others = largest[:, :1].expand_as(magnitudes).clone()
    return others.scatter_(1, places[:, :1], largest[:, 1:])


def _energy(peaks: Tensor) -> Tensor:
    """Σ over rows of squares."""
    return peaks.square().sum(0).double()
