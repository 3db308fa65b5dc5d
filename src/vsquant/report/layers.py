"""What became of each layer, in the terminal and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vsquant.results import LayerReport

FLOAT = "float"


def render_layers(layers: Sequence[LayerReport]) -> RenderableType:
    """One line per layer: name, kind, spec in force, matched rule, weights, padding, signedness, note."""
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in ("layer", "kind", "spec", "rule"):
        shown.add_column(name, overflow="fold")
    shown.add_column("weights", justify="right", no_wrap=True)
    shown.add_column("padding", justify="right", no_wrap=True)
    shown.add_column("u", no_wrap=True)
    shown.add_column("note", overflow="fold", ratio=1)
    for layer in layers:
        shown.add_row(
            Text(layer.name),
            layer.kind,
            Text(layer.spec or FLOAT, style=layer_style(layer)),
            Text(layer.rule),
            f"{layer.weights:,}",
            padding_text(layer),
            unsigned_text(layer),
            Text(layer.note, style="yellow" if layer.fallback else "dim"),
        )
    return shown


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
