"""Tables with refined activations and corrected outputs: which cells they change, and under which keys those are."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import vsquant
from vsquant.errors import CalibrationError, SpecError
from vsquant.optimize import ScaleSearch
from vsquant.results import ResultsStore, Table
from vsquant.workflows.options import Calibrators
from vsquant.workflows.refinements import Refinements
from vsquant.workflows.table import run_table
from vsquant.workflows.table_request import TableRequest

TINY = runpy.run_path(str(Path(__file__).parents[1] / "fakes" / "tiny_program.py"))
COLUMNS = ("3/3", "fp32", "per-channel")


def request(**options: Any) -> TableRequest:
    return TableRequest(**{"rows": ("3/3",), "columns": COLUMNS, "calibration_samples": 32, **options})


def changed(first: Table, second: Table) -> set[str]:
    return {
        column
        for row, column in first.cells
        if first.cells[row, column].to_dict() != second.cells[row, column].to_dict()
    }


@pytest.mark.parametrize(
    ("options", "text", "columns"),
    [
        ({"bias_correction": True}, "bias correction", set(COLUMNS)),
        ({"batchnorm_reestimation": True}, "batch-norm re-estimation", set(COLUMNS)),
        ({"vectors": "mse"}, "mse activation ranges", {"3/3"}),
        ({"candidates": 3}, "best-of-three activations", {"3/3"}),
    ],
)
def test_a_refinement_is_of_the_cells_that_it_changes(
    tmp_path: Path, options: dict[str, Any], text: str, columns: set[str]
) -> None:
    task = TINY["TinyTask"]()
    with ResultsStore(tmp_path / "store.sqlite") as store:
        plain = run_table(task, request(), store)
        before = task.evaluations
        refined = run_table(task, request(refinements=Refinements(**options)), store)
        evaluations = task.evaluations
        again = run_table(task, request(), store)
    assert evaluations - before == len(columns) and task.evaluations == evaluations
    assert changed(plain, refined) == columns and not changed(plain, again)
    assert (plain.refinements, refined.refinements) == ("", text)
    assert {refined.cells["3/3", column].method for column in columns} == {f"rtn + {text}"}
    pair = [table.cells["3/3", "per-channel"].candidates for table in (plain, refined)]
    assert pair[0] == pair[1]


def test_a_refined_cell_is_what_quantize_gives(tmp_path: Path) -> None:
    task = TINY["TinyTask"]()
    refinements = Refinements(bias_correction=True, batchnorm_reestimation=True, vectors="mse", candidates=3)
    with ResultsStore(tmp_path / "store.sqlite") as store:
        table = run_table(
            task, request(columns=("3/3",), method=ScaleSearch(), refinements=refinements, gamma="static"), store
        )
    model = vsquant.quantize(
        task.load_model(),
        "w3a3-s3/3",
        calibration=task.calibration_batches(32),
        method="search",
        calibrators=Calibrators(vectors="mse", candidates=3),
        bias_correction=True,
        batchnorm_reestimation=True,
    )
    cell = table.cells["3/3", "3/3"]
    assert cell.scores.value() == task.evaluate(model).value()
    assert cell.method == vsquant.quantization_record(model).method
    named = ("search", "mse activation ranges", "best-of-three activations", "bias correction")
    assert cell.method == " + ".join((*named, "batch-norm re-estimation"))


def test_ranges_of_scales_found_at_run_time_are_not_refined() -> None:
    refinements = Refinements(vectors="mse")
    assert [cell.refinements.vectors for cell in request(gamma="tensor", refinements=refinements).cells()] == [
        "max"
    ] * 3
    assert request(refinements=refinements).needs_rows and not request().needs_rows


def test_refinements_that_cannot_be() -> None:
    with pytest.raises(SpecError, match=r"activation candidates must be 1 in scale mode paper, .* not 3; use requant"):
        request(scale_mode="paper", refinements=Refinements(candidates=3))
    with pytest.raises(SpecError, match="activation candidates must be 1 in scale mode paper"):
        request(columns=("3/3", "3/3:paper"), refinements=Refinements(candidates=3))
    with pytest.raises(CalibrationError, match="candidates must be 1 or 3 vector scales, not 2"):
        Refinements(candidates=2)
