"""Synthetic tables that every rendering is tested on."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from vsquant.results import (
    PUBLISHED,
    Aggregate,
    Candidate,
    CellKind,
    CellRecord,
    LayerReport,
    Provenance,
    Scores,
    Table,
)

SAMPLES = 400
KINDS: dict[str, CellKind] = {"per-channel": "per-channel", "nvfp4": "comparison", "float": "float"}
WEIGHT_CALIBRATORS = {"3/8": "mse", "4/8": "mse", "6/8": "max", "8/8": "max"}


def scores_of(mean: float, aggregate: Aggregate = "mean") -> Scores:
    """Scores around ``mean`` that share their samples' difficulty, 4 samples to a group."""
    shared = np.random.default_rng(0).normal(0, 0.2, size=SAMPLES)
    own = np.random.default_rng(round(1000 * mean)).normal(0, 0.02, size=SAMPLES)
    relative = shared - shared.mean() + own - own.mean()
    percent = aggregate == "mean"
    return Scores(
        metric="F1" if percent else "perplexity",
        unit="%" if percent else "",
        higher_is_better=percent,
        values=mean * (1 + relative) if percent else math.log(mean) + relative,
        groups=np.arange(SAMPLES) // 4,
        weights=np.ones(SAMPLES),
        aggregate=aggregate,
    )


def layers_of(spec: str) -> tuple[LayerReport, ...]:
    """Two layers as requested and a fallback."""
    reports = [
        LayerReport(
            name=f"bert.encoder.layer.{index}.attention.self.query",
            kind="Linear",
            rule="*",
            requested=spec,
            spec=spec,
            weights=147456,
            padding=0.0,
            unsigned_activations=False,
        )
        for index in range(2)
    ]
    fallback = LayerReport(
        name="features.depthwise",
        kind="Conv2d",
        rule="*",
        requested=spec,
        spec="w8a8",
        weights=288,
        padding=0.25,
        unsigned_activations=True,
        note="depthwise, fewer channels than V: fallback <script>",
    )
    return (*reports, fallback)


def record_of(mean: float, row: str, column: str, aggregate: Aggregate = "mean") -> CellRecord:
    """A cell's record, with calibrators where the format has them."""
    spec = f"w{row.replace('/', 'a')}-s{column}-v16" if column[0].isdigit() else column
    channel = column == "per-channel"
    return CellRecord(
        task="squad-bert-base",
        spec=spec,
        kind=KINDS.get(column, "vector"),
        scale_mode="requantize",
        gamma="static",
        scores=scores_of(mean, aggregate),
        seconds=12.5,
        provenance=Provenance(vsquant="0.1.0", torch="2.13.0", machine="x", created="2026-01-02T03:04:05+00:00"),
        activation_calibrator="percentile-99.99" if channel else None,
        weight_calibrator=WEIGHT_CALIBRATORS.get(row, "max") if channel else None,
        criterion="KL of the logits" if channel else "",
        candidates=(Candidate(activation="max", weight="max", score=0.5),) * 8 if channel else (),
        layers=() if column == "float" else layers_of(spec),
    )


@pytest.fixture
def squad_table() -> Table:
    """The poster's BERT-base table with measured cells near the published ones; one cell missing, one format beside."""
    published = PUBLISHED["squad-bert-base"]
    cells = {
        (row, column): record_of(value - 0.3, row, column)
        for row, values in zip(published.rows, published.values, strict=True)
        for column, value in zip(published.columns, values, strict=True)
        if (row, column) != ("6/8", "4/10")
    }
    return Table(
        task="squad-bert-base",
        title="BERT-base on SQuAD",
        baseline=record_of(87.4, "float", "float"),
        rows=published.rows,
        columns=published.columns,
        cells=cells,
        scale_mode="requantize",
        gamma="static",
        samples_available=10570,
        calibration_samples=128,
        source="SQuAD 1.1, CC BY-SA 4.0; BERT & friends <b>Apache-2.0</b>",
        caveat="Not the poster's checkpoint.",
        published=published,
    )


@pytest.fixture
def perplexity_table() -> Table:
    """A lower-is-better table without published figures, with a cell that diverged to infinity."""
    means = {"4/8": 12.4, "fp32": 12.2, "per-channel": 4096.0, "nvfp4": 12.9}
    cells = {("4/8", column): record_of(mean, "4/8", column, "exp_mean") for column, mean in means.items()}
    diverged = record_of(12.0, "3/8", "per-channel", "exp_mean")
    object.__setattr__(diverged, "scores", _shifted(diverged.scores, 5000.0))
    return Table(
        task="wikitext",
        title="Tiny LM on WikiText",
        baseline=record_of(12.0, "float", "float", "exp_mean"),
        rows=("3/8", "4/8"),
        columns=tuple(means),
        cells=cells | {("3/8", "per-channel"): diverged, ("3/8", "4/8"): record_of(14.0, "3/8", "4/8", "exp_mean")},
        scale_mode="paper",
        gamma="token",
        samples_available=SAMPLES,
        calibration_samples=64,
        source="s",
    )


def _shifted(scores: Scores, by: float) -> Scores:
    return Scores(
        metric=scores.metric,
        unit=scores.unit,
        higher_is_better=scores.higher_is_better,
        values=scores.values + by,
        groups=scores.groups,
        weights=scores.weights,
        aggregate=scores.aggregate,
    )


@pytest.fixture
def make_record() -> Callable[[float, str, str], CellRecord]:
    """`record_of`, for tests that build their own tables."""
    return record_of
