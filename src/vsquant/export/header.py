"""The JSON header of a checkpoint: what the tensors mean. Written and read through one model, unknown keys refused."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    NonNegativeInt,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from vsquant.errors import CheckpointError, SpecError
from vsquant.results.layers import LayerReport
from vsquant.results.permutation import PermutedChannels
from vsquant.results.workloads import LayerWorkload
from vsquant.spec.formats import FloatFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.spec.workload import Workload, WorkloadKind
from vsquant.workflows.record import QuantizationRecord

FORMAT_VERSION: Final = 2

Form: TypeAlias = Literal["simulated", "integer"]
FloatName: TypeAlias = Literal["float16", "bfloat16", "float32", "float64"]


def _parse_spec(value: object) -> object:
    try:
        return LayerSpec.parse(value) if isinstance(value, str) else value
    except SpecError as error:
        raise ValueError(str(error)) from None


SpecText = Annotated[InstanceOf[LayerSpec], BeforeValidator(_parse_spec), PlainSerializer(str)]


Length = Annotated[int, Field(ge=0, lt=1 << 63)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LayerHeader(_Strict):
    """One quantized layer: the spec in force, the names that share it, and the dtype of its outputs.

    ``weight_shape`` is (K, C, *kernel); files of version 1 have none.
    """

    name: str
    aliases: tuple[str, ...]
    spec: SpecText
    scale_mode: ScaleMode
    output_dtype: FloatName
    weight_shape: Annotated[tuple[Length, ...], Field(min_length=2, max_length=4)] | None = None


class MatmulHeader(_Strict):
    """One attention module whose matrix products are quantized."""

    name: str
    spec: SpecText
    scale_mode: ScaleMode


class ReportHeader(_Strict):
    """A `LayerReport`."""

    name: str
    kind: str
    rule: str
    requested: str | None
    spec: str | None
    weights: NonNegativeInt
    padding: Annotated[float, Field(ge=0, lt=1)]
    unsigned_activations: bool | None
    note: str


Pair = tuple[NonNegativeInt, NonNegativeInt]


class WorkloadHeader(_Strict):
    """A `LayerWorkload`."""

    name: str
    calls: NonNegativeInt
    kind: WorkloadKind
    outputs: NonNegativeInt
    reduction: NonNegativeInt
    positions: NonNegativeInt
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: NonNegativeInt
    input_size: Pair | None
    output_size: Pair | None

    @model_validator(mode="after")
    def _is_a_shape(self) -> WorkloadHeader:
        _ = self.layer_workload
        return self

    @property
    def layer_workload(self) -> LayerWorkload:
        """The record."""
        fields = self.model_dump(exclude={"name", "calls"})
        return LayerWorkload(name=self.name, calls=self.calls, workload=Workload(**fields))


class Header(_Strict):
    """Everything a checkpoint says beside its tensors.

    ``architecture`` is what `vsquant.tasks.architectures.build` needs, None for models only their owner can build;
    ``tied`` maps the names of tensors that are not stored to the stored ones they are; ``checksums`` has the CRC-32 of
    every stored tensor's bytes; ``form`` is what loading gives, the tensors are the same, and ``chained`` is whether
    the layers of an integer model give each other codes.

    Invariants: no module is named twice; layers have a shape exactly from version 2 on; an integer model has quantized
    parts, none in a comparison format.
    """

    format_version: Literal[1, 2]
    vsquant_version: str
    form: Form = "simulated"
    chained: bool = True
    architecture: dict[str, str] | None
    layers: tuple[LayerHeader, ...]
    matmuls: tuple[MatmulHeader, ...]
    folded: tuple[tuple[str, str], ...]
    unfolded: tuple[tuple[str, str], ...]
    tied: dict[str, str]
    checksums: dict[str, NonNegativeInt]
    report: tuple[ReportHeader, ...]
    scale_mode: str
    activation_calibrator: str
    weight_calibrator: str
    calibration_samples: NonNegativeInt
    method: str = "rtn"
    permuted: tuple[PermutedChannels, ...] = ()
    workloads: tuple[WorkloadHeader, ...] = ()

    @model_validator(mode="after")
    def _names_each_module_once(self) -> Header:
        names = Counter(name for layer in self.layers for name in (layer.name, *layer.aliases))
        names += Counter(matmul.name for matmul in self.matmuls)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"layer {twice[0]!r} must be named once, not {names[twice[0]]} times")
        return self

    @model_validator(mode="after")
    def _has_shapes_from_version_2_on(self) -> Header:
        for layer in self.layers:
            if (layer.weight_shape is not None) != (self.format_version >= 2):
                raise ValueError(f"layer {layer.name!r} must have a weight_shape exactly from version 2 on")
        return self

    @model_validator(mode="after")
    def _is_integer_only_where_it_can_be(self) -> Header:
        specs = [*(layer.spec for layer in self.layers), *(matmul.spec for matmul in self.matmuls)]
        comparisons = [spec for spec in specs if FloatFormat in (type(spec.weight), type(spec.activation))]
        if self.form == "integer" and (not specs or comparisons):
            what = f"{comparisons[0]}, which is simulated only" if comparisons else "none"
            raise ValueError(f"an integer model must have quantized layers of integer formats, not {what}")
        return self

    @classmethod
    def parse(cls, text: str, origin: str) -> Header:
        """The header of the file ``origin``.

        Raises:
            CheckpointError: the text is not a header of a known version.
        """
        try:
            header = cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "as a whole"
            problem = "is missing" if first["type"] == "missing" else f"is not: {first['msg']}"
            raise CheckpointError(
                f"the header of {origin} must be that of a vsquant checkpoint of version 1 to {FORMAT_VERSION}, "
                f"but {where} {problem}"
            ) from None
        check_keys(text, origin)
        return header

    @property
    def record(self) -> QuantizationRecord:
        """The model's record."""
        return QuantizationRecord(
            layers=tuple(LayerReport(**report.model_dump()) for report in self.report),
            folded=self.folded,
            unfolded=self.unfolded,
            scale_mode=self.scale_mode,
            activation_calibrator=self.activation_calibrator,
            weight_calibrator=self.weight_calibrator,
            calibration_samples=self.calibration_samples,
            method=self.method,
            permuted=self.permuted,
            workloads=tuple(found.layer_workload for found in self.workloads),
        )


def check_keys(text: str | bytes, origin: str) -> None:
    """Whether no object of a JSON document has a key twice; readers would not agree on which of them counts.

    Raises:
        CheckpointError: one has; names the key.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            raise CheckpointError(f"the header of {origin} must have each key once, but {twice!r} is there twice")
        return found

    json.loads(text, object_pairs_hook=unique)


def report_headers(record: QuantizationRecord) -> tuple[ReportHeader, ...]:
    """The layer reports of a record, as the header holds them."""
    return tuple(ReportHeader(**dataclasses.asdict(report)) for report in record.layers)


def workload_headers(record: QuantizationRecord) -> tuple[WorkloadHeader, ...]:
    """The shapes of a record, as the header holds them."""
    return tuple(
        WorkloadHeader(name=found.name, calls=found.calls, **dataclasses.asdict(found.workload))
        for found in record.workloads
    )
