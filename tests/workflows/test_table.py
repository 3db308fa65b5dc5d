"""A table is the same however often it was stopped, and nothing in it is computed twice."""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from vsquant.calibrate import CALIBRATORS
from vsquant.errors import DataError, SpecError
from vsquant.optimize import ErrorFeedback, ScaleSearch
from vsquant.results import ResultsStore
from vsquant.results.store import content_key
from vsquant.workflows.table import CRITERION, run_table
from vsquant.workflows.table_request import TableRequest, default_layout, has_own_scales, with_methods

PROGRAM = Path(__file__).parents[1] / "fakes" / "tiny_program.py"
TINY = runpy.run_path(str(PROGRAM))
ROWS = ("3/4U", "8/8")
COLUMNS = ("4/6", "fp32", "per-channel", "nvfp4")


def request(**options: Any) -> TableRequest:
    return TableRequest(**{"rows": ROWS, "columns": COLUMNS, "calibration_samples": 32, **options})


def run_program(folder: Path, *, kill_at: int = 0, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TINY_LOG": str(folder / "log"), "TINY_KILL_AT": str(kill_at), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), "table", "tiny", "--json", "--store", str(folder / "store.sqlite")]
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)


def without_times(text: str) -> Any:
    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items() if key not in ("seconds", "created")}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return plain(json.loads(text))


def test_a_table_killed_again_and_again_is_the_table(tmp_path: Path) -> None:
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    small = ("--rows", "8/8", "--scales", "4/6,fp32", "--no-per-channel")
    deaths = 0
    while (done := run_program(tmp_path / "killed", kill_at=2, arguments=small)).returncode != 0:
        assert done.returncode == -signal.SIGKILL and done.stdout == ""
        deaths += 1
        assert deaths < 10
    whole = run_program(tmp_path / "whole", arguments=small)
    assert whole.returncode == 0
    assert without_times(done.stdout) == without_times(whole.stdout)
    evaluated = (tmp_path / "killed" / "log").read_text().splitlines()
    assert deaths == 2 and len(evaluated) == len(set(evaluated)) == 3
    assert sorted(evaluated) == sorted((tmp_path / "whole" / "log").read_text().splitlines())


def test_a_finished_table_computes_nothing(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "store.sqlite") as store:
        first = run_table(TINY["TinyTask"](), request(), store, commit="abc")
    task = TINY["TinyTask"]()
    task.load_model = task.calibration_images = None
    with ResultsStore(tmp_path / "store.sqlite") as store:
        again = run_table(task, request(), store, commit="def")
    assert task.evaluations == 0
    assert {record.provenance.commit for record in again.cells.values()} == {"abc"}
    assert [record.to_dict() for record in again.cells.values()] == [r.to_dict() for r in first.cells.values()]
    assert again.drops == first.drops


def test_scale_modes_share_the_cells_in_which_they_change_nothing(tmp_path: Path) -> None:
    task = TINY["TinyTask"]()
    with ResultsStore(tmp_path / "store.sqlite") as store:
        requantize = run_table(task, request(), store)
        before = task.evaluations
        paper = run_table(task, request(scale_mode="paper"), store)
    assert before == 1 + 3 * len(ROWS) + 1
    assert task.evaluations - before == len(ROWS)
    for key, cell in paper.cells.items():
        same = cell is requantize.cells[key] or cell.to_dict() == requantize.cells[key].to_dict()
        assert same == (key[1] != "4/6")
    assert paper.cells["8/8", "4/6"].scale_mode == "paper" and paper.cells["8/8", "fp32"].scale_mode == ""


def test_a_method_shares_the_cells_whose_weights_it_leaves(tmp_path: Path) -> None:
    task = TINY["TinyTask"]()
    with ResultsStore(tmp_path / "store.sqlite") as store:
        rounded = run_table(task, request(), store)
        before = task.evaluations
        searched = run_table(task, request(method=ScaleSearch()), store)
        again = run_table(task, request(scale_mode="search"), store)
    assert task.evaluations - before == len(ROWS)
    assert (searched.method, searched.scale_mode) == ("search", "search") and rounded.method == "rtn"
    for key, cell in searched.cells.items():
        assert cell.to_dict() == again.cells[key].to_dict()
        assert (cell.to_dict() == rounded.cells[key].to_dict()) == (key[1] != "4/6")
    assert [searched.cells["8/8", column].method for column in ("4/6", "fp32")] == ["search", "rtn"]
    with pytest.raises(SpecError, match="scale_mode must not be 'paper' with method search"):
        request(method=ScaleSearch(), scale_mode="paper")


def test_per_channel_calibrators_are_the_best_on_calibration_data(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "store.sqlite") as store:
        table = run_table(TINY["TinyTask"](), request(columns=("per-channel",)), store)
    for record in table.cells.values():
        assert {(c.activation, c.weight) for c in record.candidates} == {
            (activation, weight) for activation in CALIBRATORS for weight in ("max", "mse")
        }
        best = min(record.candidates, key=lambda candidate: candidate.score)
        assert (record.activation_calibrator, record.weight_calibrator) == (best.activation, best.weight)
        assert record.criterion == CRITERION


def test_evaluation_data_have_no_say_in_the_calibrators(tmp_path: Path) -> None:
    tables = []
    for seed in (1, 2):
        with ResultsStore(tmp_path / f"{seed}.sqlite") as store:
            tables.append(run_table(TINY["TinyTask"](seed=seed), request(columns=("per-channel",)), store))
    assert [c.candidates for c in tables[0].cells.values()] == [c.candidates for c in tables[1].cells.values()]


def test_the_other_columns_are_not_calibrated_by_choice(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "store.sqlite") as store:
        table = run_table(TINY["TinyTask"](), request(columns=("4/6", "nvfp4")), store)
    for record in table.cells.values():
        assert record.candidates == () and record.criterion == ""
        assert record.activation_calibrator is None and record.weight_calibrator is None


def test_rows_and_columns_of_comparison_formats() -> None:
    columns = ("nvfp4", "mxint8", "int4-g128")
    cells = [(cell.row, cell.column) for cell in request(rows=("4/4U", "4/8"), columns=columns).cells()]
    assert cells == [("4/4U", "nvfp4"), ("8/8", "mxint8"), ("4/16", "int4-g128")]
    assert request(rows=("4/4U", "4/8"), columns=columns).all_rows == ("4/4U", "4/8", "8/8", "4/16")


def test_several_methods_stand_side_by_side_and_share_cells_with_tables_of_one(tmp_path: Path) -> None:
    task = TINY["TinyTask"]()
    columns = with_methods(("4/6", "per-channel", "nvfp4"), ("paper", "rtn", "search", "gptq"), row="3/4U")
    assert columns == (
        "4/6:paper", "4/6:rtn", "4/6:search", "4/6:gptq", "per-channel", "per-channel:gptq", "nvfp4"
    )  # fmt: skip
    with ResultsStore(tmp_path / "store.sqlite") as store:
        together = run_table(task, request(rows=("3/4U",), columns=columns), store)
        before = task.evaluations
        alone: list[tuple[str, str, dict[str, Any]]] = [
            ("4/6", "4/6:paper", {"scale_mode": "paper"}),
            ("4/6", "4/6:rtn", {}),
            ("4/6", "4/6:search", {"method": ScaleSearch()}),
            ("4/6", "4/6:gptq", {"method": ErrorFeedback()}),
            ("per-channel", "per-channel:gptq", {"method": ErrorFeedback()}),
        ]
        for single, column, options in alone:
            table = run_table(task, request(rows=("3/4U",), columns=(single,), **options), store)
            assert table.cells["3/4U", single].to_dict() == together.cells["3/4U", column].to_dict()
    assert before == 1 + 7 and task.evaluations == before
    assert [together.cells["3/4U", column].method for column in columns[:4]] == ["rtn", "rtn", "search", "gptq"]
    assert together.cells["3/4U", "4/6:paper"].scale_mode == "paper"
    feedback, rounded = (together.cells["3/4U", column] for column in ("per-channel:gptq", "per-channel"))
    assert feedback.candidates == rounded.candidates and feedback.method == "gptq"


def test_cells_that_the_store_lacks_may_be_left_out(tmp_path: Path) -> None:
    task = TINY["TinyTask"]()
    with ResultsStore(tmp_path / "store.sqlite") as store:
        part = run_table(task, request(columns=("4/6",)), store)
        before = task.evaluations
        table = run_table(task, request(), store, stored_only=True)
    assert task.evaluations == before and table.columns == COLUMNS
    assert {key: cell.to_dict() for key, cell in table.cells.items()} == {
        key: cell.to_dict() for key, cell in part.cells.items()
    }


def test_rows_may_name_their_scales(tmp_path: Path) -> None:
    rows = ("3/4U/4/6", "8/8/6/8")
    columns = with_methods(("", "fp32", "per-channel"), ("paper", "search"), row=rows[0])
    assert columns == (":paper", ":search", "fp32", "per-channel") and has_own_scales(rows)
    with ResultsStore(tmp_path / "store.sqlite") as store:
        table = run_table(TINY["TinyTask"](), request(rows=rows, columns=columns), store)
    assert table.cells["3/4U/4/6", ":search"].spec == "w3a4u-s4/6-v16"
    assert table.cells["8/8/6/8", ":paper"].spec == "w8a8-s6/8-v16"
    assert table.cells["8/8/6/8", "fp32"].spec == "w8a8-sfp32/fp32-v16"
    assert table.cells["8/8/6/8", "per-channel"].spec == "w8a8"
    assert request(rows=rows, columns=("mxint8",)).all_rows == rows


def test_other_draws_of_calibration_samples_are_other_cells(tmp_path: Path) -> None:
    task = TINY["TinyTask"]()
    first, second = (torch.cat(list(task.calibration_batches(32, draw=draw))) for draw in (0, 1))
    assert torch.equal(torch.cat(list(task.calibration_batches(64))), torch.cat([first, second]))
    with ResultsStore(tmp_path / "store.sqlite") as store:
        tables = [run_table(task, request(columns=("4/6",), calibration_draw=draw), store) for draw in (0, 1, 0)]
    assert task.evaluations == 1 + 2 * len(ROWS)
    assert tables[0].cells["3/4U", "4/6"].to_dict() == tables[2].cells["3/4U", "4/6"].to_dict()


@pytest.mark.parametrize(
    ("row", "column", "options", "spec"),
    [
        ("4/4U", "4/6", {}, "w4a4u-s4/6-v16"),
        ("4/8", "4/10", {"vector_size": 32, "gamma": "token"}, "w4a8-s4/10-v32-token"),
        ("4/8", "fp16", {"gamma": "tensor"}, "w4a8-sfp16/fp16-v16"),
        ("4/8", "per-channel", {"gamma": "tensor"}, "w4a8-tensor"),
        ("4/16", "4/x", {}, "w4a16-s4/x-v16"),
        ("4/4U", "4/6", {"product_bits": 6}, "w4a4u-s4/6-v16-p6"),
        ("4/4U", "per-channel", {"product_bits": 6}, "w4a4u"),
        ("4/4U", "nvfp4", {}, "nvfp4"),
    ],
)
def test_the_spec_of_a_cell(row: str, column: str, options: dict[str, Any], spec: str) -> None:
    table = TableRequest(rows=(row,), columns=(column,), **options)
    assert str(table.spec(row, column)) == spec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ()}, "must have at least one row and one column"),
        ({"rows": ("48",)}, "or with their scale bits 4/4U/4/6, not '48'"),
        ({"rows": ("9/9",)}, "a row must be 2 to 8 weight bits / 2 to 8 activation bits"),
        ({"rows": ("4/8S",)}, "such as 4/8 or 4/4U, not '4/8S'"),
        ({"columns": ("4/99",)}, "a column must be weight/activation scale bits"),
        ({"rows": ("4/4/6",)}, "or with their scale bits 4/4U/4/6, not '4/4/6'"),
        (
            {"columns": (":gptq",)},
            "a row must name its scales, such as 4/4U/4/6, where a column names none, not '3/4U'",
        ),
        ({"rows": ("4/4/4/6",)}, "a column must name no scales where rows name theirs (4/4/4/6), not '4/6'"),
        ({"columns": ("4/6:grid",)}, "method must be one of rtn, search, gptq"),
    ],
)
def test_requests_that_make_no_specs_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        request(**options)


def test_layers_that_fall_back_have_eight_bits_in_the_baseline_too(tmp_path: Path) -> None:
    """Equal terms: where vectors are too long for a layer's groups, per-channel cells keep 8 bits as well."""
    from torch import nn

    task = TINY["TinyTask"]()

    def load_model() -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(128, 4)).eval()

    task.load_model = load_model
    with ResultsStore(tmp_path / "store.sqlite") as store:
        table = run_table(task, request(rows=("3/3",), columns=("4/4", "per-channel")), store)
    specs = {column: [layer.spec for layer in table.cells["3/3", column].layers] for column in table.columns}
    assert specs == {"4/4": ["w3a3-s4/4-v16", "w8a8", "w3a3-s4/4-v16"], "per-channel": ["w3a3", "w8a8", "w3a3"]}


def test_samples(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "store.sqlite") as store:
        table = run_table(TINY["TinyTask"](), request(rows=("8/8",), columns=("4/6",), limit=7), store)
        assert (table.samples, table.samples_available, table.calibration_samples) == (7, 40, 32)
        with pytest.raises(DataError, match="limit must be between 1 and the 40 evaluation images there are, not 41"):
            run_table(TINY["TinyTask"](), request(limit=41), store)
        with pytest.raises(DataError, match="there must be 129 calibration images, not 128"):
            run_table(TINY["TinyTask"](), request(rows=("8/8",), calibration_samples=129), store)


def test_what_cannot_be_is_said_before_any_evaluation(tmp_path: Path) -> None:
    task = TINY["TinyTask"]()
    with ResultsStore(tmp_path / "store.sqlite") as store:
        with pytest.raises(SpecError, match="layer 'conv': a convolution has no tokens; use -tensor or -static"):
            run_table(task, request(gamma="token"), store)
        with pytest.raises(DataError, match="there must be 129 calibration images, not 128"):
            run_table(task, request(calibration_samples=129), store)
    assert task.evaluations == 0


def test_fewer_calibration_samples_than_choose_calibrators_all_choose() -> None:
    assert request(calibration_samples=128).selecting == 64
    assert request(calibration_samples=5).selecting == 5


def test_keys_of_cells_stay(tmp_path: Path) -> None:
    """Results of days are found by these keys: what they are made of does not change."""
    with ResultsStore(tmp_path / "store.sqlite") as store:
        run_table(TINY["TinyTask"](), request(rows=("8/8",), columns=("4/6", "per-channel"), limit=3), store)
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        found = {key: json.loads(inputs) for key, inputs in connection.execute("SELECT key, inputs FROM cells")}
    evaluation = {"task": "tiny", "fingerprint": {"model": "m", "data": "d"}, "limit": 3}
    cell = {"kind": "cell", **evaluation, "first_last": "same"}
    baseline = {"samples": 32, "selection": 32, "vector_size": 16}
    expected = [
        {"kind": "float", **evaluation},
        cell | {"spec": "w8a8-s4/6-v16", "scale_mode": "requantize", "calibration": {"samples": 32}},
        cell | {"spec": "w8a8", "scale_mode": "", "calibration": baseline},
    ]
    assert found == {content_key(inputs): inputs for inputs in expected}
    assert content_key(expected[1]).startswith("cea90e9d88091a4d")


def test_default_layouts() -> None:
    task = TINY["TinyTask"]()
    assert default_layout(task) == (("3/4U", "8/8"), ("4/6", "fp32", "per-channel"))
    task.rows = ()
    assert default_layout(task)[0] == ("4/4U", "6/4U", "6/6U", "8/8U")
    task.metric = "F1"
    assert default_layout(task)[0] == ("3/8", "4/8", "6/8", "8/8")
