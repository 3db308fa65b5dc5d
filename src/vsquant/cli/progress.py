"""Progress bars with the time left, on standard error, so that standard output stays what a machine reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from vsquant.progress import Progress

INTERRUPTED = 130


class _Steps:
    """A `Progress` that shows each step as a bar; a step that is done and does not return leaves the screen."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        if done == 0 and step in self._tasks:
            self._bars.reset(self._tasks[step], total=total, visible=True)
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total)
        self._bars.update(self._tasks[step], completed=done, total=total, visible=done < total)


@contextmanager
def progress_bars(kept: str) -> Iterator[Progress]:
    """Bars for the length of a block; they are transient, and silent where standard error is no terminal.

    An interrupt ends the program with status 130; ``kept`` says then what became of the work.
    """
    console = Console(stderr=True)
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    try:
        with bars:
            yield _Steps(bars)
    except KeyboardInterrupt:
        console.print(f"stopped; {kept}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
