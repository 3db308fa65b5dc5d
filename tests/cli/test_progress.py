"""Progress where there is no terminal."""

import io

import pytest
from rich.console import Console

from vsquant.cli import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_with_the_time_left(clock) -> None:
    text = io.StringIO()
    lines = progress._Lines(Console(file=text, width=80))
    for done in range(5):
        lines("cells", done, 9)
        clock[0] += 10
    assert text.getvalue() == "cells: 2 of 9, 0:01:10 left\ncells: 4 of 9, 0:00:50 left\n"


def test_short_work_leaves_no_line(clock) -> None:
    text = io.StringIO()
    lines = progress._Lines(Console(file=text, width=80))
    for done in range(5):
        lines("cells", done, 4)
        clock[0] += 2
    assert text.getvalue() == ""


def test_every_unit_of_a_whole_step_has_its_line(clock) -> None:
    text = io.StringIO()
    lines = progress._Lines(Console(file=text, width=80), ("cells",))
    for done in range(3):
        lines("cells", done, 2)
        lines("evaluating", done, 2)
        clock[0] += 2
    assert text.getvalue() == "cells: 1 of 2, 0:00:02 left\ncells: 2 of 2, 0:00:00 left\n"
