"""Static activation ranges of a model's layers, from what calibration saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vsquant.calibrate import RangeStatistics, calibrated_range
from vsquant.errors import CalibrationError
from vsquant.nn import needs_range
from vsquant.nn.matmul import operand_formats
from vsquant.spec.formats import IntegerFormat, TensorFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.attention import AttentionEntry
from vsquant.transform.attention_core import AttentionRanges
from vsquant.transform.observe import Observations
from vsquant.transform.plan import LayerPlan


def activation_ranges(plans: Sequence[LayerPlan], observations: Observations, calibrator: str) -> Mapping[str, Tensor]:
    """The calibrated range (1,) of every layer with a static activation scale, matmuls aside.

    A layer with activation vector scales takes the maximum: clipping is what its vector scales make unnecessary.
    """
    return {
        plan.match.name: _range(observations.statistics[plan.match.name], plan.spec.activation, calibrator)
        for plan in plans
        if plan.spec is not None and plan.match.kind not in ("embedding", "matmul") and needs_range(plan.spec)
    }


def attention_entries(
    plans: Sequence[LayerPlan], observations: Observations, calibrator: str, scale_mode: ScaleMode
) -> tuple[AttentionEntry, ...]:
    """The matmuls to quantize, with the ranges of static scales.

    Raises:
        CalibrationError: a matmul with static scales was not reached by the calibration data.
    """
    return tuple(
        AttentionEntry(
            name=plan.match.name,
            spec=plan.spec,
            scale_mode=scale_mode,
            ranges=_attention_ranges(plan.match.name, plan.spec, observations, calibrator),
        )
        for plan in plans
        if plan.spec is not None and plan.match.kind == "matmul"
    )


def _attention_ranges(
    name: str, spec: LayerSpec, observations: Observations, calibrator: str
) -> AttentionRanges | None:
    if not needs_range(spec):
        return None
    seen = observations.matmuls.get(name)
    if seen is None:
        raise CalibrationError(
            f"matmul {name!r} with {spec} needs calibration data that reaches it; "
            "give such data, skip the matmul in a recipe, or use a spec with -tensor or -token"
        )
    assert spec.activation is not None
    probabilities, signed = operand_formats(spec.activation, unsigned_a=True)
    return AttentionRanges(
        query=_range(seen["query"], signed, calibrator),
        key=_range(seen["key"], signed, calibrator),
        probabilities=_range(seen["probabilities"], probabilities, calibrator),
        value=_range(seen["value"], signed, calibrator),
    )


def _range(seen: RangeStatistics, fmt: TensorFormat | None, calibrator: str) -> Tensor:
    assert isinstance(fmt, IntegerFormat)
    return torch.from_numpy(calibrated_range(seen, fmt, "max" if fmt.has_vectors else calibrator))
