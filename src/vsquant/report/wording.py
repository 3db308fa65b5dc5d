"""What is said about a table in every rendering: its headline, its columns, its calibrators, its words."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vsquant.report.numbers import error_text, metric_text
from vsquant.results import PER_CHANNEL, CellRecord, Column, Difference, Table

ColumnFamily: TypeAlias = Literal["integer", "fp", "per-channel", "comparison"]
"""Integer vector scales, floating-point vector scales, the baseline without them, or another standard's format."""

Severity: TypeAlias = Literal["kept", "slight", "lost"]

_INTEGER_COLUMN: Final = re.compile(r"(\d+|x)/(\d+|x)")
_PERCENTILE: Final = re.compile(r"percentile[^0-9]*([0-9.]+)")
_KEPT: Final = 0.01
_SLIGHT: Final = 0.05

WORDS: Final = (
    ("W/A", "bits of one weight / of one activation; U means unsigned activations, used where they are never negative"),
    (
        "vector",
        "V consecutive elements along the reduction dimension that share one scale; V = 16 unless stated",
    ),
    ("S=4/6", "bits of one vector's scale: 4 for weights, 6 for activations, under one floating-point coarse scale"),
    ("S=fp32", "vector scales kept in floating point, without a coarse scale: what integer scales approximate"),
    (
        "per-channel",
        (
            "the conventional baseline: one floating-point scale per output channel of the weights and one per "
            "activation tensor, with the calibrators that did best on calibration data"
        ),
    ),
    (
        "drop",
        (
            "the cell minus the float network on the same samples, with the standard error of that paired difference: "
            "groups of samples (images, articles, documents) are resampled together, 2000 times"
        ),
    ),
    (
        "scale mode",
        (
            "paper: elements keep the codes found with unrounded scales; requantize: elements are coded again with the "
            "final integer scale, at the same number of bits; search: every integer scale of a weight vector is tried"
        ),
    ),
)


METHOD_WORDS: Final = {
    "paper": "rounding that keeps the codes found with unrounded scales",
    "rtn": "rounding with the scales that are stored",
    "search": "the best of all integer scales for every vector of weights",
    "gptq": "weights make up for the errors of those before them",
    "reconstruct": "learned rounding, block by block",
}


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One row's cell with integer vector scales against its per-channel cell, and their paired difference.

    Of several methods for the same scales it is the last.
    """

    row: str
    column: str
    vector: CellRecord
    per_channel: CellRecord
    difference: Difference


def column_family(column: str) -> ColumnFamily:
    """Which kind of scales a column stands for; one without scales stands for those of the rows, integers."""
    scales = Column.parse(column).scales
    if scales == PER_CHANNEL:
        return "per-channel"
    if scales in ("fp16", "fp32"):
        return "fp"
    return "integer" if not scales or _INTEGER_COLUMN.fullmatch(scales) else "comparison"


def column_title(column: str) -> str:
    """The poster's heading of a column: ``S=4/8``, ``S=fp32 gptq``; names stay names."""
    parsed = Column.parse(column)
    scales = f"S={parsed.scales}" if parsed.scales and column_family(column) in ("integer", "fp") else parsed.scales
    return " ".join(part for part in (scales, parsed.method) if part) or "per-vector"


def rows_title(table: Table) -> str:
    """The heading of the rows' names: weight/activation bits, and the bits of their scales where rows say them."""
    return "W/A/Sw/Sa" if any(row.count("/") > 1 for row in table.rows) else "W/A"


def relative_loss(table: Table, difference: Difference) -> float:
    """How much worse than float a cell is, as a share of the float metric; negative where it is better."""
    worse = -difference.value if table.higher_is_better else difference.value
    return worse / abs(table.baseline.scores.value() or 1.0)


def severity(table: Table, difference: Difference) -> Severity:
    """``kept`` within 1 % of the float metric, ``slight`` within 5 %, else ``lost``."""
    loss = relative_loss(table, difference)
    return "kept" if loss <= _KEPT else "slight" if loss <= _SLIGHT else "lost"


def calibrator_text(record: CellRecord) -> str:
    """The chosen calibrators, weights before activations: ``mse·p99.99``; one name where both are the same."""
    names = [name for name in (record.weight_calibrator, record.activation_calibrator) if name is not None]
    short = [_PERCENTILE.sub(r"p\1", name) for name in names]
    return "·".join(dict.fromkeys(short))


def per_channel_note(table: Table) -> str:
    """How the per-channel column's calibrators were chosen; empty without such a column."""
    cells = [cell for (_, column), cell in table.cells.items() if column == PER_CHANNEL]
    if not any(calibrator_text(cell) for cell in cells):
        return ""
    tried = max(len(cell.candidates) for cell in cells)
    criterion = next((cell.criterion for cell in cells if cell.criterion), "")
    best = f", the best of {tried}" if tried else ""
    by = f" by {criterion}" if criterion else ""
    return f"per-channel names its calibrators (weights·activations){best}{by}, chosen on calibration data"


def notes(table: Table) -> list[str]:
    """What must be said beneath a table: its calibrators, and for each column with refused cells the first reason."""
    calibrators = per_channel_note(table)
    reasons: dict[str, str] = {}
    for (_, column), reason in table.refusals.items():
        reasons.setdefault(column, reason)
    refusals = [f"{column_title(column)} refused: {reason}" for column, reason in reasons.items()]
    said = [f"{text}." for text in (calibrators, methods_note(table)) if text]
    return said + refusals


def methods_note(table: Table) -> str:
    """What the methods in the columns' names are; empty where they name none."""
    named = {Column.parse(column).method.partition(":")[0] for column in table.columns}
    return "; ".join(f"{name}: {meaning}" for name, meaning in METHOD_WORDS.items() if name in named)


def contrast(table: Table) -> Contrast | None:
    """The row where integer vector scales (the widest such column) gain most on per-channel, if any row has both."""
    found = [made for row in table.rows if (made := _row_contrast(table, row)) is not None]
    sign = 1 if table.higher_is_better else -1
    return max(found, key=lambda made: sign * made.difference.value, default=None)


def headline(table: Table) -> str:
    """The table in one sentence, said only as strongly as the paired standard error allows."""
    found = contrast(table)
    reference = metric_text(table.baseline.scores.value(), table.unit)
    if found is None:
        return f"{table.title}: float {table.metric} {reference}"
    sign = 1 if table.higher_is_better else -1
    gain, error = sign * found.difference.value, found.difference.standard_error
    if not (gain == math.inf or gain > 2 * error):
        return (
            f"On {table.title} no row tells {column_title(found.column)} from per-channel scales "
            "beyond two standard errors"
        )
    vector = metric_text(found.vector.scores.value(), table.unit)
    channel = metric_text(found.per_channel.scores.value(), table.unit)
    unit = f" {table.unit}" if table.unit else ""
    where = f"At {found.row} bits, per-vector scales ({column_title(found.column)})"
    if table.higher_is_better:
        return f"{where} keep {vector} of float's {reference}{unit} {table.metric}; per-channel scales keep {channel}"
    return f"{where} reach {table.metric} {vector} where float has {reference}; per-channel scales reach {channel}"


def float_text(table: Table) -> str:
    """``float 86.9±0.3 (86.9)``: the measured baseline, its standard error, and the published one if any."""
    value = table.baseline.scores.value()
    text = f"float {metric_text(value, table.unit)}{error_text(table.baseline_standard_error, table.unit, value)}"
    return text if table.published is None else f"{text} ({table.published.float_score:.1f})"


def sample_text(table: Table) -> str:
    """How many samples were evaluated, of how many, and how many calibrated."""
    whole = table.samples == table.samples_available
    counted = f"all {table.samples:,}" if whole else f"{table.samples:,} of {table.samples_available:,}"
    return f"{counted} samples, {table.calibration_samples:,} for calibration"


def setting_text(table: Table) -> str:
    """Method, where it is not rounding, scale mode, where the activations' coarse scale comes from, and what else."""
    refined = f", {table.refinements}" if table.refinements else ""
    if all(Column.parse(column).method or column_family(column) != "integer" for column in table.columns):
        return f"methods by column, γ {table.gamma}{refined}"
    method = "" if table.method == "rtn" else f"method {table.method}, "
    return f"{method}scale mode {table.scale_mode}, γ {table.gamma}{refined}"


def _row_contrast(table: Table, row: str) -> Contrast | None:
    widths = {
        column: (sum(int(bits) for bits in scales.split("/")), place if Column.parse(column).method else 0)
        for place, column in enumerate(table.columns)
        if column_family(column) == "integer"
        and "x" not in (scales := Column.parse(column).scales or row.split("/", 2)[2])
        and table.cell(row, column) is not None
    }
    per_channel = table.cell(row, PER_CHANNEL)
    if not widths or per_channel is None:
        return None
    column = max(widths, key=lambda name: widths[name])
    vector = table.cells[row, column]
    difference = vector.scores.difference(per_channel.scores)
    return Contrast(row=row, column=column, vector=vector, per_channel=per_channel, difference=difference)
