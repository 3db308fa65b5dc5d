"""The tables that the VS-Quant poster published, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

SOURCE: Final = (
    "Dai, Venkatesan, Ren, Zimmer, Dally, Khailany (NVIDIA): VS-Quant: Per-vector Scaled Quantization for Accurate "
    "Low-Precision Neural Network Inference. MLSys 2021, arXiv 2102.04503, poster"
)


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A post-training quantization table, vector size 16: percentages by weight/activation bits and scale bits.

    ``rows`` are weight/activation bits (``U`` = unsigned activations), ``columns`` weight/activation scale bits,
    ``"fp16"``/``"fp32"`` vector scales, or ``"per-channel"``; ``values`` follows both orders.
    """

    title: str
    metric: str
    float_score: float
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    source: str = SOURCE

    def cell(self, row: str, column: str) -> float | None:
        """The published number, None where the poster has none; case does not matter (``4/4u`` is ``4/4U``)."""
        rows = [name.lower() for name in self.rows]
        columns = [name.lower() for name in self.columns]
        if row.lower() not in rows or column.lower() not in columns:
            return None
        return self.values[rows.index(row.lower())][columns.index(column.lower())]


@dataclass(frozen=True, kw_only=True)
class PublishedTraining:
    """One row of the quantization-aware training table: accuracy and the epoch it was reached at."""

    model: str
    bits: str
    vector_score: float
    vector_epoch: int
    per_channel_score: float
    per_channel_epoch: int
    source: str = SOURCE


_BERT_COLUMNS: Final = ("4/8", "4/10", "6/8", "6/10", "fp16", "fp32", "per-channel")
_BERT_ROWS: Final = ("3/8", "4/8", "6/8", "8/8")

PUBLISHED: Final[Mapping[str, PublishedTable]] = MappingProxyType(
    {
        "imagenet-resnet50": PublishedTable(
            title="ResNet50 on ImageNet",
            metric="top-1",
            float_score=76.2,
            rows=("4/4U", "6/4U", "6/6U", "8/8U"),
            columns=("3/4", "3/6", "4/4", "4/6", "6/4", "6/6", "fp32", "per-channel"),
            values=(
                (73.4, 74.2, 74.4, 75.0, 74.6, 75.4, 75.3, 70.8),
                (74.3, 75.1, 75.0, 75.6, 75.1, 75.8, 75.8, 74.8),
                (74.7, 75.1, 75.1, 75.7, 75.4, 76.0, 76.0, 75.8),
                (74.6, 75.3, 75.2, 75.9, 75.5, 76.1, 76.2, 76.2),
            ),
        ),
        "squad-bert-base": PublishedTable(
            title="BERT-base on SQuAD",
            metric="F1",
            float_score=86.9,
            rows=_BERT_ROWS,
            columns=_BERT_COLUMNS,
            values=(
                (81.6, 81.8, 82.6, 82.8, 82.9, 82.9, 12.1),
                (85.7, 85.9, 86.0, 86.3, 86.3, 86.3, 78.9),
                (85.9, 86.2, 86.3, 86.7, 86.6, 86.6, 85.5),
                (85.9, 86.4, 86.4, 86.6, 86.6, 86.5, 85.7),
            ),
        ),
        "squad-bert-large": PublishedTable(
            title="BERT-large on SQuAD",
            metric="F1",
            float_score=90.9,
            rows=_BERT_ROWS,
            columns=_BERT_COLUMNS,
            values=(
                (88.7, 89.0, 89.4, 89.6, 89.6, 89.5, 11.6),
                (90.3, 90.5, 90.6, 90.7, 90.6, 90.7, 86.8),
                (90.5, 90.5, 90.7, 90.8, 90.8, 90.8, 90.6),
                (90.6, 90.6, 90.6, 90.8, 90.9, 90.9, 90.8),
            ),
        ),
    }
)

PUBLISHED_TRAINING: Final = (
    PublishedTraining(
        model="ResNet50",
        bits="3/3U",
        vector_score=75.5,
        vector_epoch=20,
        per_channel_score=72.0,
        per_channel_epoch=20,
    ),
    PublishedTraining(
        model="BERT-base", bits="4/4", vector_score=86.2, vector_epoch=5, per_channel_score=73.3, per_channel_epoch=20
    ),
    PublishedTraining(
        model="BERT-large", bits="3/4", vector_score=89.2, vector_epoch=2, per_channel_score=21.6, per_channel_epoch=2
    ),
)
