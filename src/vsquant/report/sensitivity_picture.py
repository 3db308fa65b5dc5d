"""A picture of which layer hurts: bars of what each layer costs, in the order of the network."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any, Final

from vsquant.errors import MissingExtraError
from vsquant.files import replacing
from vsquant.results.sensitivity import Sensitivity

_STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vsquant-sensitivity",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
}
_COLOUR: Final = "#1a66b8"
_WORST_COLOUR: Final = "#d55e00"
_WORST: Final = 3
_WIDTH_INCHES: Final = 7.0
_INCHES_A_LAYER: Final = 0.19


def write_sensitivity_picture(found: Sensitivity, candidate: str, path: Path) -> None:
    """Bars of the layers' divergence in one candidate format, as the kind of file that ``path`` ends in (svg, png).

    Raises `MissingExtraError` without matplotlib (extra ``demo``) and `OSError` where ``path`` cannot be written.
    """
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_STYLE):
        height = 1.3 + _INCHES_A_LAYER * len(found.layers)
        figure = importlib.import_module("matplotlib.figure").Figure(
            figsize=(_WIDTH_INCHES, height), layout="constrained"
        )
        _draw(figure.subplots(), found, candidate)
        file = io.BytesIO()
        is_svg = path.suffix.lower() == ".svg"
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type")) if is_svg else None
        figure.savefig(file, format="svg" if is_svg else "png", dpi=160, facecolor="white", metadata=metadata)
    with replacing(path) as temporary:
        temporary.write_bytes(file.getvalue())


def _draw(axes: Any, found: Sensitivity, candidate: str) -> None:
    column = found.index(candidate)
    values = [layer.formats[column].divergence for layer in found.layers]
    worst = {layer.name for layer, _ in found.ranked(candidate)[:_WORST]}
    colours = [_WORST_COLOUR if layer.name in worst else _COLOUR for layer in found.layers]
    places = range(len(found.layers))
    axes.barh(places, values, color=colours, height=0.75)
    axes.set_yticks(places, [layer.name or "model" for layer in found.layers])
    axes.set_ylim(len(found.layers) - 0.4, -0.6)
    axes.set_xlabel("estimated divergence from float with this layer alone quantized (nats a row)")
    axes.set_title(f"{found.model} in {candidate}: which layer hurts")
    axes.grid(axis="x", linewidth=0.5, alpha=0.3)
    axes.set_axisbelow(True)


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "demo", "drawing a picture of the layers") from error
