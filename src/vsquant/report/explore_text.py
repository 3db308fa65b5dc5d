"""A sweep in the terminal and as plain values: its plan before it runs, and its points."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from vsquant.report.numbers import difference_text, error_text, finite_or_none, metric_text, size_text, time_text
from vsquant.results.front import Standing, standings
from vsquant.results.plans import PlanSummary
from vsquant.results.points import FailedPoint, PointRecord
from vsquant.results.scores import Difference, Scores
from vsquant.spec import DEFAULT_VECTOR_SIZE

_MARKS: Final[dict[Standing, str]] = {"front": "●", "tied": "≈", "dominated": "", "unknown": ""}
_SHOWN: Final = 5
_SCORE: Final = "score"
_FIGURES: Final = (_SCORE, "to float", "bytes", "energy", "area", "perf/area", "latency")
"""Columns, where there is something to show; that of the score is named after its metric."""
_USUAL_VECTORS: Final = re.compile(rf"-v{DEFAULT_VECTOR_SIZE}(?!\d)")
"""Left out of names, as all else that is usual."""


def render_plan(plan: PlanSummary, *, workers: int) -> RenderableType:
    """What will be done, and what was left out of the space and why."""
    counts = RichTable.grid(padding=(0, 2))
    counts.add_row("points", f"{plan.points}, of them in the store {plan.finished}")
    counts.add_row("quantizations of weights", str(plan.weight_quantizations))
    counts.add_row("evaluations", f"{plan.evaluations}, by {workers} worker{'s' * (workers > 1)}")
    counts.add_row("as long as the float network", time_text(plan.float_evaluations_seconds))
    left_out = [f"left out: {text}: {reason}" for text, reason in plan.impossible[:_SHOWN]]
    if len(plan.impossible) > _SHOWN:
        left_out.append(f"and {len(plan.impossible) - _SHOWN} more; --dry-run --json lists them")
    return Group(counts, *(Text(line, style="dim") for line in left_out))


def plan_to_json(plan: PlanSummary) -> dict[str, Any]:
    """The plan as plain values."""
    return dataclasses.asdict(plan)


def render_points(records: Sequence[PointRecord], failed: Sequence[FailedPoint], objective: str) -> RenderableType:
    """A table for each network, cheapest first, and the failures; fits 80 columns."""
    networks = dict.fromkeys(record.point.network for record in records)
    tables = [_table([each for each in records if each.point.network == name], objective) for name in networks]
    notes = [
        f"● on the front of accuracy against {_spaced(objective)}; ≈ by no more than the paired standard error",
        f"vectors of {DEFAULT_VECTOR_SIZE} elements unless -v says otherwise; bytes are those of the packed weights",
    ]
    if any(record.cost for record in records):
        notes.append("energy, area and performance per area are ratios to 8/8 per-channel on the same accelerator")
    if unpriced := sum(bool(each.unpriced) for each in records if each.point.family != "float"):
        notes.append(f"{unpriced} points have no energy and area: --json says why")
    lines = [f"failed: {each.point.network} {each.point.spec}: {each.reason}" for each in failed]
    return Group(*tables, *(Text(note, style="dim") for note in notes), *(Text(line, style="red") for line in lines))


def points_to_json(
    records: Sequence[PointRecord], failed: Sequence[FailedPoint], objective: str
) -> dict[str, list[dict[str, Any]]]:
    """Every point with its accuracy, its difference from float and how it stands; and the failures."""
    points = []
    for record, standing in zip(records, standings(records, objective), strict=True):
        drop = _drop(record, records)
        scores = record.scores
        points.append(
            {
                **record.to_dict(),
                "metric": None if scores is None else scores.metric,
                "score": None if scores is None else finite_or_none(scores.value()),
                "standard_error": None if scores is None else finite_or_none(scores.standard_error()),
                "difference": None if drop is None else finite_or_none(drop.value),
                "difference_error": None if drop is None else finite_or_none(drop.standard_error),
                "objective": objective,
                "standing": standing,
            }
        )
    return {"points": points, "failed": [dataclasses.asdict(failure) for failure in failed]}


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _table(records: Sequence[PointRecord], objective: str) -> RenderableType:
    """One network's points; columns that nothing was found for are left out."""
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=records[0].title, title_justify="left")
    table.add_column("")
    table.add_column("format", overflow="fold")
    rows = {id(record): _figures(record, records) for record in records}
    shown = [name for name in _FIGURES if any(row[name] for row in rows.values())]
    for name in shown:
        table.add_column(_metric(records) if name == _SCORE else name, justify="right", no_wrap=True)
    stands = dict(zip(map(id, records), standings(records, objective), strict=True))
    for record in sorted(records, key=lambda each: each.weight_bytes):
        row = rows[id(record)]
        table.add_row(_MARKS[stands[id(record)]], _name(record), *(row[name] for name in shown))
    return table


def _figures(record: PointRecord, records: Sequence[PointRecord]) -> dict[str, str]:
    """What there is of a point by the columns' names; empty where there is none."""
    drop, scores, cost = _drop(record, records), record.scores, record.cost
    figures = dict.fromkeys(_FIGURES, "") | {"bytes": size_text(record.weight_bytes)}
    figures[_SCORE] = "pruned" if scores is None else _score_text(scores)
    if drop is not None and scores is not None:
        figures["to float"] = difference_text(drop, scores.unit)
    if cost is not None:
        figures["energy"], figures["area"] = f"{cost.energy_ratio:.2f}", f"{cost.area_ratio:.2f}"
        figures["perf/area"] = f"{cost.performance_per_area_ratio:.2f}"
    if record.latency is not None:
        figures["latency"] = f"{record.latency.seconds * 1e3:.1f} ms"
    return figures


def _score_text(scores: Scores) -> str:
    return metric_text(scores.value(), scores.unit) + error_text(scores.standard_error(), scores.unit)


def _name(record: PointRecord) -> str:
    point = record.point
    options = [point.method] if point.method != "rtn" else []
    options += [point.scale_mode] if point.scale_mode == "paper" else []
    options += [f"ends {point.first_last}"] if point.first_last != "same" else []
    options += [point.accelerator] if point.accelerator not in ("", "edge") else []
    return " ".join([_USUAL_VECTORS.sub("", point.spec), *options])


def _metric(records: Sequence[PointRecord]) -> str:
    return next((record.scores.metric for record in records if record.scores is not None), "score")


def _drop(record: PointRecord, records: Sequence[PointRecord]) -> Difference | None:
    """The paired difference from the float network's record, None where there is none."""
    if record.scores is None or record.point.family == "float":
        return None
    for each in records:
        if each.point.family == "float" and each.point.network == record.point.network and each.scores is not None:
            return record.scores.difference(each.scores)
    return None
