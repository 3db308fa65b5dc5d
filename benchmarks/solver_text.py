"""What `solvers.py` says of its tables: drops of all networks together, goals, scale bits and calibration sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from vsquant.report import difference_text
from vsquant.results import Difference, Table
from vsquant.results.columns import Column

SUMMARY: Final = (
    "per-channel",
    "per-channel:gptq",
    "nvfp4-4over6",
    ":paper",
    ":rtn",
    ":search",
    ":gptq",
    ":reconstruct",
)
"""The columns of all networks together."""
SOLVERS: Final = (":search", ":gptq", ":reconstruct")
SAVED_BIT: Final = ("3/8/6/8", "4/8/6/8")
"""A row, and one of a bit more in every weight."""


def summary(tables: Mapping[str, Table]) -> str:
    """Markdown: every network's rows by the columns of `SUMMARY`, drops from float only."""
    heads = [column.lstrip(":").replace(":", " ") for column in SUMMARY]
    lines = [f"| | W/A/Sw/Sa | {' | '.join(heads)} |", f"| --- | --- |{' ---: |' * len(heads)}"]
    for table in tables.values():
        samples = f"{table.metric} {table.unit}, {table.samples:,}"
        for number, row in enumerate(table.rows):
            drops = [_drop(table, row, Column.parse(column)) for column in SUMMARY]
            lines.append(f"| {'' if number else f'{table.title}: {samples}'} | {row} | {' | '.join(drops)} |")
    return "\n".join(lines)


def _drop(table: Table, row: str, wanted: Column) -> str:
    """The drop in a column of these scales and this method, whatever the method's options."""
    for name in table.columns:
        column = Column.parse(name)
        same = (column.scales, column.method.partition(":")[0]) == (wanted.scales, wanted.method)
        if same and (row, name) in table.drops:
            return difference_text(table.drops[row, name], table.unit)
    return "–"


def goals(table: Table) -> str:
    """Markdown: for each row what paper mode and the best method lose, and which share of that is left.

    The best method is the one of smallest loss on these samples, so that its figure flatters it a little. There is no
    share where paper mode loses less than two standard errors.
    """
    lines = ["| W/A/Sw/Sa | paper loses | the best method loses | left |", "| --- | ---: | ---: | ---: |"]
    for row in table.rows:
        drops = {column: table.drops[row, column] for column in table.columns if (row, column) in table.drops}
        paper = drops.get(":paper")
        solved = {column: drop for column, drop in drops.items() if column.startswith(SOLVERS)}
        if paper is None or not solved:
            continue
        best = max(solved, key=lambda column: solved[column].value)
        lost_for_sure = paper.value < -2 * paper.standard_error
        share = f"{max(0.0, solved[best].value / paper.value):.0%}" if lost_for_sure else "–"
        lost = difference_text(solved[best], table.unit)
        lines.append(f"| {row} | {difference_text(paper, table.unit)} | {lost} ({best[1:]}) | {share} |")
    return "\n".join(lines)


def saved_bit(table: Table) -> str:
    """Markdown: what each method has at 3-bit weights beside what paper mode has at 4, by paired difference."""
    row, richer = SAVED_BIT
    reference = table.cells.get((richer, ":paper"))
    lines = [f"| {row} by | minus {richer} in paper mode |", "| --- | ---: |"]
    for column in (":paper", ":rtn", *SOLVERS):
        for found in (column_ for column_ in table.columns if column_.startswith(column)):
            cell = table.cells.get((row, found))
            if cell is not None and reference is not None:
                difference = cell.scores.difference(reference.scores)
                lines.append(f"| {found[1:]} | {difference_text(difference, table.unit)} |")
    return "\n".join(lines)


def by_scales(tables: Mapping[str, Table]) -> str:
    """Markdown of one row by each method: drops from float, and paired differences from the last column."""
    first = next(iter(tables.values()))
    heads = [f"{method} | minus S={first.columns[-1]}" for method in tables]
    lines = [f"| S | {' | '.join(heads)} |", f"| --- |{' ---: |' * (2 * len(heads))}"]
    for column in first.columns:
        parts = [part for table in tables.values() for part in _beside_last(table, column)]
        if any(part != "–" for part in parts):
            lines.append(f"| {column} | {' | '.join(parts)} |")
    return "\n".join(lines)


def _beside_last(table: Table, column: str) -> tuple[str, str]:
    """A column's drop, and its difference from the last column; dashes where it is not there."""
    [row], last = table.rows, table.columns[-1]
    cell, reference = table.cells.get((row, column)), table.cells.get((row, last))
    if cell is None:
        return "–", "–"
    drop = difference_text(table.drops[row, column], table.unit)
    if reference is None or column == last:
        return drop, "–"
    return drop, difference_text(cell.scores.difference(reference.scores), table.unit)


def by_draws(tables: Sequence[Table]) -> str:
    """Markdown: the drop with each set of calibration samples, and how far they lie apart."""
    drops: list[Difference] = [drop for table in tables for drop in table.drops.values()]
    if not drops:
        return "not measured"
    values = [drop.value for drop in drops]
    mean = f"{sum(values) / len(values):+.2f}".replace("-", "−")
    cells = " | ".join(difference_text(drop, tables[0].unit) for drop in drops)
    heads = " | ".join(f"set {number}" for number in range(1, len(drops) + 1))
    return (
        f"| {heads} | mean | spread, largest minus smallest |\n|{' ---: |' * (len(drops) + 2)}\n"
        f"| {cells} | {mean} | {max(values) - min(values):.2f} |"
    )
