"""The roofline: what layers reach, against what the machine's memory and multipliers allow."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vsquant.errors import MissingExtraError
from vsquant.files import replacing
from vsquant.results.speed import CaseSpeed, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK: Final = "#222222"
_OURS: Final = "#1f6fb2"
_PEERS: Final = "#d55e00"
_ROOF: Final = "#444444"
_LABELS: Final = {"avx512_vnni": "AVX-512 VNNI", "avx2_vector_scaled": "AVX2, scaled w4",
                  "avx2": "AVX2, ordinary int8", "neon_dotprod": "NEON dot products"}  # fmt: skip
_MARKS: Final = {"Linear, 1 row": "o", "Linear, 4 rows": "s", "Linear, 16 rows": "D", "Linear, 384 rows": "^",
                 "Conv 1×1": "P", "Conv 3×3": "X"}  # fmt: skip
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
        axes.set_xscale("log")
        axes.set_yscale("log")
        _draw_roof(axes, rates, layers)
        _draw_points(axes, layers)
        _label(axes, layers)
        axes.legend(loc="lower right", frameon=False, fontsize=9)
        file = io.StringIO()
        figure.savefig(file, format="svg", facecolor="white", metadata={"Date": None})
    with replacing(path) as temporary:
        temporary.write_text(file.getvalue(), encoding="utf-8")
    return True


def intensity(speed: CaseSpeed) -> float:
    """Operations a byte."""
    return speed.operations / max(1, speed.touched_bytes)


def _rates(layers: Sequence[CaseSpeed]) -> Mapping[str, float]:
    """The highest ceilings that any of the cases has seen."""
    rates: dict[str, float] = {}
    for speed in layers:
        for name, rate in speed.provenance.get("ceilings", {}).get("1", {}).items():
            rates[name] = max(rate, rates.get(name, 0.0))
    return rates


def _draw_roof(axes: Axes, rates: Mapping[str, float], layers: Sequence[CaseSpeed]) -> None:
    low = min(map(intensity, layers)) / 2
    high = max(map(intensity, layers)) * 1.6
    bandwidth = rates["read_bytes"]
    computing = {name: rate for name, rate in rates.items() if name != "read_bytes"}
    top = max(computing.values())
    labelled = low**0.3 * (top / bandwidth) ** 0.7  # far enough right to clear the axis
    axes.plot([low, top / bandwidth], [low * bandwidth, top], color=_ROOF, linewidth=1.6)
    axes.annotate(f"memory {bandwidth:.0f} GB/s", (labelled, labelled * bandwidth), xytext=(-6, 6),
                  textcoords="offset points", color=_ROOF, fontsize=9, ha="right", va="bottom",
                  annotation_clip=False)  # fmt: skip
    for name, rate in computing.items():
        strong = rate == top
        axes.plot([rate / bandwidth, high], [rate, rate], color=_ROOF, linewidth=1.6 if strong else 0.8,
                  linestyle="-" if strong else (0, (5, 4)), zorder=1)  # fmt: skip
        text = f"{_LABELS.get(name, name)}\n{rate:.0f} Gop/s"
        axes.annotate(text, (high, rate), xytext=(6, 0), ha="left", va="center", textcoords="offset points",
                      color=_ROOF, fontsize=9)  # fmt: skip
    axes.set_xlim(low, high)


def _draw_points(axes: Axes, layers: Sequence[CaseSpeed]) -> None:
    for kind, mark in _MARKS.items():
        label: str | None = kind
        for speed in (speed for speed in layers if _kind(speed) == kind):
            peer = speed.best_peer(1)
            ours = _rate(speed, next(row for row in speed.rows if row.ours))
            theirs = _rate(speed, peer) if peer else None
            place = intensity(speed)
            if ours and theirs:
                axes.plot(
                    [place, place], [theirs, ours], color=_OURS if ours > theirs else _PEERS, linewidth=1.0, alpha=0.5
                )
            for rate, colour in ((theirs, _PEERS), (ours, _OURS)):
                if rate:
                    axes.plot([place], [rate], mark, color=colour, markersize=7, markeredgecolor="white",
                              markeredgewidth=0.6, label=label if colour == _OURS else None, zorder=3)  # fmt: skip
                    label = None if colour == _OURS else label
    axes.plot([], [], "o", color=_PEERS, label="best peer, same work")


def _kind(speed: CaseSpeed) -> str:
    """``Linear, 16 rows`` or ``Conv 3×3``."""
    if speed.group == "conv":
        return " ".join(speed.title.split()[:2])
    return f"Linear, {speed.title.split(', ')[1]}"


def _rate(speed: CaseSpeed, row: Row) -> float | None:
    """1e9 operations a second on one thread."""
    timing = row.timing(1)
    return speed.operations / timing.median_seconds / 1e9 if timing else None


def _label(axes: Axes, layers: Sequence[CaseSpeed]) -> None:
    ticker = importlib.import_module("matplotlib.ticker")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(ticker.NullFormatter())
    axes.set_xlabel("operations a byte (weights, activations and results once each)")
    axes.set_ylabel("int8 Gop/s, one thread")
    machine = layers[0].provenance["machine"]["processor"]
    spec = next(row for row in layers[0].rows if row.ours).name
    axes.set_title(f"{spec.removesuffix('-token')} beside the best peer, {machine}", loc="left", fontsize=11)
    axes.grid(which="major", linewidth=0.5, alpha=0.3)
    axes.set_axisbelow(True)


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "demo", "drawing a roofline") from error
