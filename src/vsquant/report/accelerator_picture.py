"""A picture of what networks cost on an accelerator: energy by component, stacked, beside 8/8 per-channel."""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from vsquant.errors import MissingExtraError
from vsquant.files import replacing
from vsquant.results.accelerator import COMPONENTS, CostComparison, NetworkCost

_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vsquant-accelerator",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}
# Okabe and Ito's colours, told apart without red and green; lanes and their sums warm, memories cool.
_COLOURS: Final = ("#d55e00", "#e69f00", "#0072b2", "#56b4e9", "#f0e442", "#cc79a7", "#009e73", "#999999")
_INCHES_A_BAR: Final = 0.34
_INCHES_AROUND: Final = 1.15


def write_cost_picture(found: Sequence[CostComparison], path: Path) -> None:
    """A group of bars for each network, in shares of its energy at 8/8 per-channel, as ``path`` ends (svg, png).

    Raises `MissingExtraError` without matplotlib (extra ``demo``) and `OSError` where ``path`` cannot be written.
    """
    matplotlib = _matplotlib()
    networks = list(dict.fromkeys(each.cost.network for each in found))
    with matplotlib.rc_context(_STYLE):
        bars = len(found) + len(networks)
        height = _INCHES_AROUND + _INCHES_A_BAR * (bars + len(networks))
        figure = importlib.import_module("matplotlib.figure").Figure(figsize=(7.6, height), layout="constrained")
        _draw(figure.subplots(), found, networks)
        file = io.BytesIO()
        is_svg = path.suffix.lower() == ".svg"
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if is_svg else None
        figure.savefig(file, format="svg" if is_svg else "png", dpi=160, facecolor="white", metadata=metadata)
    with replacing(path) as temporary:
        temporary.write_bytes(file.getvalue())


def _draw(axes: Any, found: Sequence[CostComparison], networks: Sequence[str]) -> None:
    place, places, names = 0.0, [], []
    for network in networks:
        group = [each for each in found if each.cost.network == network]
        for cost in (group[0].baseline, *(each.cost for each in group)):
            _bar(axes, place, cost, group[0].baseline.total_pj())
            places.append(place)
            names.append(f"{network}  {cost.spec.replace('-v16', '')}")
            place += 1
        place += 0.6
    axes.set_yticks(places, names)
    axes.set_ylim(place - 0.9, -0.7)
    axes.margins(x=0.08)
    axes.set_xlabel("energy of an inference, as a share of that at 8/8 per-channel")
    axes.set_title(f"Where the energy goes on {found[0].cost.accelerator}")
    handles = [axes.barh(0, 0, color=colour, label=name) for name, colour in zip(COMPONENTS, _COLOURS, strict=True)]
    axes.figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)


def _bar(axes: Any, place: float, cost: NetworkCost, whole: float) -> None:
    left = 0.0
    for name, colour in zip(COMPONENTS, _COLOURS, strict=True):
        share = cost.energy_pj()[name] / whole
        axes.barh(place, share, left=left, color=colour, height=0.8)
        left += share
    axes.text(left + 0.01, place, f"{left:.2f}", va="center")


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "demo", "drawing a picture") from error
