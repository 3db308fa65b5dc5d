"""Static activation ranges of a model's layers, from what calibration saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vsquant.calibrate import RangeStatistics, VectorMethod, calibrated_range, vector_range
from vsquant.errors import CalibrationError
from vsquant.nn import needs_range
from vsquant.nn.matmul import operand_formats
from vsquant.spec.formats import IntegerFormat, TensorFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.attention import AttentionEntry
from vsquant.transform.attention_core import AttentionRanges
from vsquant.transform.observe import Observations
from vsquant.transform.plan import LayerPlan


def activation_ranges(
    plans: Sequence[LayerPlan], observations: Observations, calibrator: str, vectors: VectorMethod = "max"
) -> Mapping[str, Tensor]:
    """The calibrated range (1,) of every layer with a static activation scale, matmuls aside.

    A layer with activation vector scales takes the maximum, or under ``vectors="mse"`` the range of least squared error
    on the sampled rows of its input (`Observations.rows`).
    """
    return {
        plan.match.name: _clipped_range(plan, observations)
        if vectors == "mse" and has_clippable_vectors(plan.spec)
        else _range(observations.statistics[plan.match.name], plan.spec.activation, calibrator)
        for plan in plans
        if plan.spec is not None and plan.match.kind not in ("embedding", "matmul") and needs_range(plan.spec)
    }


def has_clippable_vectors(spec: LayerSpec) -> bool:
    """Whether a layer of this spec has integer vector scales under a static coarse scale on its activations."""
    return needs_range(spec) and spec.activation is not None and spec.activation.two_level


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


def _clipped_range(plan: LayerPlan, observations: Observations) -> Tensor:
    name = plan.match.name
    assert plan.spec is not None and isinstance(plan.spec.activation, IntegerFormat)
    fmt = plan.spec.activation
    largest = float(calibrated_range(observations.statistics[name], fmt)[0])
    if name not in observations.rows:
        raise CalibrationError(
            f"layer {name!r} must have its input sampled for vector ranges by 'mse'; prepare the model with sample_rows"
        )
    return torch.from_numpy(vector_range(observations.rows[name], fmt, largest, name))


def _range(seen: RangeStatistics, fmt: TensorFormat | None, calibrator: str) -> Tensor:
    assert isinstance(fmt, IntegerFormat)
    return torch.from_numpy(calibrated_range(seen, fmt, "max" if fmt.has_vectors else calibrator))
