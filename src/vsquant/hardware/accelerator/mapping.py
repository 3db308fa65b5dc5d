"""Where the work of a layer goes: tiles of output channels and positions, dealt to processing elements in rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vsquant.hardware.accelerator.configuration import Accelerator
from vsquant.hardware.accelerator.fit import Fit
from vsquant.spec.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerMapping:
    """The tiles of a layer and how processing elements share them.

    A channel tile is up to ``lanes`` output channels of one group, a position tile up to ``depth`` output positions.
    ``rows`` channel tiles by ``columns`` position tiles run at once, one pair in each element: a row's elements hold
    the same weights, a column's are fed the same activations. ``words`` of the reduction are read in turn; positions
    are innermost, then words, then rounds of position tiles, then rounds of channel tiles.
    """

    outputs_per_group: int
    groups: int
    lanes: int
    positions: int
    depth: int
    words: int
    rows: int
    columns: int

    @property
    def tiles_per_group(self) -> int:
        """Channel tiles of one group."""
        return math.ceil(self.outputs_per_group / self.lanes)

    @property
    def channel_tiles(self) -> int:
        """Channel tiles of all groups."""
        return self.groups * self.tiles_per_group

    @property
    def position_tiles(self) -> int:
        """Position tiles; the last may be smaller."""
        return math.ceil(self.positions / self.depth)

    @property
    def channel_rounds(self) -> int:
        """Rounds over channel tiles."""
        return math.ceil(self.channel_tiles / self.rows)

    @property
    def position_rounds(self) -> int:
        """Rounds over position tiles, in each round over channel tiles."""
        return math.ceil(self.position_tiles / self.columns)

    @property
    def elements_used(self) -> int:
        """Processing elements that ever work."""
        return min(self.rows, self.channel_tiles) * min(self.columns, self.position_tiles)

    @property
    def positions_in_turn(self) -> int:
        """Positions that pass one after another in a round over channel tiles, n of eq. (A3): the largest tiles."""
        last = self.position_tiles - (self.position_rounds - 1) * self.columns
        remainder = self.positions - (self.position_tiles - 1) * self.depth
        return (self.position_rounds - 1) * self.depth + (remainder if last == 1 else min(self.depth, self.positions))

    @property
    def group_rounds(self) -> int:
        """Pairs of a round over channel tiles and a group that has a tile in it: activations are fed once for each."""
        tiles = self.tiles_per_group
        return sum(((g + 1) * tiles - 1) // self.rows - g * tiles // self.rows + 1 for g in range(self.groups))


def mappings(accelerator: Accelerator, fit: Fit, workload: Workload, *, batch: int) -> list[LayerMapping]:
    """Every way to arrange the processing elements in rows and columns, most rows first.

    Samples add positions, except to a product of activations, where each brings groups (heads) of its own.
    """
    own_operands = workload.kind == "matmul"
    elements = accelerator.processing_elements
    return [
        LayerMapping(
            outputs_per_group=workload.outputs // workload.groups,
            groups=workload.groups * (batch if own_operands else 1),
            lanes=fit.lanes,
            positions=workload.positions * (1 if own_operands else batch),
            depth=accelerator.positions,
            words=workload.vectors(fit.vector_size) * fit.words_per_vector,
            rows=rows,
            columns=elements // rows,
        )
        for rows in range(elements, 0, -1)
        if elements % rows == 0
    ]
