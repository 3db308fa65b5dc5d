"""The columns of a weight's rows: which belong to a vector, and in which order they are settled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_COLUMNS_WITHOUT_VECTORS = 16


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The layout of one output channel's weights: ``positions`` kernel positions of ``channels`` each.

    Column p * channels + c is channel c at position p. Vectors run along the channels of one position, so the last
    vector of a position may be short. ``vector_size`` None: one scale for all columns.
    """

    positions: int
    channels: int
    vector_size: int | None

    @property
    def length(self) -> int:
        """Columns in all; the padding of tails is none."""
        return self.positions * self.channels

    @property
    def vectors_per_position(self) -> int:
        """Vectors along the channels of one position; 1 where there are none."""
        return 1 if self.vector_size is None else -(-self.channels // self.vector_size)

    def units(self, priority: Tensor | None) -> list[Tensor]:
        """Column indices settled together, in the order of settling: vectors, or without vectors runs of columns.

        ``priority`` (length,) moves units of higher mean priority to the front, ties in the order of the layout. A
        vector is never torn apart; where there are none, columns move one by one.
        """
        every = torch.arange(self.length)
        if self.vector_size is None:
            order = every if priority is None else priority.sort(descending=True, stable=True).indices
            return list(torch.split(order, _COLUMNS_WITHOUT_VECTORS))
        rows = every.view(self.positions, -1)
        vectors = [vector for row in rows for vector in torch.split(row, self.vector_size)]
        if priority is None:
            return vectors
        means = torch.stack([priority[vector].mean() for vector in vectors])
        return [vectors[index] for index in means.sort(descending=True, stable=True).indices.tolist()]

    def vector_of(self, unit: Tensor) -> int:
        """The vector (counted along the row) of a unit of `units`."""
        position, channel = divmod(int(unit[0]), self.channels)
        return position * self.vectors_per_position + channel // (self.vector_size or self.channels)
