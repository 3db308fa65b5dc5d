"""What an accelerator is made of, apart from the formats of the layers that run on it: YAML, checked and frozen."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vsquant.errors import AcceleratorError, SpecError
from vsquant.hardware.accelerator.memories import dram_pj_per_bit
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.hints import did_you_mean
from vsquant.spec.layer import LayerSpec

Activations: TypeAlias = Literal["signed", "unsigned", "both"]
Misfit: TypeAlias = Literal["refuse", "passes", "wide"]
BufferPolicy: TypeAlias = Literal["bytes", "elements"]

_Bits: TypeAlias = Annotated[int, Field(ge=2, le=8)]
_ScaleBits: TypeAlias = Annotated[int, Field(ge=0, le=11)]
_Count: TypeAlias = Annotated[int, Field(ge=1, le=1 << 20)]
_Size: TypeAlias = Annotated[int, Field(ge=1, le=1 << 40)]
_Rate: TypeAlias = Annotated[float, Field(gt=0, le=1e6)]

_FOLDER: Final = "configurations"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LaneWidths(_Strict):
    """What one lane multiplies: operand widths in bits, scale widths (0: no vector scales), and P of eq. (8).

    Lanes for ``both`` signed and unsigned activations have operands of one bit more, for the sign.
    """

    weight_bits: _Bits
    activation_bits: _Bits
    activations: Activations = "signed"
    weight_scale_bits: _ScaleBits = 0
    activation_scale_bits: _ScaleBits = 0
    product_bits: Annotated[int, Field(ge=1, le=32)] | None = None

    @model_validator(mode="after")
    def _rounds_what_there_is(self) -> LaneWidths:
        if self.product_bits is not None and not (self.weight_scale_bits and self.activation_scale_bits):
            raise ValueError("product_bits must go with weight_scale_bits and activation_scale_bits, not without")
        return self

    @classmethod
    def of(cls, spec: LayerSpec, *, both_signs: bool = False) -> LaneWidths:
        """The lanes made for a spec; ``both_signs`` where some layers have unsigned and others signed activations.

        Raises:
            SpecError: no lane of integers runs the spec.
        """
        weight, activation = integer_formats(spec)
        signs: Activations = "both" if both_signs else "signed" if activation.signed else "unsigned"
        return cls(
            weight_bits=weight.bits,
            activation_bits=activation.bits,
            activations=signs,
            weight_scale_bits=weight.scale_width_bits,
            activation_scale_bits=activation.scale_width_bits,
            product_bits=spec.product_bits if spec.product_shift else None,
        )

    @property
    def operand_bits(self) -> int:
        """Bits of the activation operand as built: one more where both signs are served."""
        return self.activation_bits + (self.activations == "both")

    @property
    def scale_shift(self) -> int:
        """Shift d of eq. (8)."""
        exact = self.weight_scale_bits + self.activation_scale_bits
        return 0 if self.product_bits is None else max(0, exact - self.product_bits)

    def as_spec(self, vector_size: int) -> LayerSpec:
        """The spec whose lane this is, under which its cost is filed.

        Raises:
            AcceleratorError: no spec has operands this wide.
        """
        if self.operand_bits > 8:
            raise AcceleratorError(
                f"activation_bits must be at most 7 where lanes serve both signs, not {self.activation_bits}: with the "
                "sign an operand would have 9 bits; make all activations signed"
            )
        return LayerSpec(
            weight=_format(self.weight_bits, self.weight_scale_bits, vector_size, signed=True),
            activation=_format(
                self.operand_bits, self.activation_scale_bits, vector_size, signed=self.activations != "unsigned"
            ),
            product_bits=self.product_bits,
        )

    def text(self, vector_size: int) -> str:
        """The lane in the notation of specs."""
        return str(self.as_spec(vector_size))


class WideLanes(_Strict):
    """Lanes beside the others for the layers that are too wide for those: ``lanes`` in every processing element."""

    lane: LaneWidths
    lanes: _Count


class Buffers(_Strict):
    """Capacities, in bytes or in elements as ``policy`` says; halves are filled and read in turn.

    ``weight`` and ``activation`` are of one processing element, ``shared`` is the one all of them are fed from. Equal
    ``bytes`` is one memory for every format, which holds more of narrow elements; equal ``elements`` is a memory that
    shrinks with them, scales included.
    """

    policy: BufferPolicy
    weight: _Size
    activation: _Size
    shared: _Size


class Dram(_Strict):
    """Memory off the chip; ``kind`` names its energy in the table of memories."""

    kind: str
    gigabytes_per_second: _Rate


class Accelerator(_Strict):
    """Processing elements of lanes, with buffers, a post-processing unit each, and memory behind them.

    ``lane`` is what the lanes multiply, or ``"spec"``: lanes made for the spec that is asked about. ``positions`` is
    how many outputs each lane accumulates side by side while its weights stay. ``misfit`` is what becomes of a layer
    that is too wide: it is refused, takes several passes, or runs on ``wide_lanes``.

    Invariant: ``wide_lanes`` are there exactly where ``misfit`` is ``"wide"``.
    """

    name: str
    source: str
    lane: LaneWidths | Literal["spec"] = "spec"
    vector_size: Annotated[int, Field(ge=2, le=1024)] = 16
    lanes: _Count = 16
    processing_elements: _Count = 16
    positions: _Count = 16
    max_reduction_length: _Count = 4096
    misfit: Misfit = "passes"
    wide_lanes: WideLanes | None = None
    buffers: Buffers
    shared_bits_per_cycle: _Count
    outputs_per_cycle: _Count = 2
    clock_ghz: _Rate = 1.0
    dram: Dram

    @model_validator(mode="after")
    def _has_wide_lanes_where_they_are_used(self) -> Accelerator:
        if (self.misfit == "wide") != (self.wide_lanes is not None):
            raise ValueError("wide_lanes must be there exactly where misfit is 'wide'")
        return self

    def lane_for(self, spec: LayerSpec, *, both_signs: bool = False) -> LaneWidths:
        """The lanes: those described, or those made for ``spec``."""
        return LaneWidths.of(spec, both_signs=both_signs) if self.lane == "spec" else self.lane

    @property
    def peak_macs_per_cycle(self) -> int:
        """Multiply-accumulates in a cycle in which every lane works."""
        return self.processing_elements * self.lanes * self.vector_size

    @classmethod
    def parse(cls, text: str, origin: str) -> Accelerator:
        """Reads YAML.

        Raises:
            AcceleratorError: it is no YAML, or a key is missing, misspelt or malformed, or the table of memories has no
            DRAM of that kind; the message names it.
        """
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise AcceleratorError(f"{origin} must be YAML: {error}") from error
        if not isinstance(data, dict):
            raise AcceleratorError(f"{origin} must have keys and values, such as 'lanes: 16', not {data!r:.60}")
        try:
            found = cls.model_validate(data)
            dram_pj_per_bit(found.dram.kind)
        except ValidationError as error:
            raise AcceleratorError(f"{origin}: {_problem(error)}") from None
        except AcceleratorError as error:
            raise AcceleratorError(f"{origin}: {error}") from error
        else:
            return found


def load_accelerator(source: str | Path) -> Accelerator:
    """One that ships, by name, or one from a YAML file.

    Raises:
        AcceleratorError: there is no such name or file, or the file is malformed.
    """
    text = str(source)
    if not text.endswith((".yaml", ".yml")):
        names = shipped_accelerators()
        if text not in names:
            raise AcceleratorError(
                f"config must be a .yaml file or one of {', '.join(names)}, not {text!r}{did_you_mean(text, names)}"
            )
        return Accelerator.parse((files(__package__) / _FOLDER / f"{text}.yaml").read_text("utf-8"), text)
    try:
        return Accelerator.parse(Path(text).read_text("utf-8"), text)
    except (OSError, UnicodeDecodeError) as error:
        raise AcceleratorError(f"{text} must be a readable YAML file: {error}") from error


def shipped_accelerators() -> tuple[str, ...]:
    """The names of the configurations that ship."""
    found = (files(__package__) / _FOLDER).iterdir()
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in found if entry.name.endswith(".yaml")))


def integer_formats(spec: LayerSpec) -> tuple[IntegerFormat, IntegerFormat]:
    """The formats of both operands, where a lane of integers runs them.

    Raises:
        SpecError: floating-point activations, a comparison format, or fp16/fp32 vector scales; says which.
    """
    if spec.activation is None:
        raise SpecError(f"a lane multiplies integers, and {spec} keeps activations in floating point; choose a2 to a8")
    if not isinstance(spec.weight, IntegerFormat) or not isinstance(spec.activation, IntegerFormat):
        raise SpecError(f"a lane multiplies integers, and {spec} is a comparison format; choose a spec like w4a8-s4/6")
    if not spec.has_integer_sums:
        raise SpecError(f"a lane needs integer vector scales or none, and {spec} has others; choose 2 to 10 bits or x")
    return spec.weight, spec.activation


def _format(bits: int, scale_bits: int, vector_size: int, *, signed: bool) -> IntegerFormat:
    scale = scale_bits or None
    return IntegerFormat(bits=bits, signed=signed, scale=scale, vector_size=vector_size if scale else None)


def _problem(error: ValidationError) -> str:
    """One problem, a misspelt key before the key that is missing for it, in the words of this project."""
    order = {"extra_forbidden": 0, "missing": 1, "literal_error": 3, "model_type": 4}
    first = min(error.errors(), key=lambda problem: order.get(problem["type"], 2))
    path = [str(part) for part in first["loc"] if str(part).isidentifier() and part != LaneWidths.__name__]
    where, kind = ".".join(path), first["type"]
    if kind == "missing":
        return f"{where} must be given, but it is missing"
    if kind == "extra_forbidden":
        return f"{where} is no key of an accelerator{did_you_mean(path[-1], _keys(path[:-1]))}"
    if kind == "value_error":
        return str(first["ctx"]["error"])
    return f"{where} {first['msg'].replace('Input should be', 'must be')}, not {first['input']!r:.40}"


def _keys(path: list[str]) -> list[str]:
    models: dict[str, type[BaseModel]] = {
        "lane": LaneWidths, "buffers": Buffers, "dram": Dram, "wide_lanes": WideLanes, "": Accelerator
    }  # fmt: skip
    return list(models.get(path[-1] if path else "", Accelerator).model_fields)
