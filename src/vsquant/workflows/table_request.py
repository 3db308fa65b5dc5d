"""Which table: its rows and columns, and the options that all its cells share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from vsquant.errors import SpecError
from vsquant.optimize import Method, Rounding, ScaleSearch, parse_method, settle
from vsquant.results.columns import Column
from vsquant.results.table import PER_CHANNEL
from vsquant.spec import COMPARISON_FORMATS, DEFAULT_VECTOR_SIZE, GammaMode, LayerSpec, ScaleMode
from vsquant.tasks.base import Task
from vsquant.transform.recipe import FirstLast
from vsquant.workflows.refinements import Refinements

DEFAULT_ROWS: Final = ("3/8", "4/8", "6/8", "8/8")
DEFAULT_COLUMNS: Final = ("4/8", "4/10", "6/8", "6/10", "fp16", "fp32", PER_CHANNEL)
IMAGE_ROWS: Final = ("4/4U", "6/4U", "6/6U", "8/8U")
IMAGE_COLUMNS: Final = ("3/4", "3/6", "4/4", "4/6", "6/4", "6/6", "fp32", PER_CHANNEL)
PAPER: Final = "paper"
"""Names in a column what is otherwise scale mode ``paper`` of method ``rtn``."""
_SIDE: Final = r"(?:[2-9]|10|fp16|fp32|x)"
_COLUMN: Final = re.compile(rf"fp16|fp32|{_SIDE}/{_SIDE}")


@dataclass(frozen=True, kw_only=True)
class CellRequest:
    """One cell of a table: where it stands, the layer spec, and how it is quantized.

    ``refinements`` are those that change anything in the cell.
    """

    row: str
    column: str
    spec: LayerSpec
    method: Method
    scale_mode: ScaleMode
    refinements: Refinements


@dataclass(frozen=True, kw_only=True)
class TableRequest:
    """Which table: rows are weight/activation bits, columns as in `Table`; all cells share the other options.

    ``method`` is the solver of the weights, rounding where it is not given; a column may name its own, and a row its
    own scales (see `Column`). ``refinements`` go with any method. ``limit`` evaluates a fixed nested subset.
    ``calibration_draw`` says which of the disjoint sets of ``calibration_samples``; ``selection_samples`` of them (all,
    if they are fewer) choose the per-channel calibrators.
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
    calibration_draw: int = 0
    selection_samples: int = 64
    refinements: Refinements = field(default_factory=Refinements)

    def __post_init__(self) -> None:
        if not self.rows or not self.columns:
            raise SpecError("a table must have at least one row and one column, such as rows 4/8 and scales 4/8")
        list(self.cells())

    def _settled(self, spec: LayerSpec, named: str) -> tuple[Method, ScaleMode]:
        """The method and the scale mode of a cell: rounding where the method changes none of its weights.

        Raises:
            SpecError: there is no method ``named``, or those of the request contradict each other.
        """
        if named == PAPER:
            return Rounding(), "paper"
        method, scale_mode = (
            settle(parse_method(named), "requantize") if named else settle(self.method, self.scale_mode)
        )
        if isinstance(method, Rounding) or method.changes(spec.weight):
            return method, scale_mode
        return Rounding(), "requantize"

    @property
    def needs_inputs(self) -> bool:
        """Whether the method must see the inputs of the layers."""
        return any(isinstance(cell.method, ScaleSearch) and cell.method.needs_inputs for cell in self.cells())

    @property
    def needs_rows(self) -> bool:
        """Whether activation ranges are chosen on rows of the layers' inputs."""
        return any(cell.refinements.vectors == "mse" for cell in self.cells())

    @property
    def selecting(self) -> int:
        """How many calibration samples choose the per-channel calibrators."""
        return min(self.selection_samples, self.calibration_samples)

    def spec(self, row: str, column: str) -> LayerSpec:
        """The layer spec of one cell.

        Raises:
            SpecError: row and column do not make a spec; the message shows what they must be.
        """
        scales = Column.parse(column).scales
        if scales in COMPARISON_FORMATS:
            return LayerSpec.parse(scales)
        bits, own_scales = _row_parts(row)
        _require_bits(row, bits)
        scales = _joined(scales, own_scales, row=row, column=column)
        weight_bits, activation_bits = bits
        text = f"w{weight_bits}a{activation_bits.lower()}"
        if scales != PER_CHANNEL:
            text += f"-s{scales}/{scales}" if scales in ("fp16", "fp32") else f"-s{scales}"
            text += f"-v{self.vector_size}"
            text += f"-p{self.product_bits}" if self.product_bits is not None and "fp" not in scales else ""
        has_gamma = "fp" not in scales and activation_bits != "16"
        return LayerSpec.parse(text + (f"-{self.gamma}" if has_gamma else ""))

    def cells(self) -> Iterator[CellRequest]:
        """Every cell, column by column; a comparison format has one, in the row of its own bits.

        Raises:
            SpecError: a row or column is malformed, names no method, or has one that forbids the refinements.
        """
        for name in self.columns:
            column = Column.parse(name)
            comparison = column.scales in COMPARISON_FORMATS
            for row in (_comparison_row(column.scales, self.rows),) if comparison else self.rows:
                spec = self.spec(row, name)
                method, scale_mode = self._settled(spec, column.method)
                yield CellRequest(
                    row=row,
                    column=name,
                    spec=spec,
                    method=method,
                    scale_mode=scale_mode,
                    refinements=self.refinements.in_force(spec, scale_mode),
                )

    @property
    def all_rows(self) -> tuple[str, ...]:
        """The rows, and after them those that only comparison formats have."""
        return tuple(dict.fromkeys((*self.rows, *(cell.row for cell in self.cells()))))


def has_own_scales(rows: Sequence[str]) -> bool:
    """Whether any row names its scales, as ``4/4U/4/6`` does."""
    return any(_row_parts(row)[1] for row in rows)


def with_methods(columns: Sequence[str], methods: Sequence[str], *, row: str) -> tuple[str, ...]:
    """Every column once for each of ``methods`` that gives it weights of its own, such as ``4/8:paper, 4/8:gptq``.

    The method ``rtn`` goes unnamed where ``paper`` would be the same; comparison formats have no other. ``row`` is any
    row of the table.

    Raises:
        SpecError: a column or a method is malformed.
    """
    found: list[str] = []
    for column in columns:
        if column in COMPARISON_FORMATS:
            found.append(column)
            continue
        weight = TableRequest(rows=(row,), columns=(column,)).spec(row, column).weight
        found += [column] if not weight.two_level else []
        for method in methods:
            changes = method not in (PAPER, Rounding.name) and parse_method(method).changes(weight)
            found += [f"{column}:{method}"] if weight.two_level or changes else []
    return tuple(dict.fromkeys(found))


def default_layout(task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rows and columns that suit a task: its own, or those of the published table of its kind."""
    if task.rows and task.columns:
        return task.rows, task.columns
    return (IMAGE_ROWS, IMAGE_COLUMNS) if task.metric == "top-1" else (DEFAULT_ROWS, DEFAULT_COLUMNS)


def _comparison_row(name: str, rows: Sequence[str]) -> str:
    """The row of a comparison format: the one of its bits among ``rows``, else one of its own."""
    spec = LayerSpec.parse(name)
    bits = (str(spec.weight.bits), str(spec.activation.bits if spec.activation else 16))
    return next((row for row in rows if _row_parts(row.upper().replace("U", ""))[0] == bits), "/".join(bits))


def _row_parts(row: str) -> tuple[tuple[str, str], str]:
    """A row's weight and activation bits, and its own scales; empty where it has none."""
    parts = row.split("/")
    if len(parts) not in (2, 4):
        raise SpecError(
            f"a row must be weight/activation bits such as 4/8 or 4/4U, or with their scale bits 4/4U/4/6, not {row!r}"
        )
    return (parts[0], parts[1]), "/".join(parts[2:])


def _require_bits(row: str, bits: tuple[str, str]) -> None:
    if not re.fullmatch("[2-8]", bits[0]) or not re.fullmatch("[2-8]U?|16", bits[1].upper()):
        raise SpecError(
            f"a row must be 2 to 8 weight bits / 2 to 8 activation bits (U: unsigned where possible; or 16, floating "
            f"point), such as 4/8 or 4/4U, not {row!r}"
        )


def _joined(scales: str, own: str, *, row: str, column: str) -> str:
    """The scales of a cell: those of its column, or of its row; raises `SpecError` for both, none or malformed ones."""
    if not scales and not own:
        raise SpecError(f"a row must name its scales, such as 4/4U/4/6, where a column names none, not {row!r}")
    if own and scales and scales not in ("fp16", "fp32", PER_CHANNEL):
        raise SpecError(f"a column must name no scales where rows name theirs ({row}), not {column!r}")
    found = scales or own
    if not _COLUMN.fullmatch(found) and found != PER_CHANNEL:
        names = ", ".join((*COMPARISON_FORMATS, PER_CHANNEL))
        raise SpecError(
            f"a column must be weight/activation scale bits (2 to 10, fp16, fp32 or x) such as 4/8, or one of "
            f"fp16, fp32, {names}, not {found!r}"
        )
    return found
