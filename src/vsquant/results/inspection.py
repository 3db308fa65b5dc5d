"""What a checkpoint holds, layer by layer, and what a model and a spec would run into before any long work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FindingLevel: TypeAlias = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class LayerInspection:
    """One quantized layer of a checkpoint.

    ``shape`` is the float weight's; ``elements`` its number of elements; ``stored_bytes`` what codes and all scales
    occupy once packed, ``file_bytes`` what they occupy in the file; ``scale_codes_used`` of ``scale_codes_total`` (2^M)
    vector-scale codes occur (both None without integer vector scales); ``sqnr_db`` is the weight's
    signal-to-quantization-noise ratio, None where the float weight is not at hand.
    """

    name: str
    kind: str
    spec: str
    shape: tuple[int, ...]
    elements: int
    stored_bytes: int
    file_bytes: int
    scale_codes_used: int | None
    scale_codes_total: int | None
    sqnr_db: float | None
    note: str = ""

    @property
    def bits_per_weight(self) -> float:
        """Storage bits per weight, scales included."""
        return 8 * self.stored_bytes / self.elements if self.elements else 0.0


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A checkpoint: where it is, what it is of, the form in which it is loaded, and its quantized layers.

    ``file_bytes`` is the file's size; ``float_bytes`` is what tensors outside quantized layers (and biases) take;
    ``float32_bytes`` and ``float16_bytes`` are what all tensors would take in those types; ``left_float`` has the
    layers that stayed floating point, and why.
    """

    path: str
    architecture: str
    format_version: int
    form: Literal["simulated", "integer"]
    file_bytes: int
    float_bytes: int
    float32_bytes: int
    float16_bytes: int
    layers: tuple[LayerInspection, ...]
    left_float: tuple[tuple[str, str], ...] = ()

    @property
    def elements(self) -> int:
        """Number of quantized weights."""
        return sum(layer.elements for layer in self.layers)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all quantized weights with their scales in the packed format."""
        return sum(layer.stored_bytes for layer in self.layers)

    @property
    def weight_file_bytes(self) -> int:
        """Bytes of all quantized weights with their scales in the file."""
        return sum(layer.file_bytes for layer in self.layers)

    @property
    def bits_per_weight(self) -> float:
        """Storage bits per quantized weight, scales included."""
        return 8 * self.stored_bytes / self.elements if self.elements else 0.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know before quantizing; ``layer`` is None where it is about the whole model."""

    level: FindingLevel
    layer: str | None
    text: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What quantizing ``model`` by ``spec`` (notation or recipe) would run into, with estimates of memory and time."""

    model: str
    spec: str
    findings: tuple[Finding, ...]
    peak_memory_bytes: int | None = None
    seconds: float | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing found is an error."""
        return all(finding.level != "error" for finding in self.findings)
