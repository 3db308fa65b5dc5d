"""Static ranges of activations with vector scales: where clipping the largest vectors pays for finer other scales."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from vsquant.calibrate.statistics import FloatArray
from vsquant.errors import CalibrationError, ShapeError
from vsquant.kernels import fake_quantize
from vsquant.spec.formats import IntegerFormat

VectorMethod: TypeAlias = Literal["max", "mse"]

RANGE_RATIOS: Final = tuple(2.0 ** (-step / 16) for step in range(49))
"""Fractions of the largest magnitude that "mse" tries, 1 to 1/8."""

SAMPLED_ELEMENTS: Final = 1 << 19
"""Elements a `RowSample` keeps at most."""


class RowSample:
    """Every n-th row of a stream, with n as small as ``elements`` allow: the same rows however they come in batches.

    n is a power of 3, so that rows of an image are not all of one column.

    Args:
        length: elements in a row.
        elements: how many are kept at most; at least one row is.
    """

    def __init__(self, length: int, elements: int = SAMPLED_ELEMENTS) -> None:
        self._length = length
        self._capacity = max(1, elements // max(length, 1))
        self._stride = 1
        self._seen = 0
        self._kept = torch.empty(0, length)

    @torch.no_grad()
    def add(self, rows: Tensor) -> None:
        """The next rows, (n, length).

        Raises:
            ShapeError: they have another length.
        """
        if rows.dim() != 2 or rows.shape[1] != self._length:
            raise ShapeError(f"rows must be (rows, {self._length}), not of shape {tuple(rows.shape)}")
        chosen = rows[-self._seen % self._stride :: self._stride].to(torch.float32)
        self._kept = torch.cat([self._kept, chosen])
        self._seen += rows.shape[0]
        while len(self._kept) > self._capacity:
            self._kept = self._kept[::3].clone()
            self._stride *= 3

    @property
    def rows(self) -> Tensor:
        """(kept, length) float32."""
        return self._kept


@torch.no_grad()
def vector_range(rows: Tensor, fmt: IntegerFormat, largest: float, name: str) -> FloatArray:
    """The range A of least sum of (x - x̂)² by eq. (6) over sampled rows, of `RANGE_RATIOS` times ``largest``.

    Args:
        rows: (rows, C) float32 samples of one activation.
        fmt: its format, with integer vector scales.
        largest: the largest magnitude ever seen (unsigned: the largest value), above zero.
        name: the layer's, for the message.

    Returns:
        (1,) float32; the largest among equals.

    Raises:
        CalibrationError: there are no rows.
    """
    if len(rows) == 0:
        raise CalibrationError(
            f"layer {name!r} must have sampled rows to choose a range from, not none; observe it again"
        )
    best, least = largest, float("inf")
    for ratio in RANGE_RATIOS:
        candidate = torch.tensor([ratio * largest], dtype=torch.float32)
        error = fake_quantize(rows[None], fmt, coarse_range=candidate).sub_(rows).square_().sum(dtype=torch.float64)
        if float(error) < least:
            best, least = float(candidate), float(error)
    return torch.tensor([best], dtype=torch.float32).numpy()
