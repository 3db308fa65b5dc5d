"""Equal layers of a checkpoint as one: a network of twelve blocks is a handful of lines, each within 80 columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vsquant.report.grouped import Group, GroupedTable, common_name
from vsquant.report.numbers import size_text
from vsquant.results import LayerInspection


def layer_groups(layers: Sequence[LayerInspection]) -> GroupedTable:
    """The layers by spec, shape and note, in the order in which the first of each appears.

    Sums stand for the layers of a group, the least and the largest of scale codes and of SQNR.
    """
    groups: dict[tuple[str, str, tuple[int, ...], str], list[LayerInspection]] = {}
    for layer in layers:
        groups.setdefault((layer.kind, layer.spec, layer.shape, layer.note), []).append(layer)
    return GroupedTable(
        headings=("layers", "spec", "shape", "weights", "packed", "bits", "σ codes", "SQNR dB"),
        groups=tuple(_group(group) for group in groups.values()),
        left=(1, 2),
        dispensable=(4, 3, 6, 2),
    )


def _group(layers: Sequence[LayerInspection]) -> Group:
    first, elements = layers[0], sum(layer.elements for layer in layers)
    stored = sum(layer.stored_bytes for layer in layers)
    cells = (
        str(len(layers)),
        first.spec,
        "×".join(str(length) for length in first.shape),
        f"{elements:,}",
        size_text(stored),
        f"{8 * stored / elements:.2f}" if elements else "",
        _scale_codes(layers),
        _sqnr(layers),
    )
    return Group(
        name=common_name([layer.name for layer in layers]), cells=cells, notes=(first.note,) if first.note else ()
    )


def _scale_codes(layers: Sequence[LayerInspection]) -> str:
    used = [str(layer.scale_codes_used) for layer in layers if layer.scale_codes_used is not None]
    return f"{_span(sorted(used, key=int))}/{layers[0].scale_codes_total}" if used else ""


def _sqnr(layers: Sequence[LayerInspection]) -> str:
    known = sorted(layer.sqnr_db for layer in layers if layer.sqnr_db is not None)
    return _span([f"{decibels:.1f}" if math.isfinite(decibels) else "∞" for decibels in known])


def _span(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    return texts[0] if texts[0] == texts[-1] else f"{texts[0]}–{texts[-1]}"
