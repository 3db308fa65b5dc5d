"""Pictures of lanes: area against energy, and what rounding the scale product saves beside what it costs."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vsquant.errors import MissingExtraError
from vsquant.files import replacing
from vsquant.results.lane_cost import LaneCost, LaneCosts

_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vsquant-lanes",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}
_PLAIN: Final = "#5b6770"
_VECTORS: Final = "#1a66b8"
_ROUNDED: Final = "#d55e00"
_AREA: Final = "#c3ccd3"


@dataclass(frozen=True, kw_only=True)
class RoundedAccuracy:
    """What a task's metric changes by with scale products of P bits, by P, and the standard errors of that."""

    title: str
    metric: str
    changes: Mapping[int, float]
    errors: Mapping[int, float]


def write_lane_picture(costs: LaneCosts, path: Path) -> None:
    """Bars of energy and area for one multiply-accumulate of every lane with the baseline's V, relative to the 8/8 one.

    Raises `MissingExtraError` without matplotlib (extra ``demo``) and `OSError` where ``path`` cannot be written.
    """
    lanes = [lane for lane in costs.lanes if lane.vector_size == 16 and costs.relative_area(lane) is not None]
    _write(path, (7.0, 1.2 + 0.24 * len(lanes)), lambda figure: _draw_lanes(figure.subplots(), costs, lanes))


def write_rounding_picture(
    costs: LaneCosts, specs: Sequence[str], accuracies: Sequence[RoundedAccuracy], path: Path
) -> None:
    """Energy of lanes against P over what the tasks lose with such products; "exact" stands at the right.

    Raises as `write_lane_picture`.
    """

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        _draw_saving(above, costs, specs)
        _draw_cost(below, accuracies)

    _write(path, (7.0, 5.6), draw)


def _draw_lanes(axes: Any, costs: LaneCosts, lanes: Sequence[LaneCost]) -> None:
    places = range(len(lanes))
    axes.barh(places, [costs.relative_area(lane) for lane in lanes], color=_AREA, height=0.8, label="area")
    energies = [costs.relative_energy(lane) or 0.0 for lane in lanes]
    axes.barh(places, energies, color=[_colour(lane.spec) for lane in lanes], height=0.4, label="energy")
    axes.set_yticks(places, [lane.spec.replace("-v16", "") for lane in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlabel("area (wide) and energy (narrow) for one multiply-accumulate, 8/8 per channel = 1")
    axes.set_title("Lanes: per channel (grey), per vector (blue),\nwith rounded scale products (orange)")
    axes.grid(axis="x", linewidth=0.5, alpha=0.3)
    axes.set_axisbelow(True)


def _draw_saving(axes: Any, costs: LaneCosts, specs: Sequence[str]) -> None:
    for spec in specs:
        points = [
            (_place(lane.spec), energy)
            for lane in costs.lanes
            if lane.spec.split("-p")[0] == spec and (energy := costs.relative_energy(lane)) is not None
        ]
        points.sort()
        heights = [energy for _, energy in points]
        axes.plot([place for place, _ in points], heights, marker="o", label=spec.replace("-v16", ""))
    axes.set_ylabel("energy, 8/8 per channel = 1")
    axes.set_title("What rounding the scale product saves …")
    axes.legend(frameon=False)
    axes.grid(linewidth=0.5, alpha=0.3)


def _draw_cost(axes: Any, accuracies: Sequence[RoundedAccuracy]) -> None:
    for task in accuracies:
        bits = sorted(bits for bits in task.changes if bits < _EXACT)
        drops = [task.changes[one] for one in bits]
        bars = [task.errors[one] for one in bits]
        axes.errorbar(bits, drops, yerr=bars, marker="o", capsize=3, label=f"{task.title} ({task.metric})")
    axes.axhline(0.0, color=_PLAIN, linewidth=0.8)
    axes.set_xlabel("bits P of the rounded scale product")
    axes.set_xticks([*range(2, _EXACT), _EXACT], [*map(str, range(2, _EXACT)), "exact"])
    axes.set_ylabel("change against exact")
    axes.set_title("… and what it costs")
    axes.legend(frameon=False)
    axes.grid(linewidth=0.5, alpha=0.3)


_EXACT: Final = 10


def _place(spec: str) -> int:
    return int(spec.split("-p")[1]) if "-p" in spec else _EXACT


def _colour(spec: str) -> str:
    return _ROUNDED if "-p" in spec else _VECTORS if "-s" in spec else _PLAIN


def _write(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> None:
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "demo", "drawing a picture of lanes") from error
    with matplotlib.rc_context(_STYLE):
        figure = importlib.import_module("matplotlib.figure").Figure(figsize=size, layout="constrained")
        draw(figure)
        file = io.BytesIO()
        is_svg = path.suffix.lower() == ".svg"
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if is_svg else None
        figure.savefig(file, format="svg" if is_svg else "png", dpi=160, facecolor="white", metadata=metadata)
    with replacing(path) as temporary:
        temporary.write_bytes(file.getvalue())
