"""One task's table: formats against scores, in the layout of the VS-Quant tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from vsquant.errors import ShapeError
from vsquant.results.published import PublishedTable
from vsquant.results.records import CellRecord
from vsquant.results.scores import Difference

PER_CHANNEL = "per-channel"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Measured cells of one task in one scale mode, all on the same samples.

    ``rows`` are weight/activation bits (``"4/8"``, ``"4/4U"``); ``columns`` weight/activation scale bits (``"4/8"``),
    ``"fp16"``/``"fp32"`` vector scales, ``"per-channel"``, or a comparison format's name (``"nvfp4"``). A table of
    several methods names them in its columns (see `Column`), and may name the scales in its rows (``"4/4U/4/4"``); the
    columns then name the method alone (``":gptq"``).

    ``cells`` may lack a (row, column): it is shown as empty. ``samples_available`` is how many the task's data hold,
    and ``calibration_samples`` how many the calibrators saw; ``source`` is the origin and licence of data and weights,
    ``caveat`` what the figures must not be compared with. ``refusals`` says of a (row, column) why the network cannot
    be run in that format (a scale beyond fp16, say); it then has no cell. ``method`` is the solver of the weights, with
    its options; a cell whose weights it does not change has the method ``rtn``. ``refinements`` says what else was done
    to the cells that it changes; empty where nothing was.

    Invariants: ``baseline`` is the float network; every key of ``cells`` is a row and a column of the table; every cell
    has the baseline's samples.
    """

    task: str
    title: str
    baseline: CellRecord
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], CellRecord]
    scale_mode: str
    gamma: str
    samples_available: int
    calibration_samples: int
    source: str
    caveat: str = ""
    published: PublishedTable | None = None
    refusals: Mapping[tuple[str, str], str] = field(default_factory=dict)
    method: str = "rtn"
    refinements: str = ""

    def __post_init__(self) -> None:
        if self.baseline.kind != "float":
            raise ShapeError(f"the baseline of a table must be the float network, not a {self.baseline.kind} cell")
        for key, cell in self.cells.items():
            if key[0] not in self.rows or key[1] not in self.columns:
                raise ShapeError(f"a cell must be in a row and a column of its table, not in {key}")
            if cell.scores.count != self.baseline.scores.count:
                raise ShapeError(
                    f"cell {key} must be on the baseline's {self.baseline.scores.count} samples, "
                    f"not on {cell.scores.count}"
                )

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.baseline.scores.metric

    @property
    def unit(self) -> str:
        """Unit of the metric, ``"%"`` or empty."""
        return self.baseline.scores.unit

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger metric is a better network."""
        return self.baseline.scores.higher_is_better

    @property
    def samples(self) -> int:
        """Number of samples every cell was evaluated on."""
        return self.baseline.scores.count

    def cell(self, row: str, column: str) -> CellRecord | None:
        """The measured cell, None where there is none."""
        return self.cells.get((row, column))

    def missing(self, row: str, column: str) -> str:
        """What stands in the place of a cell that is not there."""
        return "refused" if (row, column) in self.refusals else "–"

    @cached_property
    def baseline_standard_error(self) -> float:
        """Standard error of the float network's metric."""
        return self.baseline.scores.standard_error()

    @cached_property
    def drops(self) -> Mapping[tuple[str, str], Difference]:
        """Each cell's metric minus the float network's, with the paired standard error."""
        return {key: cell.scores.difference(self.baseline.scores) for key, cell in self.cells.items()}

    def published_cell(self, row: str, column: str) -> float | None:
        """The published number for this cell, None where there is none."""
        return None if self.published is None else self.published.cell(row, column)
