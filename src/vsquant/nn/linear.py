"""Quantized linear layers and embeddings."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant.nn.layer import QuantLayer, check_input_type
from vsquant.nn.parts import LayerParts
from vsquant.nn.rounded_products import rounded_linear, straight_through
from vsquant.optimize.input_moments import linear_rows


class QuantLinear(QuantLayer):
    """A linear layer: inputs (..., C), vectors along C; dim 0 is the samples wherever there is more than one dim."""

    def __init__(self, parts: LayerParts) -> None:
        super().__init__(parts)
        self.out_features, self.in_features = parts.weight_shape

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (..., C) to (..., K)."""
        check_input_type(x, self.output_dtype, self.name)
        self._check_channels(last_length(x), self.in_features)
        rows = samples_rows(x).to(torch.float32)
        if self.spec.product_bits is None:
            y = self._simulate(rows)
        else:
            y = rounded_linear(self._quantize_input(rows), self.quantized_weight, self.bias, self.spec)
            y = straight_through(y, lambda: self._simulate(rows), rows)
        return y.view(*x.shape[:-1], self.out_features).to(self.output_dtype)

    def input_rows(self, x: Tensor, *, quantized: bool) -> Iterator[Tensor]:
        """(1, n, C) of ``x`` (..., C)."""
        rows = samples_rows(x).to(torch.float32)
        yield linear_rows(self._fake_quantize_input(rows) if quantized else rows)

    def _simulate(self, rows: Tensor) -> Tensor:
        return F.linear(self._fake_quantize_input(rows), self.weight, self.bias)


class QuantEmbedding(QuantLayer):
    """An embedding table: vectors along embedding_dim, gamma per row; indices are not quantized."""

    def __init__(self, parts: LayerParts, *, padding_idx: int | None) -> None:
        super().__init__(parts)
        self.num_embeddings, self.embedding_dim = parts.weight_shape
        self.padding_idx = padding_idx

    def input_rows(self, x: Tensor, *, quantized: bool) -> Iterator[Tensor]:
        """None: an embedding looks its rows up."""
        yield from ()

    def forward(self, x: Tensor) -> Tensor:
        """Integer indices ``x`` (...) to vectors (..., embedding_dim) in the dtype of the model."""
        return F.embedding(x, self.weight, self.padding_idx).to(self.output_dtype)


def last_length(x: Tensor) -> int:
    """The length of the last dimension, 0 of a single number."""
    return x.shape[-1] if x.shape else 0


def samples_rows(x: Tensor) -> Tensor:
    """(..., C) as (samples, rows, C): dim 0 is the samples, the dims between are rows; one vector is one sample."""
    if x.dim() == 1:
        return x.view(1, 1, -1)
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
