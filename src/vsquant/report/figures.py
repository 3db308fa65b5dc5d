"""Pictures of a table: the metric of every format, and its drop from float in close-up."""

from __future__ import annotations

import importlib
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vsquant.errors import MissingExtraError
from vsquant.files import replacing
from vsquant.report.numbers import MINUS, difference_text, metric_text
from vsquant.report.wording import column_family, column_title
from vsquant.results import PER_CHANNEL, CellRecord, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK: Final = "#010203"
_PAPER_INK: Final = "#222222"
_WIDTH_INCHES: Final = 4.9
_HEIGHT_INCHES: Final = 4.0
_INTEGER_ENDS: Final = ((0.56, 0.77, 0.93), (0.10, 0.40, 0.72))
_FP_COLOURS: Final = ("#35a79c", "#00796b", "#7cb342", "#33691e")
_PER_CHANNEL_COLOURS: Final = ("#d55e00", "#f2a25c", "#8c3f00")
_COMPARISON_COLOURS: Final = ("#cc79a7", "#8e6bbf", "#b59a00", "#7a5c3e")
_LOG_RATIO: Final = 20.0
_STYLE: Final = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.0,
    "axes.titlelocation": "left",
    "hatch.linewidth": 0.6,
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An SVG drawing without a background, in the colour of the text around it, and what it shows in words."""

    title: str
    svg: str


def draw_pictures(table: Table) -> tuple[Picture, ...]:
    """The metric by bits and format, and the drop from float in close-up, as two SVG drawings.

    Raises `MissingExtraError` without matplotlib (extra ``demo``).
    """
    return tuple(
        Picture(title=title, svg=_svg(table, panel, prefix))
        for title, panel, prefix in (
            (f"{table.title}: {table.metric} by format", _draw_metric, "metric"),
            (f"{table.title}: drop from float by format", _draw_drops, "drop"),
        )
    )


def write_png(table: Table, path: Path) -> None:
    """Both pictures side by side as one PNG file, written whole or not at all.

    Raises `MissingExtraError` without matplotlib (extra ``demo``) and `OSError` where ``path`` cannot be written.
    """
    matplotlib = _matplotlib()
    with matplotlib.rc_context(_STYLE | _ink_style(_PAPER_INK)):
        figure = _figure(2)
        left, right = figure.subplots(1, 2)
        _draw_metric(left, table, _PAPER_INK)
        _draw_drops(right, table, _PAPER_INK)
        _legend(figure, left)
        figure.suptitle(table.title)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=160, facecolor="white")
    with replacing(path) as temporary:
        temporary.write_bytes(file.getvalue())


def column_colours(columns: Sequence[str]) -> dict[str, str]:
    """A colour for each column by its family: blues for integer scales, greens fp, orange per-channel, else others."""
    integers = [column for column in columns if column_family(column) == "integer"]
    others = [column for column in columns if column_family(column) == "comparison"]
    colours = {column: _blue(index, len(integers)) for index, column in enumerate(integers)}
    colours |= {column: _COMPARISON_COLOURS[index % 4] for index, column in enumerate(others)}
    colours |= {"fp16": _FP_COLOURS[0], "fp32": _FP_COLOURS[1], PER_CHANNEL: _PER_CHANNEL_COLOURS[0]}
    for family, shades in (("fp", _FP_COLOURS[2:]), ("per-channel", _PER_CHANNEL_COLOURS[1:])):
        with_method = [column for column in columns if column_family(column) == family and column not in colours]
        colours |= {column: shades[index % len(shades)] for index, column in enumerate(with_method)}
    return {column: colours[column] for column in columns}


def _blue(index: int, count: int) -> str:
    share = index / max(1, count - 1)
    start, end = _INTEGER_ENDS
    mixed = [round(255 * (low + share * (high - low))) for low, high in zip(start, end, strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _matplotlib() -> Any:
    try:
        return importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "demo", "drawing pictures of a table") from error


def _figure(panels: int) -> Figure:
    figure_module = importlib.import_module("matplotlib.figure")
    figure: Figure = figure_module.Figure(figsize=(_WIDTH_INCHES * panels, _HEIGHT_INCHES), layout="constrained")
    return figure


def _ink_style(ink: str) -> dict[str, str]:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor")
    return dict.fromkeys(inked, ink)


def _svg(table: Table, panel: Callable[[Axes, Table, str], None], prefix: str) -> str:
    """One panel as SVG: inked in ``currentColor``, with identifiers that no other drawing of a page has."""
    matplotlib = _matplotlib()
    identity = re.sub(r"[^a-z0-9]+", "-", _named(table, prefix).lower())
    with matplotlib.rc_context(_STYLE | _ink_style(_INK) | {"svg.hashsalt": identity}):
        figure = _figure(1)
        axes = figure.subplots()
        panel(axes, table, _INK)
        _legend(figure, axes)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r'\bid="', f'id="{identity}-', svg)
    return re.sub(r'(url\(|href=")#', rf"\1#{identity}-", svg)


def _named(table: Table, prefix: str) -> str:
    method = "" if table.method == "rtn" else f"-{table.method}"
    refined = "".join(f"-{word}" for word in re.findall(r"\w+", table.refinements))
    return f"{prefix}-{table.task}-{table.scale_mode}-{table.gamma}{method}{refined}"


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9, handlelength=1.4)


def _draw_metric(axes: Axes, table: Table, ink: str) -> None:
    """Bars from zero with the metric's standard error; points on a logarithmic axis where values span decades."""
    values = [cell.scores.value() for cell in (table.baseline, *table.cells.values())]
    finite = [value for value in values if math.isfinite(value)] or [1.0]
    logarithmic = not table.higher_is_better and max(finite) > _LOG_RATIO * max(min(finite), 1e-9)
    for column, places, records in _series(table):
        heights = [_finite(record.scores.value(), math.nan) for _, record in records]
        errors = [_finite(record.scores.standard_error()) for _, record in records]
        colour = column_colours(table.columns)[column]
        label = column_title(column)
        if logarithmic:
            axes.errorbar(places, heights, errors, fmt="o", color=colour, label=label, elinewidth=1)
        else:
            hatch = "////" if column_family(column) == "per-channel" else None
            axes.bar(places, heights, _bar_width(table), yerr=errors, color=colour, label=label, hatch=hatch,
                     edgecolor="white", linewidth=0.3, error_kw={"ecolor": ink, "elinewidth": 0.8})  # fmt: skip
    baseline = table.baseline.scores.value()
    name = f"float {metric_text(baseline, table.unit)}"
    axes.axhline(baseline, color=ink, linestyle="--", linewidth=1, label=name)
    if logarithmic:
        axes.set_yscale("log")
    _label(axes, table, f"{table.metric}{f' ({table.unit})' if table.unit else ''}")


def _draw_drops(axes: Axes, table: Table, ink: str) -> None:
    """Points with paired standard errors, as near to float as vector scales stay; what is beyond is said in figures."""
    low, high = _close_up(table)
    for column, places, records in _series(table):
        colour = column_colours(table.columns)[column]
        drops = [table.drops[row, column] for row, _ in records]
        inside = [index for index, drop in enumerate(drops) if low <= drop.value <= high]
        axes.errorbar(
            [places[index] for index in inside],
            [drops[index].value for index in inside],
            [_finite(drops[index].standard_error) for index in inside],
            fmt="D" if column_family(column) == "per-channel" else "o",
            color=colour,
            label=column_title(column),
            markersize=5,
            elinewidth=1.2,
        )
        for index in set(range(len(drops))) - set(inside):
            _mark_beyond(axes, places[index], difference_text(drops[index], table.unit), colour, table.higher_is_better)
    axes.axhline(0, color=ink, linestyle="--", linewidth=1, label="float")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}".replace("-", MINUS) if value else "0")
    points = " in points" if table.unit == "%" else ""
    _label(axes, table, f"{table.metric} minus float{points}, ± paired standard error")


def _mark_beyond(axes: Axes, place: float, text: str, colour: str, downwards: bool) -> None:
    """An arrow at the edge of the axes with the figure that lies beyond it."""
    edge = 0.015 if downwards else 0.985
    transform = axes.get_xaxis_transform()
    axes.plot([place], [edge], marker="v" if downwards else "^", color=colour, transform=transform, markersize=6)
    axes.text(
        place,
        0.05 if downwards else 0.95,
        text.partition("±")[0],
        color=colour,
        transform=transform,
        ha="center",
        va="bottom" if downwards else "top",
        rotation=90,
        fontsize=9,
        fontweight="bold",
    )


def _close_up(table: Table) -> tuple[float, float]:
    """Limits that hold every cell with vector scales (every cell, if there is none) and zero, with a margin."""
    vector = [drop for (_, column), drop in table.drops.items() if column_family(column) in ("integer", "fp")]
    shown = [drop for drop in vector or table.drops.values() if math.isfinite(drop.value)]
    ends = [0.0]
    for drop in shown:
        error = _finite(drop.standard_error)
        ends += [drop.value - error, drop.value + error]
    margin = 0.12 * (max(ends) - min(ends)) or 1.0
    return min(ends) - margin, max(ends) + margin


def _series(table: Table) -> list[tuple[str, list[float], list[tuple[str, CellRecord]]]]:
    """For each column with cells: its name, where its marks stand along the rows, and its (row, record) pairs."""
    width = _bar_width(table)
    series = []
    for index, column in enumerate(table.columns):
        offset = (index - (len(table.columns) - 1) / 2) * width
        records = [(row, cell) for row in table.rows if (cell := table.cell(row, column)) is not None]
        if records:
            series.append((column, [table.rows.index(row) + offset for row, _ in records], records))
    return series


def _bar_width(table: Table) -> float:
    return 0.84 / max(1, len(table.columns))


def _label(axes: Axes, table: Table, title: str) -> None:
    axes.set_title(title)
    axes.set_xticks(range(len(table.rows)), table.rows)
    axes.set_xlabel("weight/activation bits")
    axes.set_xlim(-0.55, len(table.rows) - 0.45)
    axes.grid(axis="y", linewidth=0.5, alpha=0.3)
    axes.set_axisbelow(True)


def _finite(value: float, otherwise: float = 0.0) -> float:
    return value if math.isfinite(value) else otherwise
