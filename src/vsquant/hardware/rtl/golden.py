"""What a design is tested with: a layer's words for every port of ``vsq_pe``, and the cycles that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from vsquant.errors import ShapeError
from vsquant.hardware import streams
from vsquant.hardware.cycle_model import run_cycles
from vsquant.hardware.lane import Lane
from vsquant.hardware.lane_model import LaneOperand, lane_sums
from vsquant.hardware.layers import group_operands, is_relu
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.processing_element import ProcessingElement
from vsquant.hardware.recorded import RecordedLayer
from vsquant.hardware.streams import Stream
from vsquant.hardware.tiling import LayerShape, Plan, plan_layer
from vsquant.reference import PostProcessing
from vsquant.spec.formats import IntegerFormat

SYNTHETIC_VECTORS = 9
MOST_POSITIONS = 256
MOST_OUTPUT_TILES = 4


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The words of every port by its name, the cycles without hesitation, and where the operands are from."""

    plan: Plan
    ports: Mapping[str, Stream]
    cycles: int
    origin: str


def golden(
    plan: Plan,
    weight: LaneOperand,
    activation: LaneOperand,
    *,
    post_processing: PostProcessing | None,
    origin: str,
) -> Golden:
    """What a plan's ports carry, by the bit-true models."""
    nothing = Stream(bits=1, words=())
    return Golden(
        plan=plan,
        ports={
            "command": streams.commands(plan),
            "weights": streams.weights(plan, weight),
            "activations": streams.activations(plan, activation),
            "constants": streams.constants(plan, post_processing) if post_processing is not None else nothing,
            "sums": streams.raw_sums(plan, weight, activation),
            "codes": streams.output_codes(plan, weight, activation, post_processing)
            if post_processing is not None
            else nothing,
        },
        cycles=run_cycles(plan).cycles,
        origin=origin,
    )


def synthetic_golden(element: ProcessingElement, *, seed: int = 0) -> Golden:
    """A layer of random codes and scales, two tiles of output channels wide, post-processed where there is a unit."""
    lane, unit = element.lane, element.post_processing
    shape = LayerShape(
        outputs=2 * element.lanes, positions=3 * element.positions, vectors=min(SYNTHETIC_VECTORS, lane.max_vectors)
    )
    plan = plan_layer(element, shape, post_process=unit is not None, relu=unit is not None)
    rng = np.random.default_rng(seed)
    weight = _random(rng, (shape.outputs, shape.vectors), lane, lane.weight)
    activation = _random(rng, (shape.positions, shape.vectors), lane, lane.activation)
    constants = None if unit is None else _random_constants(rng, unit, weight, activation)
    origin = f"synthetic: random codes and vector scales (seed {seed}), every value as likely as any other"
    return golden(plan, weight, activation, post_processing=constants, origin=origin)


def layer_golden(
    layer: RecordedLayer, element: ProcessingElement, *, source: str, most_positions: int = MOST_POSITIONS
) -> Golden:
    """A recorded layer's own codes, scales and constants: its first sample and group, and as much of it as is quick.

    Raises:
        ShapeError: the layer's vectors are not the lane's.
        SpecError: the layer's function is none that the post-processing unit has.
    """
    weight, activation = next(group_operands(layer, element.lane.vector_size))
    if weight.codes.shape[2] != element.lane.vector_size:
        raise ShapeError(
            f"layer {layer.name!r} must have vectors of {element.lane.vector_size}, not {weight.codes.shape[2]}; "
            "choose a layer with more input channels"
        )
    outputs = min(len(weight.codes), MOST_OUTPUT_TILES * element.lanes)
    positions = min(layer.workload.positions, most_positions)
    weight, activation = _rows(weight, outputs), _rows(activation, positions)
    shape = LayerShape(outputs=outputs, positions=positions, vectors=weight.codes.shape[1])
    constants = _constants(layer, element.post_processing, outputs)
    plan = plan_layer(element, shape, post_process=constants is not None, relu=constants is not None and constants.relu)
    origin = (
        f"layer {layer.name} of {source}: {outputs} of {layer.workload.outputs} output channels, "
        f"{positions} of {layer.workload.positions} positions of one sample"
    )
    return golden(plan, weight, activation, post_processing=constants, origin=origin)


def _constants(layer: RecordedLayer, unit: PostProcessingUnit | None, outputs: int) -> PostProcessing | None:
    """The layer's constants; None where its sums are to leave as they are."""
    if unit is None or layer.output is None:
        return None
    found = unit.constants(
        weight_coarse=layer.weight_coarse,
        activation_coarse=float(layer.activation_coarse.flat[0]),
        output_coarse=layer.output.coarse_scale,
        bias=layer.bias,
        relu=is_relu(layer, unit, layer.output.coarse_scale),
    )
    return replace(found, multiplier=found.multiplier[:outputs], shift=found.shift[:outputs], bias=found.bias[:outputs])


def _random(rng: np.random.Generator, shape: tuple[int, int], lane: Lane, fmt: IntegerFormat) -> LaneOperand:
    return LaneOperand(
        codes=rng.integers(fmt.qmin, fmt.qmax + 1, (*shape, lane.vector_size)),
        vector_scale=rng.integers(fmt.scale_min, fmt.scale_top + 1, shape) if fmt.two_level else None,
    )


def _random_constants(
    rng: np.random.Generator, unit: PostProcessingUnit, weight: LaneOperand, activation: LaneOperand
) -> PostProcessing:
    """Coarse scales of 1 and a bias, such that outputs fill the range of the output format."""
    outputs = len(weight.codes)
    typical = float(lane_sums(unit.lane, weight, activation).sums.std()) * 2.0**unit.lane.scale_shift
    return unit.constants(
        weight_coarse=np.ones(outputs, dtype=np.float32),
        activation_coarse=1.0,
        output_coarse=2 * typical / (unit.output.qmax * unit.output.scale_top),
        bias=rng.normal(0, 0.3 * typical, outputs).astype(np.float32),
        relu=True,
    )


def _rows(operand: LaneOperand, count: int) -> LaneOperand:
    scale = operand.vector_scale
    return LaneOperand(codes=operand.codes[:count], vector_scale=None if scale is None else scale[:count])
