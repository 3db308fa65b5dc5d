"""Which layer hurts, and what an allocation gave each layer: in the terminal and as plain values."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vsquant.report.numbers import finite_or_none, size_text
from vsquant.results.sensitivity import AllocationRecord, FormatSensitivity, Sensitivity

_BAR: Final = 12


def render_sensitivity(found: Sensitivity, candidate: str) -> RenderableType:
    """The layers in one candidate format, the one that costs most first; fits 80 columns."""
    total = found.divergence(candidate)
    shown = _table("#", "layer", "weights", "SQNR dB", "nats", "share", "")
    ranked = found.ranked(candidate)
    largest = ranked[0][1].divergence if ranked else 0.0
    for rank, (layer, form) in enumerate(ranked, start=1):
        share = form.divergence / total if total else 0.0
        shown.add_row(
            str(rank),
            Text(layer.name + ("" if form.spec == candidate else f"\n{form.spec}")),
            f"{layer.elements:,}",
            sqnr_text(form),
            f"{form.divergence:.2g}",
            f"{share:.0%}",
            Text("█" * round(_BAR * form.divergence / largest) if largest else "", style="red"),
        )
    title = Text(f"{found.model}  {candidate}", style="bold")
    title.append(f"\n{total:.3g} nats a row from all layers, from {found.samples} calibration samples", style="dim")
    notes = (
        "nats: estimated divergence of the network's outputs from float with this layer alone quantized.",
        "SQNR: of the layer's own output. Where a layer has a spec of its own (a fallback), it stands below its name.",
    )
    return Group(title, shown, *(Text(note, style="dim") for note in notes))


def render_allocation(record: AllocationRecord) -> RenderableType:
    """What each layer was given, and how that compares with one spec for all; fits 80 columns."""
    shown = _table("layer", "spec", "bits", "packed", "SQNR dB", "nats")
    for layer in record.layers:
        form = layer.chosen
        shown.add_row(
            Text(layer.name),
            Text(form.spec),
            f"{form.weight_bits:.2f}",
            size_text(form.stored_bytes),
            sqnr_text(form),
            f"{form.divergence:.2g}",
        )
    title = Text(f"{record.model}  within {record.budget}", style="bold")
    return Group(title, shown, *(Text(line, style="dim") for line in _summary(record)))


def sensitivity_to_json(found: Sensitivity) -> dict[str, Any]:
    """The record as plain values."""
    plain = dataclasses.asdict(found)
    for layer in plain["layers"]:
        layer["formats"] = [_finite(form) for form in layer["formats"]]
    return plain | {"totals": {candidate: found.divergence(candidate) for candidate in found.candidates}}


def allocation_to_json(record: AllocationRecord) -> dict[str, Any]:
    """The record as plain values, with its derived figures."""
    plain = dataclasses.asdict(record)
    for layer in plain["layers"]:
        layer["chosen"] = _finite(layer["chosen"])
    derived = ("divergence", "stored_bytes", "weight_bits")
    return plain | {name: getattr(record, name) for name in derived}


def sqnr_text(form: FormatSensitivity) -> str:
    """Signal-to-quantization-noise ratio of a layer's output, in decibels."""
    if form.relative_error == 0.0:
        return "∞"
    return f"{-10 * math.log10(form.relative_error):.1f}" if math.isfinite(form.relative_error) else "n/a"


def _summary(record: AllocationRecord) -> list[str]:
    size = f"{record.weight_bits:.3f} bits a weight on average, {size_text(record.stored_bytes)} packed"
    lines = [f"{size}; estimated divergence {record.divergence:.3g} nats a row"]
    best = record.best_uniform
    if best is not None:
        lines.append(f"one spec for all within the budget: {best.candidate}, {best.divergence:.3g} nats a row")
    return lines


def _table(*headings: str) -> RichTable:
    shown = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for heading in headings:
        wide = heading in ("layer", "spec")
        shown.add_column(heading, justify="left" if wide or not heading else "right", no_wrap=not wide, overflow="fold")
    return shown


def _finite(form: dict[str, Any]) -> dict[str, Any]:
    return form | {"relative_error": finite_or_none(form["relative_error"])}
