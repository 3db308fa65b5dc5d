"""E[x²] of every channel of an activation, gathered batch by batch."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from vsquant.errors import NonFiniteError, ShapeError

# Elements squared at a time: their float64 copy stays in cache.
_CHUNK_ELEMENTS: Final = 1 << 17


class SecondMoment:
    """Gathers the mean square of each channel over everything observed, in float64.

    Args:
        name: the layer observed, as errors shall name it.
        spatial: how many dimensions follow that of the channels: 0 for linear layers, 2 for two-dimensional
            convolutions.
    """

    def __init__(self, name: str, spatial: int = 0) -> None:
        self.name: Final = name
        self._spatial: Final = spatial
        self._total: Tensor | None = None
        self._count = 0

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Observes a batch (..., channels, *spatial).

        Raises:
            ShapeError: the batch has other channels than the ones before.
            NonFiniteError: the batch holds NaN or Inf.
        """
        rows = x.movedim(-1 - self._spatial, -1).flatten(0, -2) if x.dim() > 1 else x[None]
        total = torch.zeros(rows.shape[1], dtype=torch.float64)
        step = max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1]))
        for start in range(0, rows.shape[0], step):
            total += rows[start : start + step].to(torch.float64).square_().sum(dim=0).cpu()
        if not bool(torch.isfinite(total).all()):
            raise NonFiniteError(
                f"the input of {self.name!r} must be finite, not NaN or Inf; "
                "check the calibration data and the float model"
            )
        if self._total is not None and self._total.shape != total.shape:
            raise ShapeError(f"a batch for {self.name!r} must have {len(self._total)} channels, not {len(total)}")
        self._total = total if self._total is None else self._total + total
        self._count += rows.shape[0]

    def mean(self) -> Tensor | None:
        """(channels,) float64 means; None where nothing was observed."""
        return None if self._total is None or self._count == 0 else self._total / self._count
