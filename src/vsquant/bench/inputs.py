"""Inputs of a case: the same for every contender, made from a fixed seed, never passed between processes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant.bench.cases import Case, ConvCase, FakeQuantizeCase, LinearCase

_SEED = 20240229


@dataclass(frozen=True, kw_only=True)
class LayerInputs:
    """Activations ``x`` (rows, C) or (N, C, H, W), ``weight`` (K, C) or (K, C, R, S), and the float result."""

    x: Tensor
    weight: Tensor
    expected: Tensor


@lru_cache(maxsize=1)
def layer_inputs(case: LinearCase | ConvCase) -> LayerInputs:
    """Normal activations and weights; post-ReLU (half zeros) activations for convolutions, as in a network.

    Cases of one shape share their weights.
    """
    weight = _weight(case.outputs, case.inputs, case.kernel if isinstance(case, ConvCase) else None)
    generator = torch.Generator().manual_seed(_SEED)
    if isinstance(case, LinearCase):
        x = torch.randn(case.rows, case.inputs, generator=generator)
        return LayerInputs(x=x, weight=weight, expected=F.linear(x, weight))
    x = torch.randn(case.images, case.inputs, case.size, case.size, generator=generator).relu_()
    expected = F.conv2d(x, weight, stride=case.stride, padding=case.padding)
    return LayerInputs(x=x, weight=weight, expected=expected)


@lru_cache(maxsize=1)
def _weight(outputs: int, inputs: int, kernel: int | None) -> Tensor:
    """Normal weights (K, C) or (K, C, R, R) that keep a result about as large as the input."""
    shape = (outputs, inputs) if kernel is None else (outputs, inputs, kernel, kernel)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(_SEED + 1))
    return weight.div_((inputs * (kernel or 1) ** 2) ** 0.5)


def matrix(case: FakeQuantizeCase) -> Tensor:
    """A normal matrix (rows, length)."""
    return torch.randn(case.rows, case.length, generator=torch.Generator().manual_seed(_SEED))


def copies(case: Case, weight_bytes: int, cold_bytes: int) -> int:
    """How many copies of its weights a contender rotates through: 1 where they may stay in the cache."""
    if not (isinstance(case, LinearCase) and case.cold):
        return 1
    return max(2, -(-cold_bytes // weight_bytes))
