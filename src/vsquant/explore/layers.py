"""What became of the weights of one point, layer by layer: noise, bytes, use of the scale codes, histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from vsquant.kernels.numerics import pad_tail
from vsquant.nn import QuantLayer
from vsquant.nn.weights import by_position
from vsquant.packing import packed_bytes
from vsquant.results.points import PointLayer
from vsquant.results.workloads import LayerWorkload
from vsquant.spec.formats import DEFAULT_VECTOR_SIZE, IntegerFormat, TensorFormat
from vsquant.transform.float_layers import float_weight
from vsquant.workflows.record import quantization_record, quantized_layers

BINS: Final = 32
"""Bins of a histogram, equal parts of [0, 1]."""


def describe_layers(float_model: nn.Module, model: nn.Module) -> tuple[PointLayer, ...]:
    """Every quantized layer of ``model`` beside the same layer of ``float_model``, its batch norms folded."""
    originals = dict(float_model.named_modules())
    macs = _macs(quantization_record(model).workloads)
    found = []
    for name, layer in quantized_layers(model):
        assert isinstance(layer, QuantLayer)
        expected = float_weight(originals[name]).float()
        fmt = layer.spec.weight
        found.append(
            PointLayer(
                name=name,
                spec=str(layer.spec),
                macs=macs.get(name, 0),
                weight_sqnr_db=sqnr_db(expected, layer.weight),
                scale_code_counts=_scale_counts(layer.weight_vector_scale, fmt),
                weight_histogram=_histograms(expected, layer.weight, fmt),
            )
        )
    return tuple(found)


def weight_bytes(model: nn.Module) -> int:
    """What the quantized weights of a simulated model occupy packed, all scales included."""
    layers = [layer for _, layer in quantized_layers(model)]
    return sum(packed_bytes(layer.weight_shape, layer.spec.weight) for layer in layers if isinstance(layer, QuantLayer))


def model_bytes(model: nn.Module) -> int:
    """What a simulated or float model occupies: packed weights, and every other parameter and buffer as it is."""
    packed = {
        id(tensor)
        for _, layer in quantized_layers(model)
        for name, tensor in (*layer.named_buffers(recurse=False), *layer.named_parameters(recurse=False))
        if name.startswith("weight")
    }
    others = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in packed}
    return weight_bytes(model) + sum(tensor.numel() * tensor.element_size() for tensor in others.values())


def sqnr_db(expected: Tensor, given: Tensor) -> float | None:
    """10·log10(Σ w² / Σ (w - ŵ)²) in float64; None for zeros, and where nothing differs."""
    signal = float(expected.double().square().sum())
    noise = float((expected.double() - given.double()).square().sum())
    return 10 * math.log10(signal / noise) if signal and noise else None


def _macs(workloads: tuple[LayerWorkload, ...]) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for workload in workloads:
        found[workload.name] = found.get(workload.name, 0) + workload.macs
    return found


def _scale_counts(scale: Tensor | None, fmt: TensorFormat) -> tuple[int, ...]:
    """How many vectors have each code of their integer scale; under ``-top`` the codes are σ - 1."""
    if scale is None or not fmt.two_level:
        return ()
    codes = 1 << fmt.scale_storage_bits
    first = int(isinstance(fmt, IntegerFormat) and fmt.scale_top_pow2)
    return tuple(torch.bincount(scale.flatten().long() - first, minlength=codes)[:codes].tolist())


def _histograms(expected: Tensor, given: Tensor, fmt: TensorFormat) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Counts of |w| and |ŵ| over the maximum of |w| in the vector, by bin; where a format has none, of 16 elements."""
    size = fmt.vector_size or DEFAULT_VECTOR_SIZE
    before, after = (pad_tail(by_position(weight), size).abs() for weight in (expected, given))
    largest = before.amax(dim=-1, keepdim=True)
    real = (pad_tail(torch.ones_like(by_position(expected)), size) > 0) & (largest > 0)
    return _counts(before, largest, real), _counts(after, largest, real)


def _counts(values: Tensor, largest: Tensor, real: Tensor) -> tuple[int, ...]:
    shares = (values / largest)[real].clamp(0, 1)
    return tuple(int(count) for count in torch.histc(shares, bins=BINS, min=0, max=1).tolist())
