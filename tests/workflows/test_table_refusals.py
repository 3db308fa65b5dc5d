"""A cell that a network cannot be run in is tried once: the store keeps the reason."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from torch import nn

from vsquant.errors import ScaleRangeError
from vsquant.results import ResultsStore
from vsquant.workflows import table as workflow
from vsquant.workflows.table import run_table
from vsquant.workflows.table_request import TableRequest

TINY = runpy.run_path(str(Path(__file__).parents[1] / "fakes" / "tiny_program.py"))
REQUEST = TableRequest(rows=("4/8",), columns=("4/6", "fp16"), calibration_samples=32)


def tiny_weights() -> nn.Module:
    network = TINY["network"]()
    network.linear.weight.data *= 1e-6
    return network


def test_a_refused_cell_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = TINY["TinyTask"]()
    task.load_model = tiny_weights
    with ResultsStore(tmp_path / "store.sqlite") as store:
        first = run_table(task, REQUEST, store)
        assert list(first.cells) == [("4/8", "4/6")] and "linear" in first.refusals["4/8", "fp16"]
        task.load_model = None
        monkeypatch.setattr(workflow, "quantize_prepared", None)
        for again in (run_table(task, REQUEST, store), run_table(task, REQUEST, store, stored_only=True)):
            assert again.refusals == first.refusals and list(again.cells) == list(first.cells)


def test_a_store_without_refusals_takes_them(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "store.sqlite") as store:
        store._connection.execute("DROP TABLE refusals")
    task = TINY["TinyTask"]()
    task.load_model = tiny_weights
    with ResultsStore(tmp_path / "store.sqlite") as store:
        assert run_table(task, REQUEST, store).refusals


def test_a_refusal_is_kept_under_its_own_key(tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "store.sqlite") as store, pytest.raises(ValueError, match="key must be content_key"):
        store.put_refusal("x", {"a": 1}, str(ScaleRangeError("no")))
