"""The record of one point of a design space: a network in one format on one accelerator, and all that was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from vsquant.errors import StoreError
from vsquant.results.records import Provenance
from vsquant.results.scores import Scores

PointFamily: TypeAlias = Literal["float", "per-channel", "vector", "comparison", "mixed"]
"""The float network, the per-channel baseline, per-vector scales, another standard's format, or a spec per layer."""

FAMILIES: Final[tuple[PointFamily, ...]] = ("float", "per-channel", "vector", "comparison", "mixed")
"""In the order of tables and pictures."""


@dataclass(frozen=True, kw_only=True)
class PointSpec:
    """What is asked of one point: all that its record depends on besides data, versions and machine.

    ``network`` is the task's name. ``spec`` is in notation, ``"float"`` for the float network, or a name for a recipe
    with a spec per layer, whose text is ``recipe``. ``accelerator`` names the hardware configuration, empty where the
    point is not priced.
    """

    network: str
    spec: str
    family: PointFamily
    scale_mode: str = "requantize"
    method: str = "rtn"
    first_last: str = "same"
    accelerator: str = ""
    recipe: str = ""


@dataclass(frozen=True, kw_only=True)
class PointLayer:
    """One quantized layer of a point.

    ``weight_sqnr_db`` is None where the weight is not quantized, or exact; ``output_sqnr_db`` is of the layer's output
    on calibration samples, None where it was not measured. ``scale_code_counts`` has 2^M (under ``-top`` 2^M too)
    counts of the weight's integer vector scales; ``weight_histogram`` counts of elements before and after, by bin of
    |x| over the maximum of its vector, in equal bins of [0, 1]; both are empty where there are none.
    """

    name: str
    spec: str
    macs: int
    weight_sqnr_db: float | None = None
    output_sqnr_db: float | None = None
    scale_code_counts: tuple[int, ...] = ()
    weight_histogram: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    activation_histogram: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Measured time of one sample: medians of interleaved calls of the integer and of the float network."""

    seconds: float
    float_seconds: float
    batch: int
    threads: int
    backend: str
    machine: str


@dataclass(frozen=True, kw_only=True)
class PointCost:
    """What the hardware model says of one inference, and its ratios to 8/8 per-channel on the same accelerator."""

    accelerator: str
    energy_pj: dict[str, float]
    area_um2: dict[str, float]
    cycles: int
    cycles_by_bound: dict[str, int]
    energy_ratio: float
    area_ratio: float
    performance_per_area_ratio: float
    requested_share: float
    lane: str = ""


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A cheap stand-in for the metric: mean SQNR of the network's outputs on few samples, and what became of it."""

    output_sqnr_db: float
    samples: int
    pruned: bool = False
    rule: str = ""


@dataclass(frozen=True, kw_only=True)
class PointRecord:
    """One evaluated point.

    ``scores`` is None where the point was pruned by its proxy and never evaluated. ``weight_bytes`` is what the
    quantized weights occupy packed, all scales included, and ``model_bytes`` the whole network. ``quantize_seconds``
    and ``evaluate_seconds`` are what the point itself took, without what it shared with others. ``unpriced`` says why
    there is no ``cost`` and ``untimed`` why there is no ``latency``.
    """

    point: PointSpec
    title: str
    scores: Scores | None
    weight_bytes: int
    model_bytes: int
    layers: tuple[PointLayer, ...]
    quantize_seconds: float
    evaluate_seconds: float
    provenance: Provenance
    proxy: Proxy | None = None
    latency: Latency | None = None
    cost: PointCost | None = None
    unpriced: str = ""
    untimed: str = ""
    calibration_samples: int = 0
    details: dict[str, str] = field(default_factory=dict)

    @property
    def pruned(self) -> bool:
        """Whether only the proxy of the point was measured."""
        return self.scores is None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the scores as plain values, ready for JSON."""
        return dataclasses.asdict(dataclasses.replace(self, scores=None))

    @staticmethod
    def from_dict(plain: Mapping[str, Any], scores: Scores | None) -> PointRecord:
        """The record that `to_dict` wrote, with its scores; raises `StoreError` where a field is missing or foreign."""
        fields = dict(plain)
        try:
            fields["point"] = PointSpec(**fields["point"])
            fields["provenance"] = Provenance(**fields["provenance"])
            fields["layers"] = tuple(_layer(layer) for layer in fields["layers"])
            for name, kind in (("proxy", Proxy), ("latency", Latency), ("cost", PointCost)):
                fields[name] = None if fields[name] is None else kind(**fields[name])
            fields["scores"] = scores
            return PointRecord(**fields)
        except (KeyError, TypeError) as error:
            raise StoreError(f"a stored point must have the fields of a PointRecord, not {sorted(plain)}") from error


@dataclass(frozen=True, kw_only=True)
class FailedPoint:
    """A point that could not be evaluated: the error's text and traceback, and how often it was tried."""

    point: PointSpec
    reason: str
    traceback: str
    attempts: int
    provenance: Provenance

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> FailedPoint:
        """The failure that `dataclasses.asdict` wrote; raises `StoreError` where a field is missing or foreign."""
        fields = dict(plain)
        try:
            fields["point"], fields["provenance"] = PointSpec(**fields["point"]), Provenance(**fields["provenance"])
            return FailedPoint(**fields)
        except (KeyError, TypeError) as error:
            raise StoreError(f"a stored failure must have the fields of a FailedPoint, not {sorted(plain)}") from error


def _layer(plain: Mapping[str, Any]) -> PointLayer:
    pairs = {name: tuple(tuple(part) for part in plain[name]) for name in ("weight_histogram", "activation_histogram")}
    return PointLayer(**{**plain, **pairs, "scale_code_counts": tuple(plain["scale_code_counts"])})
