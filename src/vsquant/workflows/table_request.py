"""Which table: its rows and columns, and the options that all its cells share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from vsquant.errors import SpecError
from vsquant.optimize import Method, Rounding, ScaleSearch, settle
from vsquant.results.table import PER_CHANNEL
from vsquant.spec import COMPARISON_FORMATS, DEFAULT_VECTOR_SIZE, GammaMode, LayerSpec, ScaleMode
from vsquant.tasks.base import Task
from vsquant.transform.recipe import FirstLast

DEFAULT_ROWS: Final = ("3/8", "4/8", "6/8", "8/8")
DEFAULT_COLUMNS: Final = ("4/8", "4/10", "6/8", "6/10", "fp16", "fp32", PER_CHANNEL)
IMAGE_ROWS: Final = ("4/4U", "6/4U", "6/6U", "8/8U")
IMAGE_COLUMNS: Final = ("3/4", "3/6", "4/4", "4/6", "6/4", "6/6", "fp32", PER_CHANNEL)
_SIDE: Final = r"(?:[2-9]|10|fp16|fp32|x)"
_COLUMN: Final = re.compile(rf"fp16|fp32|{_SIDE}/{_SIDE}")


@dataclass(frozen=True, kw_only=True)
class TableRequest:
    """Which table: rows are weight/activation bits, columns as in `Table`; all cells share the other options.

    ``method`` is the solver of the weights, rounding where it is not given. ``limit`` evaluates a fixed nested subset;
    ``selection_samples`` of the ``calibration_samples`` (all, if they are fewer) choose the per-channel calibrators.
    """

    rows: tuple[str, ...] = DEFAULT_ROWS
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    scale_mode: ScaleMode = "requantize"
    method: Method | None = None
    gamma: GammaMode = "static"
    vector_size: int = DEFAULT_VECTOR_SIZE
    product_bits: int | None = None
    first_last: FirstLast = "same"
    limit: int | None = None
    calibration_samples: int = 128
    selection_samples: int = 64

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise SpecError("a table must have at least one row and one column, such as rows 4/8 and scales 4/8")
        list(self.cells())
        self.settled(self.spec(self.rows[0], self.columns[0]))

    def settled(self, spec: LayerSpec) -> tuple[Method, ScaleMode]:
        """The method and the scale mode of a cell: rounding where the method changes none of its weights.

        Raises:
            SpecError: the method and the scale mode of the request contradict each other.
        """
        method, scale_mode = settle(self.method, self.scale_mode)
        if isinstance(method, Rounding) or method.changes(spec.weight):
            return method, scale_mode
        return Rounding(), "requantize"

    @property
    def needs_inputs(self) -> bool:
        """Whether the method must see the inputs of the layers."""
        return isinstance(self.method, ScaleSearch) and self.method.needs_inputs

    @property
    def selecting(self) -> int:
        """How many calibration samples choose the per-channel calibrators."""
        return min(self.selection_samples, self.calibration_samples)

    def spec(self, row: str, column: str) -> LayerSpec:
        """The layer spec of one cell.

        Raises:
            SpecError: row and column do not make a spec; the message shows what they must be.
        """
        if column in COMPARISON_FORMATS:
            return LayerSpec.parse(column)
        if not _COLUMN.fullmatch(column) and column != PER_CHANNEL:
            names = ", ".join((*COMPARISON_FORMATS, PER_CHANNEL))
            raise SpecError(
                f"a column must be weight/activation scale bits (2 to 10, fp16, fp32 or x) such as 4/8, or one of "
                f"fp16, fp32, {names}, not {column!r}"
            )
        weight_bits, slash, activation_bits = row.partition("/")
        if not slash:
            raise SpecError(f"a row must be weight/activation bits such as 4/8 or 4/4U, not {row!r}")
        text = f"w{weight_bits}a{activation_bits.lower()}"
        if column != PER_CHANNEL:
            scales = f"{column}/{column}" if column in ("fp16", "fp32") else column
            text += f"-s{scales}-v{self.vector_size}"
            text += f"-p{self.product_bits}" if self.product_bits is not None and "fp" not in column else ""
        has_gamma = "fp" not in column and activation_bits != "16"
        return LayerSpec.parse(text + (f"-{self.gamma}" if has_gamma else ""))

    def cells(self) -> Iterator[tuple[str, str, LayerSpec]]:
        """Every cell as (row, column, spec); a comparison format has one cell, in the row of its own bits.

        Raises:
            SpecError: a row or column is malformed.
        """
        for column in self.columns:
            rows = (_comparison_row(column, self.rows),) if column in COMPARISON_FORMATS else self.rows
            for row in rows:
                yield row, column, self.spec(row, column)

    @property
    def all_rows(self) -> tuple[str, ...]:
        """The rows, and after them those that only comparison formats have."""
        return tuple(dict.fromkeys((*self.rows, *(row for row, _, _ in self.cells()))))


def default_layout(task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rows and columns that suit a task: its own, or those of the published table of its kind."""
    if task.rows and task.columns:
        return task.rows, task.columns
    return (IMAGE_ROWS, IMAGE_COLUMNS) if task.metric == "top-1" else (DEFAULT_ROWS, DEFAULT_COLUMNS)


def _comparison_row(name: str, rows: Sequence[str]) -> str:
    """The row of a comparison format: the one of its bits among ``rows``, else one of its own."""
    spec = LayerSpec.parse(name)
    bits = f"{spec.weight.bits}/{spec.activation.bits if spec.activation else 16}"
    return next((row for row in rows if row.rstrip("uU") == bits), bits)
