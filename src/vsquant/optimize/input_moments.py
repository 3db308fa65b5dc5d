"""What error feedback must know of a layer's input: its second moments, which are the Hessian of the output error.

A layer meets rows x̂, its input as quantized behind quantized layers, where the float network has rows x. Moments of
both are sums over rows, so they are gathered row by row in memory that does not grow with the data.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant.errors import CalibrationError, NonFiniteError, ShapeError

CHUNK_ROWS: Final = 2048
"""Rows multiplied in float32 at a time; the products are summed in float64.

An entry is then off by at most ``CHUNK_ROWS * 2^-23`` of the sum of its terms' magnitudes, however many rows there are.
"""

_UNFOLDED_ELEMENTS: Final = 1 << 24


class InputMoments:
    """Gathers the moments of one layer's input.

    Args:
        name: the layer, as errors shall name it.
        groups: groups of a convolution; each has moments of its own.
        length: columns of one group's row, kernel positions times channels.
        device: where the rows are.
    """

    def __init__(self, name: str, groups: int, length: int, device: torch.device | None = None) -> None:
        self.name: Final = name
        self.rows = 0
        self._sums = torch.zeros(groups, length, dtype=torch.float64, device=device)
        self._products = self._sums.new_zeros(groups, length, length)
        self._deviation_sums = torch.zeros_like(self._sums)
        self._deviation_products = torch.zeros_like(self._products)

    @torch.no_grad()
    def add(self, rows: Tensor, float_rows: Tensor | None = None) -> None:
        """Observes ``rows`` x̂ (groups, n, length) and, where they differ, the ``float_rows`` x of the float network.

        Raises:
            ShapeError: the rows are not those of this layer, or the two differ in shape.
            NonFiniteError: a row holds NaN or Inf; nothing is added then.
        """
        self._check(rows)
        rows = rows.to(torch.float32)
        deviations = None
        if float_rows is not None:
            self._check(float_rows, rows.shape[1])
            deviations = float_rows.to(torch.float32) - rows
        for at in range(0, rows.shape[1], CHUNK_ROWS):
            chunk = rows[:, at : at + CHUNK_ROWS]
            self._products += chunk.transpose(1, 2) @ chunk
            self._sums += chunk.sum(dim=1, dtype=torch.float64)
            if deviations is not None:
                deviation = deviations[:, at : at + CHUNK_ROWS]
                self._deviation_products += deviation.transpose(1, 2) @ chunk
                self._deviation_sums += deviation.sum(dim=1, dtype=torch.float64)
        self.rows += rows.shape[1]

    def mean(self) -> Tensor:
        """(groups, length) float64: the mean of x̂."""
        return self._sums / self._count()

    def mean_deviation(self) -> Tensor:
        """(groups, length) float64: the mean of x - x̂."""
        return self._deviation_sums / self._count()

    def hessian(self, *, centred: bool) -> Tensor:
        """H = 2/n * sum of x̂ x̂ᵀ, (groups, length, length) float64; ``centred`` takes the mean of x̂ off first.

        Raises:
            CalibrationError: no row was seen.
        """
        H = self._products * (2.0 / self._count())
        if centred:
            H.baddbmm_(self.mean().unsqueeze(2), self.mean().unsqueeze(1), alpha=-2.0)
        return H

    def deviation(self, *, centred: bool) -> Tensor:
        """D = 2/n * sum of (x - x̂) x̂ᵀ, as `hessian`; zero where no float rows were given."""
        D = self._deviation_products * (2.0 / self._count())
        if centred:
            D.baddbmm_(self.mean_deviation().unsqueeze(2), self.mean().unsqueeze(1), alpha=-2.0)
        return D

    def _count(self) -> int:
        if self.rows == 0:
            raise CalibrationError(f"calibration data must reach layer {self.name!r}, but it saw no row")
        return self.rows

    def _check(self, rows: Tensor, count: int | None = None) -> None:
        groups, length = self._sums.shape
        fits = rows.dim() == 3 and (rows.shape[0], rows.shape[2]) == (groups, length)
        if not fits or count not in (None, rows.shape[1]):
            n = "rows" if count is None else f"rows={count}"
            raise ShapeError(
                f"inputs of layer {self.name!r} must be (groups={groups}, {n}, columns={length}), "
                f"not of shape {tuple(rows.shape)}"
            )
        if not bool(torch.isfinite(rows.sum())) and not bool(torch.isfinite(rows).all()):
            raise NonFiniteError(f"input of layer {self.name!r} must be finite, not NaN or Inf; check calibration data")


def linear_rows(x: Tensor) -> Tensor:
    """The rows (1, n, C) of a linear layer's input (..., C)."""
    return x.reshape(1, -1, x.shape[-1])


def conv_rows(
    x: Tensor, *, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Tensor:
    """The rows (groups, n, R*S*C/groups) of a convolution's padded input (N, C, H, W) or (N, C, W), n its outputs.

    Columns run over (r, s, c), as the weight's vectors do.
    """
    if x.dim() == 3:
        x, kernel, stride, dilation = x.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    positions, channels = math.prod(kernel), x.shape[1] // groups
    unfolded = F.unfold(x, kernel, dilation=dilation, stride=stride)
    parts = unfolded.view(x.shape[0], groups, channels, positions, -1)
    return parts.permute(1, 0, 4, 3, 2).reshape(groups, -1, positions * channels)


def samples_at_once(outputs_per_sample: int, length: int) -> int:
    """How many samples `conv_rows` may unfold at a time, so that the rows stay within 64 MiB (or one sample)."""
    return max(1, _UNFOLDED_ELEMENTS // max(1, outputs_per_sample * length))
