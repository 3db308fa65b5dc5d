"""The per-layer part of the HTML report: one folded table per way the layers were treated."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

from vsquant.report.layers import FLOAT, padding_text, unsigned_text
from vsquant.report.wording import column_title
from vsquant.results import LayerReport, Table

Treatment: TypeAlias = tuple[tuple[object, ...], ...]


def layer_sections(table: Table) -> str:
    """The layers of every cell; cells whose layers differ in nothing but the cell's own spec share a table."""
    groups: dict[Treatment, list[tuple[str, str]]] = {}
    for row in table.rows:
        for column in table.columns:
            cell = table.cell(row, column)
            if cell is not None and cell.layers:
                groups.setdefault(_treatment(cell.layers), []).append((row, column))
    if not groups:
        return '<p class="soft">No layer reports were kept with these cells.</p>'
    return "\n".join(_group(table, keys) for keys in groups.values())


def _treatment(layers: Sequence[LayerReport]) -> Treatment:
    return tuple(
        (layer.name, layer.kind, layer.rule, layer.padding, layer.unsigned_activations, layer.note, _own_spec(layer))
        for layer in layers
    )


def _own_spec(layer: LayerReport) -> str:
    """The spec in force where it is not the one requested, else empty: the cell's own."""
    return "" if layer.spec == layer.requested and layer.spec is not None else layer.spec or FLOAT


def _group(table: Table, keys: Sequence[tuple[str, str]]) -> str:
    layers = table.cells[keys[0]].layers
    exceptions = sum(bool(_own_spec(layer)) for layer in layers)
    differing = f", {exceptions} not as requested" if exceptions else ", all as requested"
    rows = "".join(_row(layer) for layer in layers)
    heads = "".join(f"<th>{name}</th>" for name in ("layer", "kind", "spec", "rule"))
    numbers = "".join(f'<th class="number">{name}</th>' for name in ("weights", "padding"))
    return (
        f"<details><summary>{escape(_cells_text(table, keys))}: {len(layers)} layers{differing}</summary>"
        f'<div class="scroll"><table class="layers"><thead><tr>{heads}{numbers}<th>u</th><th>note</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )


def _cells_text(table: Table, keys: Sequence[tuple[str, str]]) -> str:
    """Names the cells a table of layers stands for: all, whole columns, or one by one."""
    if set(keys) == set(table.cells):
        return "All cells"
    columns = {
        column: [row for row, other in keys if other == column] for column in dict.fromkeys(key[1] for key in keys)
    }
    names = []
    for column, rows in columns.items():
        whole = all((row, column) in keys for row in table.rows if (row, column) in table.cells)
        names.append(column_title(column) if whole else f"{column_title(column)} at {', '.join(rows)}")
    return "; ".join(names)


def _row(layer: LayerReport) -> str:
    own = _own_spec(layer)
    spec = escape(own) if own else "the cell's"
    return (
        f'<tr{" class=fallback" if layer.fallback else ""}><th scope="row">{escape(layer.name)}</th>'
        f"<td>{escape(layer.kind)}</td><td>{spec}</td><td>{escape(layer.rule)}</td>"
        f'<td class="number">{layer.weights:,}</td><td class="number">{padding_text(layer)}</td>'
        f'<td>{unsigned_text(layer)}</td><td class="note">{escape(layer.note)}</td></tr>\n'
    )
