"""From what a recipe requests of each layer to what each layer gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from vsquant.calibrate import RangeStatistics
from vsquant.errors import CalibrationError, SpecError
from vsquant.reference.integer_formats import check_scale_mode
from vsquant.reference.integer_linear import activation_scale_mode
from vsquant.results.layers import LayerReport
from vsquant.spec.formats import IntegerFormat, padded_length
from vsquant.spec.layer import GammaMode, LayerSpec, ScaleMode
from vsquant.transform.float_layers import float_weight, pads_like_tensorflow
from vsquant.transform.match import NO_RULE, Match, find_layers


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
        activation = None if spec is None or self.match.kind == "embedding" else spec.activation
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


def plan_layers(matches: Sequence[Match], fallback: LayerSpec, scale_mode: ScaleMode) -> tuple[LayerPlan, ...]:
    """Settle what each matched layer gets, as far as that can be known before any data is seen.

    A convolution with groups of fewer than V channels takes ``fallback``; an embedding keeps only the weight's part of
    its spec; a matmul only the activation's.

    Raises:
        SpecError: a layer cannot be quantized as its spec says, or ``scale_mode`` is not defined for it; the message
            names the layer.
    """
    return tuple(_plan(match, fallback, scale_mode) for match in matches)


def with_signs(plans: Sequence[LayerPlan], statistics: Mapping[str, RangeStatistics]) -> tuple[LayerPlan, ...]:
    """The plans with unsigned activations only where the observed input is never negative; notes name the others.

    Raises:
        CalibrationError: a layer that needs statistics was not reached by the calibration data.
    """
    return tuple(_with_sign(plan, statistics.get(plan.match.name)) for plan in plans)


def unsupported_layers(model: nn.Module) -> tuple[LayerReport, ...]:
    """Reports of the modules with matrices of their own that no rule can reach: kinds vsquant does not quantize."""
    reached = {layer.name for layer in find_layers(model)}
    return tuple(
        LayerReport(
            name=name,
            kind=type(module).__name__,
            rule=NO_RULE,
            requested=None,
            spec=None,
            weights=weights,
            padding=0.0,
            unsigned_activations=None,
            note=_unsupported(module),
        )
        for name, module in model.named_modules()
        if name not in reached and (weights := _own_weights(module))
    )


def _unsupported(module: nn.Module) -> str:
    if isinstance(module, nn.MultiheadAttention):
        return (
            "kind not supported: left floating point; its projections are bare matrices: attention that calls Linear "
            "layers in its forward can be quantized"
        )
    return "kind not supported: left floating point; Linear, Conv1d, Conv2d and Embedding layers can be quantized"


def _own_weights(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters(recurse=False) if p.dim() > 1)


def _plan(match: Match, fallback: LayerSpec, scale_mode: ScaleMode) -> LayerPlan:
    spec, note = match.requested, match.note
    if spec is None:
        return LayerPlan(match=match, spec=None, note=note)
    if match.custom_forward and not pads_like_tensorflow(match.module):
        reason = f"{type(match.module).__name__} has a forward of its own: left floating point"
        return LayerPlan(match=match, spec=None, note=_joined(note, reason))
    _check(match, spec, scale_mode)
    if _groups_too_small(match.module, spec):
        channels = float_weight(match.module).shape[1]
        note = _joined(note, f"groups of {channels} channels are fewer than V={spec.vector_size}: fallback")
        spec = _fallback_for(spec, fallback)
    if match.kind == "embedding" and isinstance(spec.activation, IntegerFormat):
        spec = replace(spec, activation=None, product_bits=None, gamma="static")
    if match.kind == "matmul" and spec != (signed := spec.signed_activation()):
        note = _joined(note, "only probabilities are unsigned")
        spec = signed
    return LayerPlan(match=match, spec=spec, note=note)


def _check(match: Match, spec: LayerSpec, scale_mode: ScaleMode) -> None:
    """Refuse before the long work what the layer itself would refuse after it."""
    if isinstance(match.module, (nn.Conv1d, nn.Conv2d)) and spec.gamma == "token":
        raise SpecError(f"layer {match.name!r}: a convolution has no tokens; use -tensor or -static, not {spec}")
    if match.kind == "matmul" and spec.activation is None:
        raise SpecError(
            f"matmul {match.name!r}: both operands are activations, so the spec must quantize them, not {spec}"
        )
    for fmt, mode in ((spec.weight, scale_mode), (spec.activation, activation_scale_mode(scale_mode))):
        if isinstance(fmt, IntegerFormat):
            try:
                check_scale_mode(fmt, mode)
            except SpecError as error:
                raise SpecError(f"layer {match.name!r} with {spec}: {error}") from error


def _with_sign(plan: LayerPlan, seen: RangeStatistics | None) -> LayerPlan:
    spec, match = plan.spec, plan.match
    if spec is None or match.kind in ("embedding", "matmul") or not spec.needs_calibration:
        return plan
    if seen is None:
        raise CalibrationError(
            f"layer {match.name!r} with {spec} needs calibration data that reaches it; "
            "give such data, skip the layer in a recipe, or use a spec with -tensor or -token and no 'u'"
        )
    if seen.is_non_negative or spec == spec.signed_activation():
        return plan
    note = _joined(plan.note, "input goes below zero: signed")
    return replace(plan, spec=spec.signed_activation(), note=note)


def _groups_too_small(module: nn.Module, spec: LayerSpec) -> bool:
    if not isinstance(module, (nn.Conv1d, nn.Conv2d)) or spec.vector_size is None:
        return False
    return module.groups > 1 and float_weight(module).shape[1] < spec.vector_size


def _fallback_for(requested: LayerSpec, fallback: LayerSpec) -> LayerSpec:
    """The fallback with what the request says of activations: float, unsigned where possible, found at run time."""
    if fallback.is_comparison:
        return fallback
    activation = fallback.activation if requested.activation is not None else None
    if activation is None:
        return replace(fallback, activation=None, product_bits=None, gamma="static")
    assert isinstance(activation, IntegerFormat)
    if requested.activation is not None and not requested.activation.signed:
        activation = replace(activation, signed=False)
    gamma: GammaMode = "tensor" if requested.is_dynamic and activation.has_coarse_scale else "static"
    return replace(fallback, activation=activation, gamma=gamma)


def padding_share(match: Match, spec: LayerSpec) -> float:
    """Share of a layer's stored weights that pad the tails of its vectors; 0 for matmuls, which store none."""
    length = 0 if match.kind == "matmul" else float_weight(match.module).shape[1]
    padded = padded_length(length, spec.weight.vector_size)
    return (padded - length) / padded if padded else 0.0


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
