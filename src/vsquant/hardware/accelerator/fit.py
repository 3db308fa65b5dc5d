"""Whether a layer's operands fit a lane, and how many passes they take where they are too wide for one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vsquant.errors import AcceleratorError
from vsquant.hardware.accelerator.configuration import Accelerator, LaneWidths, integer_formats
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How a layer runs on lanes: digits its codes are cut into, and words of the lane one of its vectors takes.

    ``lanes`` of width ``lane`` work on it in every processing element; ``wide`` says whether they are the wide ones.
    """

    lane: LaneWidths
    lanes: int
    wide: bool
    weight_digits: int
    activation_digits: int
    vector_size: int
    words_per_vector: int

    @property
    def passes(self) -> int:
        """Products of digits for one product of codes, P of eq. (A1)."""
        return self.weight_digits * self.activation_digits


def fit_layer(accelerator: Accelerator, lane: LaneWidths, spec: LayerSpec, *, name: str) -> Fit:
    """How a layer of ``spec`` runs on ``accelerator`` with such lanes.

    Codes wider than a lane are cut into digits with a sign each: a signed operand of b bits takes b - 1 bits of
    magnitude at a time, an unsigned one b. Every pair of digits is a pass, whose sum is drained and shifted into place
    by the post-processing unit. Layers without vector scales run with constant ones.

    Raises:
        AcceleratorError: the layer does not fit, and the accelerator has nothing for such layers; says why.
        SpecError: no lane of integers runs the spec.
    """
    reason = misfit_reason(lane, spec, accelerator.vector_size)
    if reason is None and (_passes(lane, spec) == (1, 1) or accelerator.misfit == "passes"):
        return _fit(accelerator, lane, accelerator.lanes, spec, wide=False)
    reason = reason or too_wide(lane, spec)
    if accelerator.wide_lanes is None:
        raise AcceleratorError(
            f"layer {name!r} with {spec} does not fit lanes of {lane.text(accelerator.vector_size)}: {reason}; "
            "give the accelerator wide_lanes with misfit: wide, or wider lanes"
            + (", or misfit: passes" if accelerator.misfit == "refuse" else "")
        )
    wide = accelerator.wide_lanes
    reason = misfit_reason(wide.lane, spec, accelerator.vector_size)
    if reason is not None or _passes(wide.lane, spec) != (1, 1):
        raise AcceleratorError(
            f"layer {name!r} with {spec} does not fit the wide lanes of {wide.lane.text(accelerator.vector_size)} "
            f"either: {reason or too_wide(wide.lane, spec)}; make wide_lanes wider"
        )
    return _fit(accelerator, wide.lane, wide.lanes, spec, wide=True)


def misfit_reason(lane: LaneWidths, spec: LayerSpec, vector_size: int) -> str | None:
    """Why no number of passes gives the layer's sums on the lane; None where some does."""
    weight, activation = integer_formats(spec)
    for role, fmt, bits in (
        ("weight", weight, lane.weight_scale_bits),
        ("activation", activation, lane.activation_scale_bits),
    ):
        if fmt.scale_width_bits > bits:
            return f"its {role} scales have {fmt.scale_width_bits} bits, the lane's {bits}"
    if activation.signed and lane.activations == "unsigned":
        return "its activations are signed, the lane's unsigned"
    if spec.vector_size is not None and max(spec.vector_size, vector_size) % min(spec.vector_size, vector_size):
        return f"its vectors have {spec.vector_size} elements, which neither divide nor are divided by {vector_size}"
    if weight.two_level and activation.two_level and spec.product_shift != lane.scale_shift:
        return f"it drops {spec.product_shift} bits of the scale product by eq. (8), the lane {lane.scale_shift}"
    return None


def too_wide(lane: LaneWidths, spec: LayerSpec) -> str:
    """In which operand a layer is wider than a lane."""
    weight, activation = integer_formats(spec)
    if magnitude_bits(weight.bits, signed=True) > magnitude_bits(lane.weight_bits, signed=True):
        return f"its weights have {weight.bits} bits, the lane's {lane.weight_bits}"
    kind = "signed" if lane.activations != "unsigned" else "unsigned"
    own = "signed" if activation.signed else "unsigned"
    return f"its {own} activations have {activation.bits} bits, the lane's {kind} operand {lane.operand_bits}"


def magnitude_bits(bits: int, *, signed: bool) -> int:
    """Bits of a code without its sign."""
    return bits - 1 if signed else bits


def _passes(lane: LaneWidths, spec: LayerSpec) -> tuple[int, int]:
    """Digits of a weight and of an activation."""
    weight, activation = integer_formats(spec)
    lane_signed = lane.activations != "unsigned"
    return (
        math.ceil(magnitude_bits(weight.bits, signed=True) / magnitude_bits(lane.weight_bits, signed=True)),
        math.ceil(_magnitude(activation) / magnitude_bits(lane.operand_bits, signed=lane_signed)),
    )


def _magnitude(fmt: IntegerFormat) -> int:
    return magnitude_bits(fmt.bits, signed=fmt.signed)


def _fit(accelerator: Accelerator, lane: LaneWidths, lanes: int, spec: LayerSpec, *, wide: bool) -> Fit:
    weight_digits, activation_digits = _passes(lane, spec)
    vector_size = spec.vector_size or accelerator.vector_size
    return Fit(
        lane=lane,
        lanes=lanes,
        wide=wide,
        weight_digits=weight_digits,
        activation_digits=activation_digits,
        vector_size=vector_size,
        words_per_vector=math.ceil(vector_size / accelerator.vector_size),
    )
