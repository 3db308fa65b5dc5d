"""An order of input channels that makes vectors homogeneous: what a vector's largest element costs the others.

A vector's step is its largest magnitude over qmax, so with u_c what an error of channel c costs, an order's error is

    (1) Σ_j (Σ_{c in j} u_c) · Σ_r max_{c in j} |a_rc|²

over rows r of weights (u: the input's second moment) and of activations (u: the squared weights of the channel), up to
factors that no order changes. The order starts from channels sorted by
their size or by how their profiles differ most, whichever is better, and is refined by swaps of two channels between
two vectors for as long as one lowers (1).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from vsquant.errors import ShapeError

SWEEPS: Final = 3
_LEAST_GAIN: Final = 1e-6
_TINY: Final = 1e-30


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
    for vector in torch.split(order, vector_size):
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
    starts = (given, *(_sorted(key, blocks) for key in (_sizes(profiles), _directions(profiles))))
    order = min(starts, key=lambda start: order_cost(profiles, start, vector_size)).clone()
    block_of = given // (channels // blocks)
    vectors = [slice(start, min(start + vector_size, channels)) for start in range(0, channels, vector_size)]
    for _ in range(sweeps):
        swaps = 0
        for first, second in itertools.combinations(vectors, 2):
            while swaps < channels * vector_size and _swap(profiles, order, first, second, block_of):
                swaps += 1
        if not swaps:
            break
    return order


def _sorted(key: Tensor, blocks: int) -> Tensor:
    """Channels by descending key (C,), block by block."""
    length = len(key) // blocks
    by_block = key.reshape(blocks, length).argsort(dim=1, descending=True, stable=True)
    return (by_block + torch.arange(blocks)[:, None] * length).reshape(-1)


def _sizes(profiles: Sequence[Profile]) -> Tensor:
    """(C,): the channels' root mean squares over the profiles, multiplied, in logarithms."""
    return torch.stack([p.magnitudes.double().square().mean(0).clamp_min(_TINY).log() for p in profiles]).sum(0)


def _directions(profiles: Sequence[Profile]) -> Tensor:
    """(C,): where channels stand along the direction in which their logarithmic profiles differ most."""
    rows = torch.cat([profile.magnitudes.double().clamp_min(_TINY).log() for profile in profiles])
    centred = rows - rows.mean(1, keepdim=True)
    direction: Tensor = torch.linalg.svd(centred, full_matrices=False).Vh[0]
    return direction


def _swap(profiles: Sequence[Profile], order: Tensor, first: slice, second: slice, block_of: Tensor) -> bool:
    """Swap the two channels of two vectors that lower the cost most, in ``order`` itself; whether there were any."""
    left, right = order[first], order[second]
    allowed = block_of[left][:, None] == block_of[right][None, :]
    if not bool(allowed.any()):
        return False
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
        return False
    row, column = divmod(best, len(right))
    order[first.start + row], order[second.start + column] = right[column].clone(), left[row].clone()
    return True


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
