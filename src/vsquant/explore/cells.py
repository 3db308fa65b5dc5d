"""Cells of tables in a worker's memory: what it was told and what it evaluated; the driver alone writes the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vsquant.explore.executors.base import NewCell
from vsquant.results.records import CellRecord
from vsquant.results.store import content_key


class MemoryCells:
    """Stands in for a `ResultsStore` in a `TableRunner`."""

    def __init__(self) -> None:
        self._records: dict[str, CellRecord] = {}
        self._refusals: dict[str, str] = {}
        self._new: list[NewCell] = []

    def know(self, inputs: Mapping[str, Any], record: CellRecord) -> None:
        """Take a record that the driver has already."""
        self._records[content_key(inputs)] = record

    def take_new(self) -> tuple[NewCell, ...]:
        """Cells evaluated since the last call."""
        new, self._new = tuple(self._new), []
        return new

    def get(self, key: str) -> CellRecord | None:
        """The record under ``key``, None where there is none."""
        return self._records.get(key)

    def put(self, key: str, inputs: Mapping[str, Any], record: CellRecord) -> None:
        """Keep ``record``, and remember it for `take_new`."""
        self._records[key] = record
        self._new.append(NewCell(inputs=inputs, record=record))

    def refusal(self, key: str) -> str | None:
        """Why what is under ``key`` cannot be evaluated."""
        return self._refusals.get(key)

    def put_refusal(self, key: str, inputs: Mapping[str, Any], reason: str) -> None:
        """Keep why what is under ``key`` cannot be evaluated."""
        self._refusals[key] = reason
