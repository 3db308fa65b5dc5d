"""The streaming range observer: one pass over each batch, memory independent of how much is observed."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch
from torch import Tensor

from vsquant.calibrate.statistics import CountArray, RangeStatistics
from vsquant.errors import NonFiniteError, ShapeError

DEFAULT_BINS: Final = 8192

# Elements binned at a time: the scaled copy and its codes stay in a core's cache.
_CHUNK_ELEMENTS: Final = 1 << 17

# Below the smallest normal width the reciprocal of the width would overflow float32.
_SMALLEST_WIDTH_EXPONENT: Final = -126


class RangeObserver:
    """Gathers `RangeStatistics` of one activation, batch by batch.

    Bin widths are powers of two, so |x| / width is exact in float32 and a width that doubles merges bins exactly:
    the result is that of one histogram over everything observed, whatever the order and the batches.

    Args:
        name: the layer (and operand) observed, as errors shall name it.
        groups: how many coarse scales the activation has; with more than one, batches are (groups, n).
        bins: number of bins, an even number of at least 2.
    """

    def __init__(self, name: str, groups: int = 1, bins: int = DEFAULT_BINS) -> None:
        if groups < 1:
            raise ShapeError(f"groups of the observer of {name!r} must be at least 1, not {groups}")
        if bins < 2 or bins % 2:
            raise ShapeError(f"bins of the observer of {name!r} must be an even number of at least 2, not {bins}")
        self.name: Final = name
        self.groups: Final = groups
        self.bins: Final = bins
        self._minimum = np.full(groups, np.inf, dtype=np.float32)
        self._maximum = np.full(groups, -np.inf, dtype=np.float32)
        # Column bins + t counts the elements with trunc(x / width) == t; column 0 stays empty.
        self._signed_counts = np.zeros((groups, 2 * bins), dtype=np.int64)
        self._exponents: list[int | None] = [None] * groups

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Observes a batch: any shape for one group, (groups, n) for more. An empty batch changes nothing.

        Raises:
            ShapeError: the batch is not (groups, n).
            NonFiniteError: the batch holds NaN or Inf; the observer is then as it was before.
        """
        if self.groups > 1 and (x.dim() != 2 or x.shape[0] != self.groups):
            raise ShapeError(f"a batch for {self.name!r} must have shape ({self.groups}, n), not {tuple(x.shape)}")
        rows = x.reshape(self.groups, -1) if x.numel() else x.new_zeros((self.groups, 0))
        if rows.shape[1] == 0:
            return
        rows = rows.to(torch.float32)
        # Twenty times as fast row by row as with dim=1.
        extremes = [[extreme.item() for extreme in torch.aminmax(row)] for row in rows]
        low, high = np.array(extremes, dtype=np.float32).T
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise NonFiniteError(
                f"the input of {self.name!r} must be finite, not NaN or Inf; "
                "check the calibration data and the float model"
            )
        self._minimum = np.minimum(self._minimum, low)
        self._maximum = np.maximum(self._maximum, high)
        for group, magnitude in enumerate(np.maximum(high, -low)):
            self._widen(group, float(magnitude))
        self._count(rows)

    def statistics(self) -> RangeStatistics:
        """What was observed so far; later updates do not change the returned record."""
        counts = self._signed_counts[:, self.bins :].copy()
        negative = np.zeros_like(counts)
        negative[:, 1:] = self._signed_counts[:, self.bins - 1 : 0 : -1]
        widths = [0.0 if exponent is None else math.ldexp(1.0, exponent) for exponent in self._exponents]
        return RangeStatistics(
            name=self.name,
            # Adding zero makes -0.0 into 0.0: fingerprints see bits.
            minimum=self._minimum + np.float32(0),
            maximum=self._maximum + np.float32(0),
            counts=counts + negative,
            negative_counts=negative,
            bin_width=np.array(widths, dtype=np.float32),
        )

    def _widen(self, group: int, magnitude: float) -> None:
        """Doubles the group's bin width until ``magnitude`` has a bin."""
        if magnitude == 0.0:
            return
        needed = self._needed_exponent(magnitude)
        current = self._exponents[group]
        if current is None:
            self._exponents[group] = needed
        elif needed > current:
            self._signed_counts[group] = _merge(self._signed_counts[group], needed - current)
            self._exponents[group] = needed

    def _needed_exponent(self, magnitude: float) -> int:
        """The smallest e with ``magnitude < bins * 2**e``, not below that of the smallest normal width."""
        return max(math.frexp(magnitude / self.bins)[1], _SMALLEST_WIDTH_EXPONENT)

    def _count(self, rows: Tensor) -> None:
        """Adds the histogram of ``rows`` (groups, n), all of which have a bin."""
        exponents = [0 if exponent is None else exponent for exponent in self._exponents]
        inverse_widths = torch.tensor([math.ldexp(1.0, -e) for e in exponents], dtype=torch.float32, device=rows.device)
        for group, inverse in enumerate(inverse_widths):
            for start in range(0, rows.shape[1], _CHUNK_ELEMENTS):
                chunk = rows[group, start : start + _CHUNK_ELEMENTS]
                columns = (chunk * inverse).to(torch.int32).add_(self.bins)
                self._signed_counts[group] += torch.bincount(columns, minlength=2 * self.bins).cpu().numpy()


def _merge(counts: CountArray, doublings: int) -> CountArray:
    """Signed counts after the bin width has doubled ``doublings`` times: trunc(t / 2**doublings) for column t."""
    bins = len(counts) // 2
    offsets = np.arange(-bins, bins)
    shift = min(doublings, 62)
    targets = np.sign(offsets) * (np.abs(offsets) >> shift)
    merged = np.zeros_like(counts)
    np.add.at(merged, targets + bins, counts)
    return merged
