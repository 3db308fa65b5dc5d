"""The record of one evaluated cell of a table: what was quantized how, what it scored, and where that was measured."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, TypeAlias

from vsquant.errors import StoreError
from vsquant.results.layers import LayerReport
from vsquant.results.scores import Scores

CellKind: TypeAlias = Literal["float", "vector", "per-channel", "comparison"]
"""The float network, per-vector scales, the per-channel baseline, or a format of another standard."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A pair of calibrators that was tried on calibration data, and its score there by the record's criterion."""

    activation: str | None
    weight: str | None
    score: float


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where, when and with which versions a cell was measured; ``created`` is ISO 8601 in UTC.

    ``commit`` is that of the source, where whoever measured it had one.
    """

    vsquant: str
    torch: str
    machine: str
    created: str
    commit: str = ""

    @staticmethod
    def here(*, vsquant: str, torch: str, commit: str = "") -> Provenance:
        """This machine, now."""
        machine = f"{platform.machine()} {platform.system()}, Python {platform.python_version()}"
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return Provenance(vsquant=vsquant, torch=torch, machine=machine, created=now, commit=commit)


@dataclass(frozen=True, kw_only=True)
class CellRecord:
    """One evaluation of one network in one format on one task.

    ``spec`` is the layer spec in notation, ``"float"`` for the float network. ``method`` is the solver of the weights
    with its options. ``activation_calibrator`` and
    ``weight_calibrator`` name the chosen calibrators (None where the operand has no calibrated range); ``candidates``
    are all that were tried, scored by ``criterion`` on calibration data only. ``seconds`` is the evaluation's time.
    """

    task: str
    spec: str
    kind: CellKind
    scale_mode: str
    gamma: str
    scores: Scores
    seconds: float
    provenance: Provenance
    activation_calibrator: str | None = None
    weight_calibrator: str | None = None
    criterion: str = ""
    candidates: tuple[Candidate, ...] = ()
    layers: tuple[LayerReport, ...] = ()
    method: str = "rtn"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the scores as plain values, ready for JSON."""
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del plain["scores"]
        plain["provenance"] = dataclasses.asdict(self.provenance)
        plain["candidates"] = [dataclasses.asdict(candidate) for candidate in self.candidates]
        plain["layers"] = [dataclasses.asdict(layer) for layer in self.layers]
        return plain

    @staticmethod
    def from_dict(plain: Mapping[str, Any], scores: Scores) -> CellRecord:
        """The record that `to_dict` wrote, with its scores; raises `StoreError` where a field is missing or foreign."""
        fields = dict(plain)
        try:
            fields["provenance"] = Provenance(**fields["provenance"])
            fields["candidates"] = tuple(Candidate(**candidate) for candidate in fields["candidates"])
            fields["layers"] = tuple(LayerReport(**layer) for layer in fields["layers"])
            return CellRecord(scores=scores, **fields)
        except (KeyError, TypeError) as error:
            raise StoreError(f"a stored record must have the fields of a CellRecord, not {sorted(plain)}") from error
