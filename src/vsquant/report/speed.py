"""Speed measurements as a terminal table and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from vsquant.results.speed import CaseSpeed, Goal, Row, Timing

_PREFIX: Final = "vsquant "
_DASH: Final = "–"


def seconds_text(seconds: float) -> str:
    """Seconds with three significant digits: ``27.4 µs``, ``0.412 ms``, ``5.21 s``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size * (0.1 if unit == "ms" else 1.0):
            return f"{_digits(seconds / size)} {unit}"
    return f"{_digits(seconds / 1e-9)} ns"


def render_speed(speed: CaseSpeed) -> RenderableType:
    """One case: contenders by time, ours in bold, then why some have none and how far its goals were reached."""
    grid = Grid(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    grid.add_column("", no_wrap=True, max_width=30)
    for threads in speed.threads:
        grid.add_column(_threads_text(threads), justify="right", no_wrap=True)
        grid.add_column("low", justify="right", no_wrap=True, style="dim")
        grid.add_column("ours", justify="right", no_wrap=True)
    ours = _first(speed)
    for row in _by_time(speed):
        cells = [cell for threads in speed.threads for cell in _cells(row, ours, threads)]
        grid.add_row(row.name.removeprefix(_PREFIX) if row.ours else row.name, *cells, style="bold" if row.ours else "")
    lines = [Text(f"{row.name}: {row.reason}", style="red" if row.checked == "red" else "dim")
             for row in speed.rows if row.reason]  # fmt: skip
    goals = [Text(goal_text(goal), style="green" if goal.met else "yellow") for goal in speed.goals]
    busy = [Text(busy_text(speed), style="yellow")] if speed.busy else []
    return Group(Text(f"{speed.title} (ms)", style="bold"), grid, *lines, *goals, *busy, "")


def busy_text(speed: CaseSpeed) -> str:
    """What a busy machine was busy with: ``busy machine: other processes used 1.2 of its 2 cores meanwhile``."""
    cores = speed.provenance["machine"]["cores"]
    return f"busy machine: other processes used {speed.others_busy_cores:.1f} of its {cores} cores meanwhile"


def goal_text(goal: Goal) -> str:
    """``1.52 times faster than best peer (ggml Q4_K); goal 1.7``."""
    reached = "not measured:" if goal.reached is None else _goal_value(goal, goal.reached)
    return f"{reached} {goal.what}; goal {'at most ' if goal.at_most else ''}{_goal_value(goal, goal.wanted)}"


def speed_summary(speeds: Sequence[CaseSpeed]) -> str:
    """Markdown, one line a case: our time, the best peer's, how many times faster, and the share of the floor."""
    lines = [
        "| work | vsquant | 1 thread | best peer | its time | times faster | of the floor | times faster, 2 threads |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [_summary_line(speed) for speed in speeds if speed.threads]
    return "\n".join([*lines, "", _method(speeds)])


def speed_details(speeds: Sequence[CaseSpeed]) -> str:
    """Markdown, every contender of every case, why some did not run, and goals."""
    return "\n\n".join(_details(speed) for speed in speeds)


def formats_summary(speeds: Sequence[CaseSpeed]) -> str:
    """Markdown: the time of every format of ours as a multiple of the first one's, one thread."""
    layers = [speed for speed in speeds if speed.group in ("linear", "conv") and _first(speed).timings]
    if not layers:
        return "No layer has been measured."
    specs = [_spec_text(row) for row in layers[0].rows if row.ours]
    lines = [f"| work | {' | '.join(specs)} |", "| --- |" + " ---: |" * len(specs)]
    for speed in layers:
        base = _first(speed).timings[0]
        ratios = [row.timings[0].times_faster(base)[1] if row.timings else None for row in speed.rows if row.ours]
        cells = [seconds_text(base.median_seconds), *(f"{1 / r:.2f}×" if r else _DASH for r in ratios[1:])]
        lines.append(f"| {speed.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spec_text(row: Row) -> str:
    return row.name.removeprefix(_PREFIX).removesuffix("-token")


def _summary_line(speed: CaseSpeed) -> str:
    threads = speed.threads[0]
    ours, timing = _first(speed), _first(speed).timing(threads)
    peer = speed.best_peer(threads)
    floor = speed.floor(threads)
    goals = {goal.what.split(" (")[0]: goal for goal in speed.goals}
    share = floor.seconds / timing.median_seconds if floor and timing else None
    ratios = [_ratio(ours, speed.best_peer(count), count) for count in (*speed.threads, 0)[:2]]
    cells = [
        speed.title,
        _spec_text(ours),
        seconds_text(timing.median_seconds) if timing else _DASH,
        peer.name if peer else _DASH,
        seconds_text(best.median_seconds) if peer and (best := peer.timing(threads)) else _DASH,
        _with_goal(ratios[0], goals.get("times faster than best peer")),
        _with_goal(share, goals.get("of the floor")),
        _DASH if ratios[1] is None else f"{ratios[1]:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _with_goal(value: float | None, goal: Goal | None) -> str:
    if value is None:
        return _DASH
    text = f"{value:.0%}" if goal is not None and goal.what == "of the floor" else f"{value:.2f}"
    if goal is None:
        return text
    return f"**{text}**" if goal.met else f"{text} (goal {_goal_value(goal, goal.wanted)})"


def _goal_value(goal: Goal, value: float) -> str:
    return f"{value:.0%}" if goal.what == "of the floor" else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _details(speed: CaseSpeed) -> str:
    heads = [text for n in speed.threads for text in (f"{_threads_text(n)}, ms", "10th percentile", "times ours")]
    lines = [f"### {speed.title}", "", f"| | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    ours = _first(speed)
    for row in _by_time(speed):
        cells = [cell.plain for threads in speed.threads for cell in _cells(row, ours, threads)]
        name = f"**{row.name}**" if row.ours else row.name
        lines.append(f"| {name}{f' ({row.setting})' if row.setting else ''} | {' | '.join(cells)} |")
    lines += ["", *(f"- {row.name}: {row.reason}" for row in speed.rows if row.reason)]
    lines += [f"- {goal_text(goal)}" for goal in speed.goals]
    lines += [f"- {busy_text(speed)}"] if speed.busy else []
    return "\n".join(lines)


def _method(speeds: Sequence[CaseSpeed]) -> str:
    if not speeds:
        return "Nothing has been measured."
    origin = speeds[0].provenance
    machine = origin["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in _versions(speeds).items())
    return (
        f"Medians of process CPU time on one thread and of wall time on two, contenders interleaved in one run; "
        f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['flags'])}; {versions}. "
        f"{_busy(speeds)}Bold: the goal was reached."
    )


def _busy(speeds: Sequence[CaseSpeed]) -> str:
    """In how many cases the machine was busy, and how much at most; nothing where it was in none."""
    most = max((speed.others_busy_cores or 0.0 for speed in speeds if speed.busy), default=None)
    if most is None:
        return ""
    count = sum(speed.busy for speed in speeds)
    return f"Busy machine: in {count} of {len(speeds)} cases other processes used up to {most:.1f} cores meanwhile. "


def _versions(speeds: Iterable[CaseSpeed]) -> dict[str, str]:
    return {name: version for speed in speeds for name, version in speed.provenance["versions"].items()}


def _cells(row: Row, ours: Row, threads: int) -> tuple[Text, Text, Text]:
    timing = row.timing(threads)
    if timing is None:
        return Text(_DASH), Text(_DASH), Text(_DASH)
    ratio = _ratio(ours, row, threads)
    beside = "" if ratio is None or row is ours else f"{ratio:.2f}×"
    return Text(_milliseconds(timing.median_seconds)), Text(_milliseconds(timing.low_seconds)), Text(beside)


def _ratio(ours: Row, other: Row | None, threads: int) -> float | None:
    timing: Timing | None = ours.timing(threads)
    theirs = other.timing(threads) if other else None
    return timing.times_faster(theirs)[1] if timing and theirs else None


def _by_time(speed: CaseSpeed) -> list[Row]:
    """Rows with timings, the fastest first."""
    timed = [row for row in speed.rows if row.timings]
    return sorted(timed, key=lambda row: row.timings[0].median_seconds)


def _first(speed: CaseSpeed) -> Row:
    """Our row that the goals speak of."""
    return next(row for row in speed.rows if row.ours)


def _threads_text(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _milliseconds(seconds: float) -> str:
    value = seconds * 1e3
    return f"{value:.4f}" if value < 0.1 else _digits(value)


def _digits(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}" if value >= 1 else f"{value:.3f}"
