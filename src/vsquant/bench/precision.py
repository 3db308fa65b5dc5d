"""How far a quantized result may be from the float one: derived from the grid, checked before anything is timed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vsquant.bench.inputs import LayerInputs

SLACK = 1.5
"""Rounding errors are taken as uniform and independent; what scales of few bits and clipping add stays below this."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid of ``bits`` bits over every ``block`` elements along the reduction; None: the row, 0: the tensor."""

    bits: int
    block: int | None = None

    def relative_error(self, rows: Tensor) -> float:
        """Root mean square of the rounding error of ``rows`` (rows, length) over that of the values.

        A grid of step d leaves d² / 12 a value, and d = 2 max|x| / (2^N - 1).
        """
        if self.block == 0:
            largest = rows.abs().amax().reshape(1)
        elif self.block is None:
            largest = rows.abs().amax(dim=1)
        else:
            length = rows.shape[1] - rows.shape[1] % self.block
            largest = rows[:, :length].reshape(-1, self.block).abs().amax(dim=1)
        step = 2 * largest / (2**self.bits - 1)
        ratio = step.square().mean() / 12 / rows.square().mean()
        return math.sqrt(float(ratio))


@dataclass(frozen=True, kw_only=True)
class Precision:
    """What a contender quantizes weights and activations to; None: it stays floating point."""

    weight: Grid | None
    activation: Grid | None


FLOAT = Precision(weight=None, activation=None)


def expected_error(inputs: LayerInputs, precision: Precision) -> float:
    """Relative error that ``precision`` may make: independent errors of both operands, with slack; at least 1e-5."""
    weight = 0.0 if precision.weight is None else precision.weight.relative_error(_weight_rows(inputs.weight))
    activation = 0.0 if precision.activation is None else precision.activation.relative_error(_rows(inputs.x))
    return max(1e-5, SLACK * math.hypot(weight, activation))


def relative_error(y: Tensor, expected: Tensor) -> float:
    """|y - expected| / |expected| in the Euclidean norm."""
    return float(torch.linalg.vector_norm(y.double() - expected.double()) / torch.linalg.vector_norm(expected.double()))


def _rows(x: Tensor) -> Tensor:
    return x if x.dim() == 2 else x.movedim(1, -1).reshape(-1, x.shape[1])


def _weight_rows(weight: Tensor) -> Tensor:
    return weight if weight.dim() == 2 else weight.movedim(1, -1).reshape(weight.shape[0], -1)
