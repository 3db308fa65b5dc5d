"""Corrections of a quantized layer's output channels, from the moments of its outputs and of the float layer's.

With means m and standard deviations d over the same samples, per output channel,

    (1) y' = y + (m_float - m)                                   bias correction (Nagel et al. 2019, arXiv 1906.04721)
    (2) y' = (y - m) * d_float / d + m_float                     batch-norm re-estimation, batch norms folded or not

(2) is what a batch norm gives that is estimated anew on the quantized layer's outputs and then scaled and shifted as it
was on the float layer's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vsquant.errors import CalibrationError, ShapeError


@dataclass(frozen=True, kw_only=True)
class ChannelCorrection:
    """y' = y * scale + shift, float64 (channels,) each."""

    scale: Tensor
    shift: Tensor


class ChannelMoments:
    """Mean and variance of every channel over all that was added, in float64, in one pass.

    Args:
        channels: how many there are.
    """

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._mean = torch.zeros(channels, dtype=torch.float64)
        self._squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take in (rows, channels); merged as by Chan et al. 1979, so that no large numbers cancel.

        Raises:
            ShapeError: there are not as many channels.
        """
        if rows.dim() != 2 or rows.shape[1] != len(self._mean):
            raise ShapeError(f"rows must be (rows, {len(self._mean)}), not of shape {tuple(rows.shape)}")
        if rows.shape[0] == 0:
            return
        rows = rows.detach().double()
        mean, added = rows.mean(dim=0), rows.shape[0]
        total = self._count + added
        apart = mean - self._mean
        self._squares += (rows - mean).square().sum(dim=0) + apart.square() * (self._count * added / total)
        self._mean += apart * (added / total)
        self._count = total

    @property
    def mean(self) -> Tensor:
        """(channels,) float64. Raises `CalibrationError` where nothing was added."""
        self._require_samples()
        return self._mean

    @property
    def variance(self) -> Tensor:
        """(channels,) float64, of the samples as the whole population. Raises as `mean`."""
        self._require_samples()
        return self._squares / self._count

    def _require_samples(self) -> None:
        if self._count == 0:
            raise CalibrationError("moments must be of at least one sample, not none; give data that reaches the layer")


def mean_correction(wanted: ChannelMoments, given: ChannelMoments) -> ChannelCorrection:
    """Eq. (1)."""
    return ChannelCorrection(scale=torch.ones_like(given.mean), shift=wanted.mean - given.mean)


def moment_correction(wanted: ChannelMoments, given: ChannelMoments) -> ChannelCorrection:
    """Eq. (2); the scale is 1 where either variance is zero."""
    usable = (wanted.variance > 0) & (given.variance > 0)
    ratio = wanted.variance / torch.where(usable, given.variance, 1.0)
    return with_scale(torch.where(usable, ratio.sqrt(), 1.0), wanted, given)


def with_scale(scale: Tensor, wanted: ChannelMoments, given: ChannelMoments) -> ChannelCorrection:
    """The correction that scales by ``scale`` (channels,) and then makes means equal."""
    return ChannelCorrection(scale=scale, shift=wanted.mean - scale * given.mean)
