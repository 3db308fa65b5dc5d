"""An order of input channels that makes vectors homogeneous: what a vector's largest element costs the others.

A vector's step is its largest magnitude over qmax, so with u_c what an error of channel c costs, an order's error is

    (1) Σ_j (Σ_{c in j} u_c) · Σ_r max_{c in j} |a_rc|²

over rows r of weights (u: the input's second moment) and of activations (u: the squared weights of the channel), up to
factors that no order changes. The order starts from channels sorted by their size or by how their profiles differ
most, whichever is better, and is refined by swaps of two channels between two vectors for as long as one lowers (1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from vsquant.errors import ShapeError
from vsquant.optimize.channel_swaps import Arrangement, refined

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


def best_order(profiles: Sequence[Profile], vector_size: int, *, blocks: int = 1) -> Tensor:
    """An order (C,) of channels of low cost by eq. (1): position p holds channel ``order[p]``.

    Channels stay within their block, of which there are ``blocks`` of equal length (heads). Never worse than the order
    given, by eq. (1); the same at every call. Takes about three times the memory of the profiles.
    """
    channels = profiles[0].importance.shape[0]
    given = torch.arange(channels)
    starts = (given, *(_sorted(key, blocks) for key in (_sizes(profiles), _directions(profiles))))
    start = min(starts, key=lambda order: order_cost(profiles, order, vector_size))
    arrangements = [Arrangement(p.magnitudes, p.importance, start, vector_size) for p in profiles]
    return refined(arrangements, start, vector_size, given // (channels // blocks))


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
