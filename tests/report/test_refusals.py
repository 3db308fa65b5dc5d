"""A format that a network cannot be run in is shown as refused, with the reason, in every rendering."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from rich.console import Console

from vsquant.report import render_table, to_csv, to_html, to_json, to_markdown
from vsquant.results import Table

REASON = "input of layer 'conv1': a scale kept as fp16 must lie between 2^-14 and 65504, not 1e-06"


def refused(table: Table) -> Table:
    cells = {key: cell for key, cell in table.cells.items() if key != ("3/8", "fp16")}
    return replace(table, cells=cells, refusals={("3/8", "fp16"): REASON})


def test_the_cell_says_refused_and_the_note_says_why(squad_table: Table) -> None:
    table = refused(squad_table)
    console = Console(width=200, file=io.StringIO())
    console.print(render_table(table, 200))
    assert isinstance(console.file, io.StringIO)
    for text in (console.file.getvalue(), to_markdown(table), to_html([table]).replace("&#x27;", "'")):
        assert "refused" in text
        assert f"S=fp16 refused: {REASON}" in text


def test_machines_read_the_reason_and_no_cell(squad_table: Table) -> None:
    table = refused(squad_table)
    assert to_json(table)["refusals"] == [{"row": "3/8", "column": "fp16", "reason": REASON}]
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert not any(row["row"] == "3/8" and row["column"] == "fp16" for row in rows)


def test_a_table_without_refusals_says_nothing_of_them(squad_table: Table) -> None:
    assert "refused" not in to_markdown(squad_table)
