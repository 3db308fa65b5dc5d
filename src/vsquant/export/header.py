"""The JSON header of a checkpoint: what the tensors mean. Written and read through one model, unknown keys refused."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, InstanceOf, PlainSerializer, ValidationError

from vsquant.errors import CheckpointError, SpecError
from vsquant.results.layers import LayerReport
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.workflows.record import QuantizationRecord

METADATA_KEY: Final = "vsquant"
FORMAT_VERSION: Final = 1


def _parse_spec(value: object) -> object:
    try:
        return LayerSpec.parse(value) if isinstance(value, str) else value
    except SpecError as error:
        raise ValueError(str(error)) from None


SpecText = Annotated[InstanceOf[LayerSpec], BeforeValidator(_parse_spec), PlainSerializer(str)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LayerHeader(_Strict):
    """One quantized layer: the spec in force and the names that share it."""

    name: str
    aliases: tuple[str, ...]
    spec: SpecText
    scale_mode: ScaleMode


class ReportHeader(_Strict):
    """A `LayerReport`."""

    name: str
    kind: str
    rule: str
    requested: str | None
    spec: str | None
    weights: int
    padding: float
    unsigned_activations: bool | None
    note: str


class Header(_Strict):
    """Everything a checkpoint says beside its tensors.

    ``architecture`` is what `vsquant.tasks.architectures.build` needs, None for models only their owner can build;
    ``tied`` maps the names of tensors that are not stored to the stored ones they are.
    """

    format_version: Literal[1]
    vsquant_version: str
    architecture: dict[str, str] | None
    layers: tuple[LayerHeader, ...]
    folded: tuple[tuple[str, str], ...]
    tied: dict[str, str]
    report: tuple[ReportHeader, ...]
    scale_mode: str
    activation_calibrator: str
    weight_calibrator: str
    calibration_samples: int

    @classmethod
    def parse(cls, text: str, origin: str) -> Header:
        """The header of the file ``origin``.

        Raises:
            CheckpointError: the text is not a header of this version.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise CheckpointError(
                f"the header of {origin} must be that of a vsquant checkpoint of version {FORMAT_VERSION}, "
                f"but {where} is not: {first['msg']}"
            ) from None

    @property
    def record(self) -> QuantizationRecord:
        """The model's record."""
        return QuantizationRecord(
            layers=tuple(LayerReport(**report.model_dump()) for report in self.report),
            folded=self.folded,
            scale_mode=self.scale_mode,
            activation_calibrator=self.activation_calibrator,
            weight_calibrator=self.weight_calibrator,
            calibration_samples=self.calibration_samples,
        )


def report_headers(record: QuantizationRecord) -> tuple[ReportHeader, ...]:
    """The layer reports of a record, as the header holds them."""
    return tuple(ReportHeader(**dataclasses.asdict(report)) for report in record.layers)
