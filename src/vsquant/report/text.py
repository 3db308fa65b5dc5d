"""A table as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

from vsquant.report.numbers import difference_text, finite_or_none, metric_text
from vsquant.report.wording import (
    calibrator_text,
    column_family,
    column_title,
    float_text,
    notes,
    rows_title,
    sample_text,
    setting_text,
)
from vsquant.results import CellRecord, Table

CSV_COLUMNS: Final = (
    "task",
    "scale_mode",
    "method",
    "gamma",
    "row",
    "column",
    "spec",
    "kind",
    "metric",
    "value",
    "standard_error",
    "difference",
    "difference_standard_error",
    "samples",
    "published",
    "activation_calibrator",
    "weight_calibrator",
    "seconds",
    "vsquant",
    "torch",
    "created",
)


def to_json(table: Table) -> dict[str, Any]:
    """Everything the table knows as plain values; infinite or unknown figures are None.

    ``difference`` is the cell minus the float network, in the metric's unit.
    """
    return {
        "task": table.task,
        "title": table.title,
        "metric": table.metric,
        "unit": table.unit,
        "higher_is_better": table.higher_is_better,
        "scale_mode": table.scale_mode,
        "method": table.method,
        "refinements": table.refinements,
        "gamma": table.gamma,
        "samples": table.samples,
        "samples_available": table.samples_available,
        "calibration_samples": table.calibration_samples,
        "rows": list(table.rows),
        "columns": list(table.columns),
        "float": _float_json(table),
        "cells": [_cell_json(table, row, column) for row, column in _present(table)],
        "refusals": [
            {"row": row, "column": column, "reason": reason} for (row, column), reason in table.refusals.items()
        ],
        "source": table.source,
        "caveat": table.caveat,
        "published_source": None if table.published is None else table.published.source,
    }


def to_csv(table: Table) -> str:
    """One line per measured cell after one for the float network (row and column ``float``), with a header line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    shared = {"task": table.task, "metric": table.metric, "samples": table.samples}
    lines = [{"row": "float", "column": "float", **_float_json(table)}]
    lines += [_cell_json(table, row, column) for row, column in _present(table)]
    for line in lines:
        writer.writerow({**line, **line["provenance"], **shared})
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """The poster's layout as a Markdown table with two-line cells, its settings above and its notes below."""
    header = [rows_title(table), *(column_title(column) for column in table.columns)]
    lines = [
        (
            f"**{table.title}**: {table.metric}{f' {table.unit}' if table.unit else ''}, {float_text(table)}; "
            f"{setting_text(table)}; {sample_text(table)}"
        ),
        "",
        _markdown_row(header),
        _markdown_row(["---", *["---:"] * len(table.columns)]),
        *(
            _markdown_row([row, *(_markdown_cell(table, row, column) for column in table.columns)])
            for row in table.rows
        ),
        "",
        "Under each value: its drop from float ± the paired standard error"
        + ("; in brackets the published figure." if table.published else "."),
    ]
    lines += notes(table)
    if table.caveat:
        lines.append(table.caveat)
    return "\n".join(lines) + "\n"


def _present(table: Table) -> list[tuple[str, str]]:
    return [(row, column) for row in table.rows for column in table.columns if (row, column) in table.cells]


def _float_json(table: Table) -> dict[str, Any]:
    published = None if table.published is None else table.published.float_score
    return _record_json(table.baseline, table.baseline_standard_error) | {"published": published}


def _cell_json(table: Table, row: str, column: str) -> dict[str, Any]:
    record, drop = table.cells[row, column], table.drops[row, column]
    return {
        "row": row,
        "column": column,
        **_record_json(record, record.scores.standard_error()),
        "difference": finite_or_none(drop.value),
        "difference_standard_error": finite_or_none(drop.standard_error),
        "published": table.published_cell(row, column),
    }


def _record_json(record: CellRecord, standard_error: float) -> dict[str, Any]:
    plain = record.to_dict()
    for candidate in plain["candidates"]:
        candidate["score"] = finite_or_none(candidate["score"])
    return {
        **plain,
        "value": finite_or_none(record.scores.value()),
        "standard_error": finite_or_none(standard_error),
    }


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(table: Table, row: str, column: str) -> str:
    record = table.cell(row, column)
    published = table.published_cell(row, column)
    beside = "" if published is None else f" ({published:.1f})"
    if record is None:
        return f"{table.missing(row, column)}{beside}"
    value = metric_text(record.scores.value(), table.unit)
    lines = [f"{value}{beside}", difference_text(table.drops[row, column], table.unit)]
    if column_family(column) == "per-channel" and calibrator_text(record):
        lines.append(calibrator_text(record))
    return "<br>".join(lines)
