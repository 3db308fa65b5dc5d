"""What became of each layer, in the terminal and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from vsquant.report.grouped import Group, GroupedTable, common_name
from vsquant.results import LayerReport

FLOAT = "float"


def render_layers(layers: Sequence[LayerReport]) -> RenderableType:
    """What the layers became, equal ones together: spec in force, kind, weights, padding, signedness, notes.

    The rule that decided is told where there is more than one.
    """
    rules = {layer.rule for layer in layers}
    groups: dict[tuple[str, str | None, str, float, bool | None, str], list[LayerReport]] = {}
    for layer in layers:
        key = (layer.kind, layer.spec, layer.rule, layer.padding, layer.unsigned_activations, layer.note)
        groups.setdefault(key, []).append(layer)
    return GroupedTable(
        headings=("layers", "kind", "spec", "weights", "padding", "u"),
        groups=tuple(_group(group, tell_rule=len(rules) > 1) for group in groups.values()),
        left=(1, 2, 5),
        dispensable=(4, 3, 1),
    )


def _group(layers: Sequence[LayerReport], *, tell_rule: bool) -> Group:
    first = layers[0]
    cells = (
        str(len(layers)),
        first.kind,
        first.spec or FLOAT,
        f"{sum(layer.weights for layer in layers):,}",
        padding_text(first),
        unsigned_text(first),
    )
    return Group(
        name=common_name([layer.name or "the model itself" for layer in layers]),
        cells=cells,
        notes=(*([first.note] if first.note else []), *([f"rule: {first.rule}"] if tell_rule else [])),
        style=layer_style(first),
        note_style="yellow" if first.fallback else "dim",
    )


def layers_to_json(layers: Sequence[LayerReport]) -> list[dict[str, Any]]:
    """The layers as plain values."""
    return [dataclasses.asdict(layer) | {"fallback": layer.fallback} for layer in layers]


def layer_style(layer: LayerReport) -> str:
    """How the spec in force is set: yellow where it is a fallback, dim where the layer stays float."""
    return "yellow" if layer.fallback else "dim" if layer.spec is None else ""


def padding_text(layer: LayerReport) -> str:
    """Share of padding in what is computed; empty where none is."""
    return f"{layer.padding:.1%}" if layer.padding else ""


def unsigned_text(layer: LayerReport) -> str:
    """``u`` for unsigned activations, ``s`` for signed, empty where they are not quantized."""
    return {True: "u", False: "s", None: ""}[layer.unsigned_activations]
