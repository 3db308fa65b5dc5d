"""The roofline: what layers reach, against what the machine's memory and multipliers allow."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vsquant.errors import MissingExtraError
from vsquant.files import replacing
from vsquant.results.speed import CaseSpeed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK: Final = "#222222"
_OURS: Final = "#1f6fb2"
_PEERS: Final = "#d55e00"
_ROOF: Final = "#444444"
_LABELS: Final = {"avx512_vnni": "AVX-512 VNNI", "avx2_vector_scaled": "AVX2, 4-bit weights with vector scales",
                  "avx2": "AVX2, ordinary int8", "neon_dotprod": "NEON dot products"}  # fmt: skip
_MARKS: Final = (("linear", "1 row", "o"), ("linear", "4 rows", "s"), ("linear", "16 rows", "D"),
                 ("linear", "384 rows", "^"), ("conv", "Conv 1×1", "P"), ("conv", "Conv 3×3", "X"))  # fmt: skip
_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vsquant-roofline",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_roofline(speeds: Sequence[CaseSpeed], path: Path) -> bool:
    """Draw all layers that were measured on one thread as SVG; False where there is nothing to draw.

    The horizontal axis is operations for each byte of weights, activations and results, each counted once; a point of
    ours and the best peer's of the same case lie above each other, since both do the same work.

    Raises `MissingExtraError` without matplotlib (extra ``demo``) and `OSError` where ``path`` cannot be written.
    """
    layers = [speed for speed in speeds if speed.operations and 1 in speed.threads]
    rates = _rates(layers)
    if not layers or not rates:
        return False
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_STYLE):
        figure = importlib.import_module("matplotlib.figure").Figure(figsize=(9.0, 5.4), layout="constrained")
        axes = figure.subplots()
        _draw_roof(axes, rates, layers)
        _draw_points(axes, layers)
        _label(axes, layers)
        figure.legend(*_legend(axes), loc="outside right upper", frameon=False, fontsize=9)
        file = io.StringIO()
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    with replacing(path) as temporary:
        temporary.write_text(file.getvalue(), encoding="utf-8")
    return True


def intensity(speed: CaseSpeed) -> float:
    """Operations a byte."""
    return speed.operations / max(1, speed.touched_bytes)


def _rates(layers: Sequence[CaseSpeed]) -> Mapping[str, float]:
    for speed in layers:
        rates: Mapping[str, float] = speed.provenance.get("ceilings", {}).get("1", {})
        if rates:
            return rates
    return {}


def _draw_roof(axes: Axes, rates: Mapping[str, float], layers: Sequence[CaseSpeed]) -> None:
    low = min(map(intensity, layers)) / 2
    high = max(map(intensity, layers)) * 2.5
    bandwidth = rates["read_bytes"]
    top = max(rate for name, rate in rates.items() if name != "read_bytes")
    axes.plot([low, top / bandwidth], [low * bandwidth, top], color=_ROOF, linewidth=1.6)
    axes.annotate(
        f"memory {bandwidth:.0f} GB/s", (low * 1.15, low * 1.15 * bandwidth), xytext=(0, 8),
        textcoords="offset points", rotation=0, color=_ROOF, fontsize=9, ha="left", va="bottom",
    )  # fmt: skip
    for name, rate in rates.items():
        if name == "read_bytes":
            continue
        axes.plot([rate / bandwidth, high], [rate, rate], color=_ROOF, linewidth=1.6 if rate == top else 0.9,
                  linestyle="-" if rate == top else "--")  # fmt: skip
        axes.annotate(f"{_LABELS.get(name, name)} {rate:.0f}", (high, rate), xytext=(0, 3), ha="right",
                      textcoords="offset points", color=_ROOF, fontsize=9)  # fmt: skip
    axes.set_xlim(low, high)


def _draw_points(axes: Axes, layers: Sequence[CaseSpeed]) -> None:
    for group, words, mark in _MARKS:
        chosen = [speed for speed in layers if speed.group == group and words in speed.title.replace("11 rows", "")]
        chosen = [speed for speed in chosen if words != "4 rows" or "384 rows" not in speed.title]
        first = True
        for speed in chosen:
            ours = next(row for row in speed.rows if row.ours).timing(1)
            peer = speed.best_peer(1)
            theirs = peer.timing(1) if peer else None
            place = intensity(speed)
            if ours and theirs:
                ends = [speed.operations / timing.median_seconds / 1e9 for timing in (theirs, ours)]
                axes.plot([place, place], ends, color=_OURS, linewidth=0.8, alpha=0.5)
            for timing, colour, name in ((theirs, _PEERS, None), (ours, _OURS, words if first else None)):
                if timing:
                    rate = speed.operations / timing.median_seconds / 1e9
                    axes.plot([place], [rate], mark, color=colour, markersize=6.5, markeredgecolor="white",
                              markeredgewidth=0.6, label=name)  # fmt: skip
                    first = first and timing is not ours
    axes.plot([], [], "o", color=_PEERS, label="best peer, same work")


def _label(axes: Axes, layers: Sequence[CaseSpeed]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations a byte (weights, activations and results once each)")
    axes.set_ylabel("int8 Gop/s, one thread")
    machine = layers[0].provenance["machine"]["processor"]
    spec = next(row for row in layers[0].rows if row.ours).name
    axes.set_title(f"{spec.removesuffix('-token')} on {machine}", loc="left", fontsize=11)
    axes.grid(which="major", linewidth=0.5, alpha=0.3)
    axes.set_axisbelow(True)


def _legend(axes: Axes) -> tuple[list[Any], list[str]]:
    handles, labels = axes.get_legend_handles_labels()
    return list(handles), list(labels)


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "demo", "drawing a roofline") from error
