"""Builds quantized layers from float ones."""

from __future__ import annotations

from typing import Protocol

import pytest
import torch
from torch import nn

from vsquant import LayerSpec, kernels
from vsquant.nn import (
    ConvGeometry,
    LayerParts,
    QuantConv1d,
    QuantConv2d,
    QuantEmbedding,
    QuantLayer,
    QuantLinear,
    QuantMatmul,
    quantize_weight,
)
from vsquant.spec import ScaleMode


class Quantize(Protocol):
    """Quantizes one float layer; ``limit`` is its static activation range."""

    def __call__(
        self,
        layer: nn.Module,
        text: str,
        *,
        mode: ScaleMode = "requantize",
        limit: float | None = None,
        tf_same: bool = False,
    ) -> QuantLayer: ...


def _quantize(layer, text, *, mode="requantize", limit=None, tf_same=False):
    spec = LayerSpec.parse(text)
    embedding = isinstance(layer, nn.Embedding)
    parts = LayerParts(
        name="block.layer",
        spec=spec,
        scale_mode=mode,
        weight=quantize_weight(layer.weight, spec.weight, name="block.layer", scale_mode=mode),
        weight_shape=layer.weight.shape,
        bias=None if embedding else layer.bias,
        activation_range=None if limit is None else torch.tensor([limit]),
        dtype=layer.weight.dtype if embedding else torch.float32,
    )
    if embedding:
        return QuantEmbedding(parts, padding_idx=layer.padding_idx)
    if isinstance(layer, nn.Linear):
        return QuantLinear(parts)
    conv = QuantConv2d if isinstance(layer, nn.Conv2d) else QuantConv1d
    return conv(parts, geometry=ConvGeometry.of(layer, tf_same=tf_same))


@pytest.fixture
def quantize() -> Quantize:
    return _quantize


class MakeMatmul(Protocol):
    """A matmul with one static range per head, or none."""

    def __call__(
        self, text: str, *, unsigned_a: bool = False, ranges: tuple[list[float], list[float]] | None = None
    ) -> QuantMatmul: ...


@pytest.fixture
def make_matmul() -> MakeMatmul:
    def make(text, *, unsigned_a=False, ranges=None):
        tensors = None if ranges is None else (torch.tensor(ranges[0]), torch.tensor(ranges[1]))
        return QuantMatmul(
            name="attention.scores",
            spec=LayerSpec.parse(text),
            scale_mode="requantize",
            unsigned_a=unsigned_a,
            ranges=tensors,
        )

    return make


@pytest.fixture
def quantized_inputs(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Every activation that a layer fake-quantizes, as it comes."""
    seen: list[torch.Tensor] = []
    fake_quantize = kernels.fake_quantize

    def spy(*args, **kwargs):
        seen.append(fake_quantize(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(kernels, "fake_quantize", spy)
    return seen


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
