"""Tables as one self-contained HTML file: no script, nothing fetched, light and dark, laptop and phone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from vsquant.files import replacing
from vsquant.report.figures import Picture
from vsquant.report.html_layers import layer_sections
from vsquant.report.numbers import difference_text, error_text, metric_text, time_text
from vsquant.report.style import CSS
from vsquant.report.wording import (
    WORDS,
    calibrator_text,
    column_family,
    column_title,
    contrast,
    headline,
    notes,
    relative_loss,
    rows_title,
    sample_text,
    setting_text,
    severity,
)
from vsquant.results import CellRecord, Table

_FULL_HEAT: Final = 100.0
_HOT: Final = 0.55


def to_html(tables: Sequence[Table], pictures: Mapping[int, Sequence[Picture]] | None = None) -> str:
    """A whole page of one or more tables; ``pictures`` holds the drawings of ``tables[index]`` under ``index``.

    The first table's headline is the page's.
    """
    drawn = pictures or {}
    title = headline(tables[0])
    sections = [_section(table, drawn.get(index, ()), index) for index, table in enumerate(tables)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(tables[0].title)}: vsquant report</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<p class="eyebrow">vsquant report</p>\n<h1>{escape(title)}</h1>\n'
        + "\n".join(sections)
        + f"\n{_words()}\n</main>\n</body>\n</html>\n"
    )


def write_html(path: Path, tables: Sequence[Table], pictures: Mapping[int, Sequence[Picture]] | None = None) -> None:
    """Write `to_html` to ``path``, whole or not at all; raises `OSError` where it cannot be written."""
    with replacing(path) as temporary:
        temporary.write_bytes(to_html(tables, pictures).encode())


def _section(table: Table, pictures: Sequence[Picture], index: int) -> str:
    heading = f"<h2>{escape(table.title)}, {escape(setting_text(table))}</h2>"
    own_headline = f"<p>{escape(headline(table))}.</p>" if index else ""
    parts = [
        heading,
        own_headline,
        f'<p class="soft">{escape(table.metric)}{escape(_unit(table))} on {escape(sample_text(table))}.</p>',
        _facts(table),
        _grid(table),
        _legend(table),
        _pictures(pictures),
        "<h3>Layers</h3>",
        layer_sections(table),
        "<h3>Where this comes from</h3>",
        _provenance(table),
    ]
    return "<section>\n" + "\n".join(part for part in parts if part) + "\n</section>"


def _facts(table: Table) -> str:
    """The float figure, and the row where vector scales gain most, as large numbers."""
    value = table.baseline.scores.value()
    published = f", published {table.published.float_score:.1f}" if table.published else ""
    facts = [
        (
            metric_text(value, table.unit) + _unit(table),
            f"float network {error_text(table.baseline_standard_error, table.unit, value)}{published}",
        )
    ]
    if found := contrast(table):
        facts += [
            (
                metric_text(found.vector.scores.value(), table.unit) + _unit(table),
                _fact(table, found.row, found.column),
            ),
            (
                metric_text(found.per_channel.scores.value(), table.unit) + _unit(table),
                _fact(table, found.row, "per-channel"),
            ),
        ]
    items = "".join(f"<li><b>{escape(number)}</b><small>{escape(text)}</small></li>" for number, text in facts)
    return f'<ul class="facts">{items}</ul>'


def _fact(table: Table, row: str, column: str) -> str:
    name = "per-channel" if column == "per-channel" else f"per-vector {column_title(column)}"
    return f"{row} bits, {name}: {difference_text(table.drops[row, column], table.unit)}"


def _grid(table: Table) -> str:
    edges = _family_edges(table)
    head = "".join(
        f'<th scope="col"{_class("edge" if column in edges else "")}>{escape(column_title(column))}</th>'
        for column in table.columns
    )
    rows = "".join(
        f'<tr><th scope="row">{escape(row)}</th>'
        + "".join(_cell(table, row, column, column in edges) for column in table.columns)
        + "</tr>\n"
        for row in table.rows
    )
    caption = f"{table.title}: {table.metric} by weight/activation bits and scales"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="cells">'
        f'<thead><tr><th scope="col">{rows_title(table)}</th>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>'
    )


def _family_edges(table: Table) -> set[str]:
    """Columns whose family differs from that of the column before."""
    pairs = zip(table.columns, table.columns[1:], strict=False)
    return {after for before, after in pairs if column_family(before) != column_family(after)}


def _cell(table: Table, row: str, column: str, edge: bool) -> str:
    record = table.cell(row, column)
    published = table.published_cell(row, column)
    beside = "" if published is None else f' <span class="published">({published:.1f})</span>'
    border = "edge" if edge else ""
    if record is None:
        return f'<td{_class(border)}><span class="soft">{table.missing(row, column)}</span>{beside}</td>'
    drop = table.drops[row, column]
    heat = _heat(relative_loss(table, drop))
    calibrator = calibrator_text(record) if column_family(column) == "per-channel" else ""
    named = f'<small class="calibrator">{escape(calibrator)}</small>' if calibrator else ""
    return (
        f'<td{_class(border, "hot" if heat > _HOT else "")} style="--loss:{heat:.2f}" title="{escape(record.spec)}">'
        f'<span class="value">{escape(metric_text(record.scores.value(), table.unit))}</span>{beside}'
        f'<small class="{severity(table, drop)}">{escape(difference_text(drop, table.unit))}</small>{named}</td>'
    )


def _class(*names: str) -> str:
    kept = " ".join(name for name in names if name)
    return f' class="{kept}"' if kept else ""


def _heat(loss: float) -> float:
    """0..1 on a logarithmic scale: no colour without loss, full where everything is lost."""
    if not math.isfinite(loss):
        return 1.0
    return min(1.0, math.log1p(_FULL_HEAT * max(0.0, loss)) / math.log1p(_FULL_HEAT))


def _legend(table: Table) -> str:
    brackets = "; in brackets the published figure" if table.published else ""
    lines = [f"Under each value: its drop from float ± the paired standard error{brackets}. Shade: how much is lost."]
    lines += notes(table)
    text = "".join(f'<p class="soft">{escape(line)}</p>' for line in lines)
    return text + (f'<p class="soft caveat">{escape(table.caveat)}</p>' if table.caveat else "")


def _pictures(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f'<figure role="img" aria-label="{escape(picture.title)}">{picture.svg}</figure>' for picture in pictures
    )
    return f'<h3>In pictures</h3><div class="pictures">{figures}</div>'


def _provenance(table: Table) -> str:
    records = [table.baseline, *table.cells.values()]
    facts = [("data and weights", table.source)]
    if table.published is not None:
        facts.append(("published figures", table.published.source))
    facts += [
        ("measured with", _joined(f"vsquant {r.provenance.vsquant}, torch {r.provenance.torch}" for r in records)),
        ("on", _joined(r.provenance.machine for r in records)),
        ("when", _when(records)),
        ("evaluation time", f"{time_text(sum(r.seconds for r in records))} for {len(records)} evaluations"),
    ]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f"<dl>{rows}</dl>"


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _when(records: Sequence[CellRecord]) -> str:
    first, last = (choose(r.provenance.created for r in records) for choose in (min, max))
    return first if first == last else f"{first} to {last}"


def _unit(table: Table) -> str:
    return f" {table.unit}" if table.unit else ""


def _words() -> str:
    rows = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in WORDS)
    return f"<section><h2>What the words mean</h2><dl>{rows}</dl></section>"
