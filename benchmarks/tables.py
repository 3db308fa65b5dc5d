"""The tables of the README on real data: ``VSQUANT_DATA`` names the folder that holds it. Resumes where it stopped.

Usage: python benchmarks/tables.py [--measured-at COMMIT] [squad-minilm|squad-minilm-all|cifar10 …]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from files import RESULTS, real_task, write, write_result

from vsquant.cli.progress import progress_bars
from vsquant.report import difference_text, to_json, to_markdown, write_png
from vsquant.results import ResultsStore, Table
from vsquant.spec import COMPARISON_FORMATS, ScaleMode
from vsquant.workflows.table import run_table
from vsquant.workflows.table_request import TableRequest

LANGUAGE = ("4/8", "4/10", "6/8", "6/10", "fp16", "fp32", "per-channel", "nvfp4", "mxfp4")
IMAGES = ("3/4", "3/6", "4/4", "4/6", "6/4", "6/6", "fp32", "per-channel", "nvfp4", "mxfp4")
MODES: tuple[ScaleMode, ...] = ("requantize", "paper")

TABLES = {
    "squad-minilm": TableRequest(rows=("3/8", "4/8", "6/8", "8/8", "4/4"), columns=LANGUAGE, limit=500),
    "squad-minilm-all": TableRequest(rows=("4/8",), columns=LANGUAGE[:-2]),
    "imagenet-efficientnet-lite0": TableRequest(rows=("4/4U", "6/4U", "6/6U", "8/8U"), columns=IMAGES),
    "cifar10": TableRequest(rows=("3/3U", "4/4U", "6/4U", "6/6U", "8/8U"), columns=IMAGES),
}


def main() -> None:
    """Measure the tables named on the command line, or all, and write their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help=", ".join(TABLES))
    parser.add_argument("--measured-at", help="the commit that computed the stored cells, if it is not this one")
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        by_mode = {mode: measure(name, mode) for mode in MODES}
        for mode, table in by_mode.items():
            write_result(f"table-{name}-{mode}.json", compact(to_json(table)), arguments.measured_at)
            write(f"table-{name}-{mode}.md", to_markdown(table).rstrip())
        write_png(by_mode["requantize"], RESULTS / f"table-{name}.png")
        write(f"gain-{name}.md", gains(by_mode["requantize"], by_mode["paper"]))


def measure(name: str, mode: ScaleMode) -> Table:
    """One table; comparison formats, which have no scale mode, are in the first only."""
    request = TABLES[name]
    columns = tuple(c for c in request.columns if mode == MODES[0] or c not in COMPARISON_FORMATS)
    task = real_task(name.removesuffix("-all"))
    with (
        ResultsStore() as store,
        progress_bars("cells that were measured are kept, the same command continues there") as progress,
    ):
        return run_table(task, replace(request, scale_mode=mode, columns=columns), store, progress=progress)


def compact(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table without the reports of layers that are as requested."""
    cells = [{**cell, "layers": [layer for layer in cell["layers"] if layer["note"]]} for cell in table["cells"]]
    return {**table, "cells": cells}


def gains(requantize: Table, paper: Table) -> str:
    """Markdown of what scale mode requantize gains over paper at the same bits, with paired standard errors."""
    columns = [column for column in requantize.columns if "/" in column]
    lines = [f"| W/A | {' | '.join(f'S={column}' for column in columns)} |", "| --- |" + " ---: |" * len(columns)]
    for row in paper.rows:
        differences = [
            requantize.cells[row, column].scores.difference(paper.cells[row, column].scores) for column in columns
        ]
        lines.append(f"| {row} | {' | '.join(difference_text(d, requantize.unit) for d in differences)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
