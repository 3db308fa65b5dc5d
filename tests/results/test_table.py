"""The table record: its invariants and what it derives."""

from __future__ import annotations

import numpy as np
import pytest

from vsquant.errors import ShapeError
from vsquant.results import PUBLISHED, CellKind, CellRecord, Provenance, Scores, Table


def cell(mean: float, kind: CellKind = "vector", samples: int = 40) -> CellRecord:
    values = np.full(samples, mean)
    return CellRecord(
        task="squad-bert-base",
        spec="float" if kind == "float" else "w4a8-s4/8-v16",
        kind=kind,
        scale_mode="paper",
        gamma="static",
        scores=Scores(
            metric="F1",
            unit="%",
            higher_is_better=True,
            values=values,
            groups=np.arange(samples),
            weights=np.ones(samples),
        ),
        seconds=0.0,
        provenance=Provenance(vsquant="0", torch="0", machine="m", created="2026-01-01T00:00:00+00:00"),
    )


def table(cells: dict[tuple[str, str], CellRecord], baseline: CellRecord | None = None) -> Table:
    return Table(
        task="squad-bert-base",
        title="BERT-base on SQuAD",
        baseline=cell(86.9, "float") if baseline is None else baseline,
        rows=("4/8",),
        columns=("4/8", "per-channel"),
        cells=cells,
        scale_mode="paper",
        gamma="static",
        samples_available=100,
        calibration_samples=10,
        source="s",
        published=PUBLISHED["squad-bert-base"],
    )


def test_derived_facts() -> None:
    made = table({("4/8", "4/8"): cell(85.5)})
    assert (made.metric, made.unit, made.higher_is_better, made.samples) == ("F1", "%", True, 40)
    assert made.drops["4/8", "4/8"].value == pytest.approx(-1.4)
    assert made.cell("4/8", "per-channel") is None
    assert made.published_cell("4/8", "per-channel") == 78.9


def test_a_baseline_must_be_float() -> None:
    with pytest.raises(ShapeError, match="baseline of a table must be the float network, not a vector cell"):
        table({}, baseline=cell(80.0))


def test_a_cell_must_be_in_the_table() -> None:
    with pytest.raises(ShapeError, match=r"must be in a row and a column of its table, not in \('3/8', '4/8'\)"):
        table({("3/8", "4/8"): cell(80.0)})


def test_a_cell_must_be_on_the_same_samples() -> None:
    with pytest.raises(ShapeError, match="must be on the baseline's 40 samples, not on 20"):
        table({("4/8", "4/8"): cell(80.0, samples=20)})
