"""Swaps of two channels between two vectors, for as long as one lowers eq. (1) of `vsquant.optimize.permutation`.

With t_r the largest square of a vector in row r and t'_r its second largest, the sum of the largest squares when
channel b takes position a is

    (2) Σ_r max(t_r, s_rb)  +  Σ_{r: t_r is at a} (max(t'_r, s_rb) - max(t_r, s_rb))

so that all positions of a vector and all channels together are two maxima over (R, C) and a product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

SWEEPS: Final = 6
LEAST_GAIN: Final = 1e-5
"""Part of two vectors' cost that a swap must save: more than sums in float32 err."""


class Arrangement:
    """One profile in the order as it stands: squares (R, n·V), importance (n·V,); positions beyond C hold zeros."""

    def __init__(self, magnitudes: Tensor, importance: Tensor, order: Tensor, vector_size: int) -> None:
        rows, channels = magnitudes.shape
        self._vectors, self._size = -(-channels // vector_size), vector_size
        self._squares = torch.zeros(rows, self._vectors * vector_size)
        self._squares[:, :channels] = magnitudes[:, order].float().square()
        self._importance = torch.zeros(self._vectors * vector_size)
        self._importance[:channels] = importance[order].float()
        self._largest = torch.zeros(self._vectors, rows)
        self._second = torch.zeros(self._vectors, rows)
        self._at = torch.zeros(self._vectors, vector_size, rows)
        for vector in range(self._vectors):
            self._see(vector)
        self.watch(0)

    def costs(self) -> Tensor:
        """(n,): eq. (1), vector by vector."""
        return self._sums() * self._largest.sum(1)

    def watch(self, vector: int) -> None:
        """Take a vector whose swaps with all others are asked for next."""
        self._watched = self._slice(vector)
        self._own = self._receiving(vector)
        self._others = self._received(self._squares[:, self._watched], slice(None))

    def after(self) -> Tensor:
        """(V, n·V): the two vectors' cost after each swap of a position of the watched vector with any position."""
        watched, sums = self._watched, self._sums()
        change = self._importance[None, :] - self._importance[watched, None]
        own = sums[watched.start // self._size] + change
        return own * self._own + (sums.repeat_interleave(self._size) - change) * self._others

    def swap(self, position: int, other: int) -> None:
        """Swap a position of the watched vector with one of another vector."""
        for tensor in (self._squares, self._importance):
            tensor[..., [position, other]] = tensor[..., [other, position]]
        vector, changed = position // self._size, other // self._size
        self._see(vector)
        self._see(changed)
        self._own = self._receiving(vector)
        row = position - self._watched.start
        self._others[row] = self._received(self._squares[:, position : position + 1], slice(None))[0]
        self._others[:, self._slice(changed)] = self._received(
            self._squares[:, self._watched], slice(changed, changed + 1)
        )

    def _slice(self, vector: int) -> slice:
        return slice(vector * self._size, (vector + 1) * self._size)

    def _sums(self) -> Tensor:
        return self._importance.reshape(self._vectors, self._size).sum(1)

    def _see(self, vector: int) -> None:
        """Each row's largest and second largest of a vector, and where the largest is."""
        squares = self._squares[:, self._slice(vector)]
        largest, places = squares.topk(min(2, self._size), dim=1)
        self._largest[vector] = largest[:, 0]
        if self._size > 1:
            self._second[vector] = largest[:, 1]
        self._at[vector].zero_().scatter_(0, places[:, :1].T, 1.0)

    def _receiving(self, vector: int) -> Tensor:
        """(V, n·V): eq. (2) of one vector, for each of its positions and every channel put there."""
        within = torch.maximum(self._largest[vector, :, None], self._squares)
        without = torch.maximum(self._second[vector, :, None], self._squares)
        return (self._at[vector] @ without.sub_(within)).add_(within.sum(0))

    def _received(self, channels: Tensor, vectors: slice) -> Tensor:
        """(A, m·V): eq. (2) of m vectors, for each of their positions and each of the channels (R, A) put there."""
        within = torch.maximum(self._largest[vectors, :, None], channels)
        without = torch.maximum(self._second[vectors, :, None], channels)
        sums = torch.bmm(self._at[vectors], without.sub_(within)).add_(within.sum(1)[:, None])
        return sums.reshape(-1, channels.shape[1]).T


def refined(arrangements: Sequence[Arrangement], order: Tensor, vector_size: int, block_of: Tensor) -> Tensor:
    """``order`` (C,) after swaps of channels that ``block_of`` (C,) gives one block; ``arrangements`` are in it."""
    channels = len(order)
    vectors = -(-channels // vector_size)
    order = order.clone()
    blocks = torch.full((vectors * vector_size,), -1)
    blocks[:channels] = block_of[order]
    for _ in range(SWEEPS):
        if not sum(_settle(arrangements, order, vector, vector_size, blocks) for vector in range(vectors)):
            break
    return order


def _settle(arrangements: Sequence[Arrangement], order: Tensor, vector: int, size: int, blocks: Tensor) -> int:
    """Make the best swap of one vector with any other until none lowers the cost; how many there were."""
    start = vector * size
    mine = blocks[start : start + size, None]
    refused = (mine != blocks[None, :]) | (mine < 0)
    refused[:, start : start + size] = True
    if bool(refused.all()):
        return 0
    for arrangement in arrangements:
        arrangement.watch(vector)
    for swaps in range(len(order)):
        costs = torch.stack([arrangement.costs() for arrangement in arrangements]).sum(0)
        before = (costs[vector] + costs).repeat_interleave(size)
        after = torch.stack([arrangement.after() for arrangement in arrangements]).sum(0)
        gains = (before - after).masked_fill_(refused, -torch.inf)
        row, other = divmod(int(gains.argmax()), len(blocks))
        if not float(gains[row, other]) > LEAST_GAIN * float(before[other]):
            return swaps
        position = start + row
        order[[position, other]] = order[[other, position]]
        for arrangement in arrangements:
            arrangement.swap(position, other)
    return len(order)
