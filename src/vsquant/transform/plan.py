"""From what a recipe requests of each layer to what each layer gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from vsquant.calibrate import RangeStatistics
from vsquant.errors import CalibrationError
from vsquant.results.layers import LayerReport
from vsquant.spec.formats import IntegerFormat, padded_length
from vsquant.spec.layer import GammaMode, LayerSpec
from vsquant.transform.float_layers import float_weight, pads_like_tensorflow
from vsquant.transform.match import Match


@dataclass(frozen=True, kw_only=True)
class LayerPlan:
    """One layer's decision: ``spec`` is the spec in force, None where the layer stays float; ``note`` says why."""

    match: Match
    spec: LayerSpec | None
    note: str

    @property
    def report(self) -> LayerReport:
        """The plan as a record."""
        module, spec = self.match.module, self.spec
        activation = None if spec is None else spec.activation
        return LayerReport(
            name=self.match.name,
            kind=self.match.kind,
            rule=self.match.rule_text,
            requested=None if self.match.requested is None else str(self.match.requested),
            spec=None if spec is None else str(spec),
            weights=0 if self.match.kind == "matmul" else float_weight(module).numel(),
            padding=0.0 if spec is None else padding_share(self.match, spec),
            unsigned_activations=None if activation is None else not activation.signed,
            note=self.note,
        )


def plan_layers(
    matches: Sequence[Match], statistics: Mapping[str, RangeStatistics], fallback: LayerSpec
) -> tuple[LayerPlan, ...]:
    """Settle fallbacks and signedness for every matched layer.

    A convolution with groups of fewer than V channels takes ``fallback``; unsigned activations stay only where the
    observed input is never negative.

    Raises:
        CalibrationError: a layer that needs statistics was not reached by the calibration data.
    """
    return tuple(_plan(match, statistics.get(match.name), fallback) for match in matches)


def _plan(match: Match, seen: RangeStatistics | None, fallback: LayerSpec) -> LayerPlan:
    spec, note = match.requested, match.note
    if spec is None:
        return LayerPlan(match=match, spec=None, note=note)
    if match.custom_forward and not pads_like_tensorflow(match.module):
        reason = f"{type(match.module).__name__} has a forward of its own: left floating point"
        return LayerPlan(match=match, spec=None, note=_joined(note, reason))
    if _groups_too_small(match.module, spec):
        note = _joined(
            note,
            f"groups of {float_weight(match.module).shape[1]} channels are fewer than V={spec.vector_size}: fallback",
        )
        spec = _fallback_for(spec, fallback)
    if match.kind not in ("embedding", "matmul") and spec.needs_calibration and seen is None:
        raise CalibrationError(
            f"layer {match.name!r} with {spec} needs calibration data that reaches it; "
            "give such data, skip the layer in a recipe, or use a spec with -tensor or -token and no 'u'"
        )
    if seen is not None and spec.activation is not None and not spec.activation.signed:
        spec = spec if seen.is_non_negative else spec.signed_activation()
    if match.kind == "embedding" and spec.activation is not None:
        spec = replace(spec, activation=None, product_bits=None, gamma="static")
    return LayerPlan(match=match, spec=spec, note=note)


def _groups_too_small(module: nn.Module, spec: LayerSpec) -> bool:
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)) or spec.vector_size is None:
        return False
    return module.groups > 1 and float_weight(module).shape[1] < spec.vector_size


def _fallback_for(requested: LayerSpec, fallback: LayerSpec) -> LayerSpec:
    """The fallback with what the request says of activations: float, unsigned where possible, found at run time."""
    if requested.activation is None:
        return replace(fallback, activation=None, product_bits=None, gamma="static")
    activation = fallback.activation
    if isinstance(activation, IntegerFormat) and not requested.activation.signed:
        activation = replace(activation, signed=False)
    gamma: GammaMode = "static" if activation is None or requested.gamma == "static" else "tensor"
    return replace(fallback, activation=activation, gamma=gamma)


def padding_share(match: Match, spec: LayerSpec) -> float:
    """Share of a layer's stored weights that pad the tails of its vectors; 0 for matmuls, which store none."""
    length = 0 if match.kind == "matmul" else float_weight(match.module).shape[1]
    padded = padded_length(length, spec.weight.vector_size)
    return (padded - length) / padded if padded else 0.0


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
