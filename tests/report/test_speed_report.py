"""Speed as text and as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from vsquant.report.roofline import write_roofline
from vsquant.report.speed import formats_summary, goal_text, render_speed, seconds_text, speed_details, speed_summary
from vsquant.results.speed import CaseSpeed, Floor, Goal, Row, Timing, speed_from_json, speed_to_json


def timing(*rounds: float, threads: int = 1) -> Timing:
    return Timing.of(threads, [[seconds] for seconds in rounds])


@pytest.fixture
def speed() -> CaseSpeed:
    rows = (
        Row(name="vsquant w4a8-s4/x-token", ours=True, timings=(timing(1e-3, 2e-3, 1e-3),)),
        Row(name="vsquant w4a8-s6/x-token", ours=True, timings=(timing(1.1e-3, 2.2e-3, 1.1e-3),)),
        Row(name="fast", ours=False, timings=(timing(2e-3, 3e-3, 2e-3),)),
        Row(name="slow", ours=False, timings=(timing(9e-3, 9e-3, 9e-3),), setting="plain layout"),
        Row(name="absent", ours=False, reason="not installed"),
    )
    ceilings = {"read_bytes": 10.0, "avx2": 99.0}
    machine = {"processor": "A processor", "cores": 2, "flags": ["avx2"]}
    return CaseSpeed(
        name="linear-1x8x8", group="linear", title="Linear 8×8, 1 row", rows=rows, operations=128, touched_bytes=100,
        floors=(Floor(threads=1, seconds=5e-4, bound="memory"),),
        goals=(Goal(what="times faster than best peer (fast)", wanted=1.7, reached=2.0),
               Goal(what="of the floor", wanted=0.85, reached=0.5)),
        provenance={"machine": machine, "versions": {"torch": "2"}, "ceilings": {"1": ceilings}},
    )  # fmt: skip


def test_ratios_are_of_rounds_that_belong_together(speed: CaseSpeed) -> None:
    ours, fast = speed.rows[0].timings[0], speed.rows[2].timings[0]
    assert ours.times_faster(fast) == (1.5, 2.0, 2.0)
    assert (
        speed.best_peer(1).name == "fast" and speed.best_peer(1, ("sl*",)).name == "slow" and speed.best_peer(2) is None
    )


def test_json_comes_back(speed: CaseSpeed) -> None:
    assert speed_from_json(speed_to_json(speed)) == speed


def test_summary_shows_reached_goals_bold_and_missed_ones_with_the_goal(speed: CaseSpeed) -> None:
    text = speed_summary([speed])
    assert "| Linear 8×8, 1 row | w4a8-s4/x | 1.00 ms | fast | 2.00 ms | **2.00** | 50% (goal 85%) | – |" in text
    assert "A processor, 2 cores, avx2; torch 2" in text
    assert "| Linear 8×8, 1 row | 1.00 ms | 1.10× |" in formats_summary([speed])


def test_details_hold_every_contender(speed: CaseSpeed) -> None:
    text = speed_details([speed])
    assert "| slow (plain layout) | 9.00 | 9.00 | 9.00× |" in text and "- absent: not installed" in text


def printed(speed: CaseSpeed) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(render_speed(speed))
    return capture.get()


def test_a_busy_machine_is_told_and_an_idle_one_is_not(speed: CaseSpeed) -> None:
    machine = speed.provenance["machine"]
    of = {
        cores: replace(speed, provenance={**speed.provenance, "machine": {**machine, "others_busy_cores": cores}})
        for cores in (None, 0.1, 1.24)
    }
    told = "busy machine: other processes used 1.2 of its 2 cores meanwhile"
    assert told in printed(of[1.24]) and f"- {told}" in speed_details([of[1.24]])
    assert "Busy machine: in 1 of 2 cases other processes used up to 1.2 cores meanwhile. Bold" in speed_summary(
        [speed, of[1.24]]
    )
    for quiet in (speed, of[None], of[0.1]):
        assert not any(
            "usy machine" in text for text in (printed(quiet), speed_details([quiet]), speed_summary([quiet]))
        )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.21 s"), (0.0321, "32.1 ms"), (4.12e-4, "0.412 ms"), (2.74e-5, "27.4 µs"), (5e-7, "500 ns")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_goals_in_words() -> None:
    assert goal_text(Goal(what="of the floor", wanted=0.85, reached=None)) == "not measured: of the floor; goal 85%"
    goal = Goal(what="times torch copy", wanted=1.25, reached=1.4, at_most=True)
    assert goal_text(goal) == "1.40 times torch copy; goal at most 1.25" and not goal.met


def test_the_roofline_is_drawn_the_same_each_time(speed: CaseSpeed, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert write_roofline([speed], tmp_path / "a.svg") and write_roofline([speed], tmp_path / "b.svg")
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn == (tmp_path / "b.svg").read_text() and "memory 10 GB/s" in drawn
    assert not write_roofline([], tmp_path / "none.svg")
