"""Module surgery: float layers out, quantized layers in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from vsquant.nn import (
    LayerParts,
    QuantConv1d,
    QuantConv2d,
    QuantEmbedding,
    QuantizedWeight,
    QuantLayer,
    QuantLinear,
)
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.float_layers import float_bias, float_weight, geometry_of
from vsquant.transform.plan import LayerPlan

WeightSource: TypeAlias = Callable[[str, Tensor, LayerSpec], QuantizedWeight]
"""Gives a layer's quantized weight from its name, its float weight (K, C, *kernel) and its spec."""


def replace_layers(
    model: nn.Module,
    plans: Sequence[LayerPlan],
    *,
    weights: WeightSource,
    ranges: Mapping[str, Tensor],
    scale_mode: ScaleMode,
) -> nn.Module:
    """Put quantized layers in the place of the float ones, in ``model`` itself, under every name a layer has.

    ``ranges`` holds the calibrated activation range (1,) of each layer that needs one. Matmuls are left: see
    `vsquant.transform.attention.place_matmuls`.

    Returns:
        The model, or its replacement where the model itself is the layer.
    """
    for plan in plans:
        if plan.spec is None or plan.match.kind == "matmul":
            continue
        match = plan.match
        weight = float_weight(match.module)
        layer = make_layer(
            match.module,
            match.name,
            plan.spec,
            scale_mode=scale_mode,
            weight=weights(match.name, weight, plan.spec),
            activation_range=ranges.get(match.name),
        )
        layer.train(match.module.training)
        for name in (match.name, *match.aliases):
            model = set_module(model, name, layer)
    return model


def make_layer(
    module: nn.Module,
    name: str,
    spec: LayerSpec,
    *,
    scale_mode: ScaleMode,
    weight: QuantizedWeight,
    activation_range: Tensor | None,
) -> QuantLayer:
    """The quantized layer in the place of the float layer ``module``."""
    parts = LayerParts(
        name=name,
        spec=spec,
        scale_mode=scale_mode,
        weight=weight,
        weight_shape=float_weight(module).shape,
        bias=float_bias(module),
        activation_range=activation_range,
        dtype=float_weight(module).dtype,
    )
    if isinstance(module, nn.Embedding):
        return QuantEmbedding(parts, padding_idx=module.padding_idx)
    if isinstance(module, nn.Conv2d):
        return QuantConv2d(parts, geometry=geometry_of(module))
    if isinstance(module, nn.Conv1d):
        return QuantConv1d(parts, geometry=geometry_of(module))
    return QuantLinear(parts)


def set_module(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """Put ``module`` at the dotted ``name`` of ``model``; returns the model, which is ``module`` for the name ""."""
    if not name:
        return module
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
    return model
