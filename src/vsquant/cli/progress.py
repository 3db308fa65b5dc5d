"""Progress bars with the time left, on standard error, so that standard output stays what a machine reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from vsquant.cli.interrupts import INTERRUPTED, begin_work
from vsquant.progress import Progress

LINE_SECONDS: Final = 15.0
"""How often a line is printed where there is no terminal to draw bars on."""


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


class _Lines:
    """A `Progress` for logs: a line now and then, none for work of a few seconds.

    Of the steps in ``whole`` every finished unit has its line, however short it was.
    """

    def __init__(self, console: Console, whole: Collection[str] = ()) -> None:
        self._console = console
        self._whole = whole
        self._printed = time.monotonic()
        self._begun: dict[str, float] = {}

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        begun = now if done == 0 else self._begun.get(step, now)
        self._begun[step] = begun
        told = done > 0 if step in self._whole else now - self._printed >= LINE_SECONDS
        if not told:
            return
        self._printed = now
        rest = f", {timedelta(seconds=round((now - begun) / done * (total - done)))} left" if done else ""
        self._console.print(f"{step}: {done} of {total}{rest}", soft_wrap=True, highlight=False, markup=False)


@contextmanager
def progress_bars(kept: str | Callable[[], str], *, whole: Collection[str] = ()) -> Iterator[Progress]:
    """Bars for the length of a block; they are transient. Where standard error is no terminal, a line now and then,
    and one for every finished unit of the steps in ``whole``.

    An interrupt ends the program with status 130; ``kept`` says then what became of the work.
    """
    begin_work()
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
            yield _Steps(bars) if console.is_terminal else _Lines(console, whole)
    except KeyboardInterrupt:
        console.print(f"stopped; {kept if isinstance(kept, str) else kept()}", soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
