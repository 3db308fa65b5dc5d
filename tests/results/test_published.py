"""The published tables as data."""

from __future__ import annotations

import pytest

from vsquant.results import PUBLISHED, PUBLISHED_TRAINING


def test_every_poster_table_is_there() -> None:
    assert set(PUBLISHED) == {"imagenet-resnet50", "squad-bert-base", "squad-bert-large"}
    assert [PUBLISHED[name].float_score for name in sorted(PUBLISHED)] == [76.2, 86.9, 90.9]


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_values_fill_rows_and_columns(name: str) -> None:
    table = PUBLISHED[name]
    assert len(table.values) == len(table.rows)
    assert all(len(row) == len(table.columns) for row in table.values)
    assert "MLSys 2021, arXiv 2102.04503" in table.source


@pytest.mark.parametrize(
    ("name", "row", "column", "value"),
    [
        ("imagenet-resnet50", "4/4U", "3/4", 73.4),
        ("imagenet-resnet50", "4/4u", "per-channel", 70.8),
        ("imagenet-resnet50", "6/6U", "6/6", 76.0),
        ("squad-bert-base", "3/8", "per-channel", 12.1),
        ("squad-bert-base", "4/8", "4/10", 85.9),
        ("squad-bert-base", "8/8", "fp32", 86.5),
        ("squad-bert-large", "3/8", "fp16", 89.6),
        ("squad-bert-large", "8/8", "per-channel", 90.8),
        ("squad-bert-large", "4/4", "4/8", None),
        ("squad-bert-large", "4/8", "nvfp4", None),
    ],
)
def test_cells(name: str, row: str, column: str, value: float | None) -> None:
    assert PUBLISHED[name].cell(row, column) == value


def test_per_channel_is_never_above_float_vector_scales_by_much() -> None:
    for table in PUBLISHED.values():
        for row in table.rows:
            vector, channel = table.cell(row, "fp32"), table.cell(row, "per-channel")
            assert vector is not None and channel is not None and channel <= vector


def test_training_rows() -> None:
    rows = {(row.model, row.bits): (row.vector_score, row.per_channel_score) for row in PUBLISHED_TRAINING}
    assert rows == {
        ("ResNet50", "3/3U"): (75.5, 72.0),
        ("BERT-base", "4/4"): (86.2, 73.3),
        ("BERT-large", "3/4"): (89.2, 21.6),
    }
    assert [(row.vector_epoch, row.per_channel_epoch) for row in PUBLISHED_TRAINING] == [(20, 20), (5, 20), (2, 2)]
