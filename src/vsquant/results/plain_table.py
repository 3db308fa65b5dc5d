"""A table in plain text, for what a record prints as."""

from __future__ import annotations

from collections.abc import Sequence


def plain_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what they hold, two spaces between; the first to the left, the others to the right."""
    lines = [headings, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    aligned = [
        [
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in aligned)
