"""Solvers side by side at the same bits on real data; ``VSQUANT_DATA`` names its folder. Resumes where it stopped.

Usage: python benchmarks/solvers.py [--measured-at COMMIT] [--stored] [--columns COLUMN …] [STUDY …]

Missing cells are measured and kept in the results store. With ``--stored`` nothing is measured: the files are written
of the cells in the store, and the others stay empty.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import Final

from files import RESULTS, real_task, write, write_result
from provenance import SOURCE_COMMIT
from solver_text import by_draws, by_scales, goals, saved_bit, summary
from tables import compact

from vsquant.cli.progress import progress_bars
from vsquant.optimize import parse_method
from vsquant.progress import Progress
from vsquant.report import to_json, to_markdown, write_png
from vsquant.results import ResultsStore, Table
from vsquant.tasks.base import Task
from vsquant.workflows.table import run_table
from vsquant.workflows.table_request import TableRequest

COLUMNS: Final = (
    *(":paper", ":rtn", ":search", ":gptq", ":reconstruct", "fp32", "fp32:gptq", "fp32:reconstruct"),
    *("per-channel", "per-channel:gptq", "nvfp4", "nvfp4-4over6"),
)
IMAGE_ROWS: Final = ("4/4U/4/4", "3/3U/4/4", "3/8/6/8", "4/8/6/8")
IMAGE_SCALES: Final = ("4/4", "4/6", "6/4", "6/6", "3/4", "3/6", "fp32")
LANGUAGE_SCALES: Final = ("4/8", "4/10", "6/8", "6/10", "fp16", "fp32")
SHORT: Final = (":reconstruct:iterations=60,batch_size=8", ":reconstruct:start=[search],iterations=60,batch_size=8")
"""Where the time for all of it is not there; from error feedback, and from a search."""


@dataclass(frozen=True, kw_only=True)
class Scales:
    """One row by solvers at many scale bits, the last in floating point."""

    row: str
    columns: tuple[str, ...]
    methods: tuple[str, ...] = ("gptq", "reconstruct")

    def request(self, method: str) -> TableRequest:
        """The table of one solver."""
        return TableRequest(rows=(self.row,), columns=self.columns, method=parse_method(method))


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is measured of one task.

    ``table`` holds the solvers side by side. ``drawn`` is the cell that is measured with ``draws`` disjoint sets of
    calibration samples.
    """

    table: TableRequest
    scales: Scales | None = None
    drawn: tuple[str, str] | None = None
    draws: int = 3

    @property
    def limit(self) -> int | None:
        """How many samples every table of the study is evaluated on."""
        return self.table.limit


STUDIES: Final = {
    "cifar10": Study(
        table=TableRequest(rows=IMAGE_ROWS, columns=COLUMNS),
        scales=Scales(row="4/4U", columns=IMAGE_SCALES),
        drawn=("4/4U/4/4", ":gptq"),
    ),
    "cifar10-resnet32": Study(
        table=TableRequest(rows=IMAGE_ROWS, columns=COLUMNS), scales=Scales(row="4/4U", columns=IMAGE_SCALES)
    ),
    "squad-minilm": Study(
        table=TableRequest(rows=("4/8/4/8", "4/8/6/8", "3/8/4/8", "3/8/6/8", "4/4/4/4"), columns=COLUMNS, limit=500),
        drawn=("3/8/6/8", ":gptq"),
    ),
    "squad-minilm-all": Study(
        table=TableRequest(rows=("4/8/4/8",), columns=(":paper", ":rtn", ":gptq", "fp32", "per-channel")),
        scales=Scales(row="4/8", columns=LANGUAGE_SCALES, methods=("rtn",)),
    ),
    "imagenet-efficientnet-lite0": Study(
        table=TableRequest(rows=IMAGE_ROWS, columns=(*COLUMNS[:4], *SHORT, *COLUMNS[5:7], *COLUMNS[8:])),
    ),
}


def main() -> None:
    """Measure the studies named on the command line, or all, and write their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help=", ".join(STUDIES))
    parser.add_argument("--measured-at", help="the commit that computed the stored cells, if it is not this one")
    parser.add_argument("--stored", action="store_true", help="measure nothing; write what the store holds")
    parser.add_argument("--rows", nargs="*", help="measure these rows only, and write nothing")
    parser.add_argument("--columns", nargs="*", help="measure these columns only, and write nothing")
    arguments = parser.parse_args()
    measured: dict[str, Table] = {}
    for name in arguments.studies or STUDIES:
        task = real_task(name.removesuffix("-all"))
        with (
            ResultsStore() as store,
            progress_bars("cells that were measured are kept, the same command continues there") as progress,
        ):
            bench = Bench(task=task, store=store, stored_only=arguments.stored, progress=progress)
            if arguments.rows or arguments.columns:
                request = STUDIES[name].table
                rows, columns = arguments.rows or request.rows, arguments.columns or request.columns
                bench.table(replace(request, rows=tuple(rows), columns=tuple(columns)))
                continue
            measured[name] = write_study(name, STUDIES[name], bench, arguments.measured_at)
    if measured.keys() == STUDIES.keys():
        write("solvers.md", summary(measured))


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where tables are measured, or only read."""

    task: Task
    store: ResultsStore
    stored_only: bool
    progress: Progress

    def table(self, request: TableRequest) -> Table:
        """One table, column by column in the order they are named."""
        for column in () if self.stored_only else request.columns:
            self._run(replace(request, columns=(column,)))
        return self._run(request)

    def _run(self, request: TableRequest) -> Table:
        return run_table(
            self.task,
            request,
            self.store,
            stored_only=self.stored_only,
            commit=SOURCE_COMMIT,
            progress=self.progress,
        )


def write_study(name: str, study: Study, bench: Bench, measured_at: str | None) -> Table:
    """Measure a study and write its files: the table, which is returned, and what there is of scales and draws."""
    table = bench.table(study.table)
    tables = {"table": to_json(table)}
    write(f"solvers-{name}.md", to_markdown(table).rstrip())
    for what, text in (("goals", goals(table)), ("bit", saved_bit(table))):
        if text.count("\n") > 1:
            write(f"solvers-{name}-{what}.md", text)
    write_png(table, RESULTS / f"solvers-{name}.png")
    if study.scales is not None:
        by_method = {
            method: bench.table(replace(study.scales.request(method), limit=study.limit))
            for method in study.scales.methods
        }
        tables |= {f"scales {method}": to_json(scales) for method, scales in by_method.items()}
        write(f"solvers-{name}-scales.md", by_scales(by_method))
    if study.drawn is not None:
        row, column = study.drawn
        draws = [
            bench.table(replace(study.table, rows=(row,), columns=(column,), calibration_draw=draw))
            for draw in range(study.draws)
        ]
        tables |= {f"draw {draw}": to_json(drawn) for draw, drawn in enumerate(draws)}
        write(f"solvers-{name}-draws.md", by_draws(draws))
    measured = {what: compact(plain) for what, plain in tables.items()}
    write_result(f"solvers-{name}.json", measured, measured_at)
    return table


if __name__ == "__main__":
    main()
