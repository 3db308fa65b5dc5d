"""Whole layers through the lane and the post-processing unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32, Int64, Integer, Shaped

from vsquant.errors import ShapeError, SpecError
from vsquant.hardware.lane import Lane
from vsquant.hardware.lane_model import LaneOperand, lane_sums
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.recorded import RecordedLayer
from vsquant.reference import PostProcessed, post_process
from vsquant.reference.integer_formats import split_vectors
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.workload import Workload

SIX: Final = 6.0
"""What ReLU6 saturates at."""

Sums: TypeAlias = Int64[np.ndarray, "n positions k"]


class LayerSums(NamedTuple):
    """A layer's sums S of eq. (7), (N, positions, K); accumulations per output; and vectors gated, of how many."""

    sums: Sums
    accumulations: int
    gated: int
    vectors: int


def layer_sums(layer: RecordedLayer, lane: Lane | None = None) -> LayerSums:
    """Every sum of a layer on ``lane``, by default the one of the layer's own spec.

    A reduction of more than ``lane.max_vectors`` vectors is several accumulations: the accumulator is drained after
    each, and what left it is added up here.

    Raises:
        ShapeError, WidthError: the layer's operands are not of the lane's formats.
    """
    lane = lane or Lane.for_spec(layer.spec)
    columns: list[Int64[np.ndarray, "rows outputs"]] = []
    accumulations = gated = vectors = 0
    for weight, activation in group_operands(layer, lane.vector_size):
        parts = [lane_sums(lane, *part) for part in _accumulations(weight, activation, lane.max_vectors)]
        columns.append(sum((part.sums for part in parts), start=np.int64(0)))
        accumulations, gated = len(parts), gated + sum(part.gated for part in parts)
        vectors += columns[-1].size * weight.codes.shape[1]
    sums = np.concatenate(columns, axis=1).reshape(len(layer.activation_codes), -1, layer.workload.outputs)
    return LayerSums(sums, accumulations, gated, vectors)


def post_processed(
    layer: RecordedLayer, sums: Sums, unit: PostProcessingUnit, output_coarse: float
) -> tuple[PostProcessed, float]:
    """What the unit makes of a layer's sums, rows (N * positions), and the unit of its values, gamma_out * 2^-F.

    A residual becomes integers in that unit, half to even. ReLU6 is ReLU where codes end at 6 or below.

    Raises:
        SpecError: the layer's function is none that the unit has, or its own gamma is dynamic.
    """
    if len(np.unique(layer.activation_coarse)) != 1:
        raise SpecError(f"layer {layer.name!r} must have one static activation scale, not {layer.activation_coarse}")
    constants = unit.constants(
        weight_coarse=layer.weight_coarse,
        activation_coarse=float(layer.activation_coarse.flat[0]),
        output_coarse=output_coarse,
        bias=layer.bias,
        relu=is_relu(layer, unit, output_coarse),
    )
    step = output_coarse * 2.0**-unit.fraction_bits
    if layer.residual is not None:
        residual = np.rint(layer.residual.astype(np.float64) / step).astype(np.int64)
        constants = dataclasses.replace(constants, bias=constants.bias + residual.reshape(-1, sums.shape[2]))
    return post_process(sums.reshape(-1, sums.shape[2]), constants), step


def is_relu(layer: RecordedLayer, unit: PostProcessingUnit, output_coarse: float) -> bool:
    """Whether the unit's ReLU is to be on.

    Raises:
        SpecError: the layer's function is not ReLU or nothing, as far as codes can tell.
    """
    largest = float(output_coarse) * unit.output.scale_top * unit.output.qmax
    if layer.function == "gelu" or (layer.function == "relu6" and largest > SIX * (1 + 1e-6)):
        why = f", whose codes reach {largest:.3g}" if layer.function == "relu6" else ""
        raise SpecError(
            f"layer {layer.name!r} must be followed by ReLU or nothing for post-processing, not {layer.function}{why}"
        )
    return layer.function != "none"


def float_outputs(layer: RecordedLayer, sums: Sums) -> Float32[np.ndarray, "n positions k"]:
    """Eq. (7) from sums: y with bias, residual and ReLU, every operation rounded to float32.

    Raises:
        SpecError: the layer's function is ``gelu``.
    """
    if layer.function == "gelu":
        raise SpecError(f"float_outputs has no gelu, which follows layer {layer.name!r}")
    scale = layer.activation_coarse[:, :, None] * layer.weight_coarse
    y: Float32[np.ndarray, "n positions k"] = (
        scale * sums.astype(np.float32) * np.float32(2.0**layer.spec.product_shift)
    )
    y = y if layer.bias is None else y + layer.bias
    y = y if layer.residual is None else y + layer.residual
    y = y if layer.function == "none" else np.maximum(y, np.float32(0))
    return np.minimum(y, np.float32(SIX)) if layer.function == "relu6" else y


def group_operands(layer: RecordedLayer, vector_size: int) -> Iterator[tuple[LaneOperand, LaneOperand]]:
    """For each group its weights, rows of output channels, and its activations, rows of output positions.

    Vectors are in the order (R, S, C/V). An operand without vector scales is cut into vectors of ``vector_size`` at
    every kernel position; where neither has any, vectors are no longer than the reduction (1 in a depthwise layer).
    """
    workload = layer.workload
    if layer.spec.is_baseline:
        vector_size = min(vector_size, workload.reduction)
    weights = _cut(layer.weight_codes, _format(layer, "weight"), workload.reduction, vector_size)
    weights = weights.reshape(workload.outputs, -1, vector_size)
    weight_scale = None if layer.weight_scale is None else layer.weight_scale.reshape(weights.shape[:2])
    activations, activation_scale = _grouped(layer, vector_size)
    outputs = workload.outputs // workload.groups
    for group in range(workload.groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        yield (
            LaneOperand(codes=weights[rows], vector_scale=None if weight_scale is None else weight_scale[rows]),
            LaneOperand(
                codes=_windows(activations[..., group, :, :], workload).reshape(-1, *weights.shape[1:]),
                vector_scale=None
                if activation_scale is None
                else _windows(activation_scale[..., group, :], workload).reshape(-1, weights.shape[1]),
            ),
        )


def _format(layer: RecordedLayer, role: str) -> IntegerFormat:
    fmt = layer.spec.weight if role == "weight" else layer.spec.activation
    assert isinstance(fmt, IntegerFormat)
    return fmt


def _grouped(
    layer: RecordedLayer, vector_size: int
) -> tuple[
    Integer[np.ndarray, "n *positions groups vectors V"], Integer[np.ndarray, "n *positions groups vectors"] | None
]:
    """Activations with a dimension of groups, in the lane's vectors."""
    codes, groups = layer.activation_codes, layer.workload.groups
    fmt = _format(layer, "activation")
    if fmt.has_vectors:
        assert layer.activation_scale is not None
        scale = layer.activation_scale
        return (
            codes.reshape(*codes.shape[:-2], groups, -1, codes.shape[-1]),
            scale.reshape(*scale.shape[:-1], groups, -1),
        )
    channels = codes[..., 0, :].reshape(*codes.shape[:-2], groups, 1, layer.workload.reduction)
    return _cut(channels, fmt, layer.workload.reduction, vector_size), None


def _cut(
    codes: Shaped[np.ndarray, "*lead vectors V"], fmt: IntegerFormat, length: int, vector_size: int
) -> Shaped[np.ndarray, "*lead vectors_ V_"]:
    """Codes in vectors of ``vector_size``: as they are, or the one long vector cut where there are no scales."""
    if fmt.has_vectors:
        if codes.shape[-1] != vector_size:
            raise ShapeError(f"the lane's vectors must be of the layer's V, {codes.shape[-1]}, not {vector_size}")
        return codes
    rows = codes.reshape(-1, codes.shape[-1])[:, :length]
    cut = split_vectors(rows, vector_size)
    return cut.reshape(*codes.shape[:-2], *cut.shape[1:])


def _windows(x: Shaped[np.ndarray, "n *rest"], workload: Workload) -> Shaped[np.ndarray, "n *rest_"]:
    """What each output position sees: (N, P, Q, R, S, ...) of a convolution's (N, H, W, ...), zeros outside."""
    if workload.kind != "conv":
        return x
    assert workload.output_size is not None
    rows, columns = (_taps(workload, axis, x.shape[1 + axis]) for axis in (0, 1))
    zero = np.zeros((len(x), 1, *x.shape[2:]), dtype=x.dtype)
    padded = np.concatenate([x, zero], axis=1)
    zero = np.zeros((*padded.shape[:2], 1, *x.shape[3:]), dtype=x.dtype)
    padded = np.concatenate([padded, zero], axis=2)
    seen: Shaped[np.ndarray, "n *rest_"] = padded[:, rows[:, None, :, None], columns[None, :, None, :]]
    return seen


def _taps(workload: Workload, axis: int, size: int) -> Int64[np.ndarray, "positions taps"]:
    """The input index that each output index sees at each tap; ``size``, where the zeros are, beyond the edges."""
    assert workload.output_size is not None
    first = np.arange(workload.output_size[axis]) * workload.stride[axis] - workload.padding[axis]
    index = first[:, None] + np.arange(workload.kernel[axis]) * workload.dilation[axis]
    return np.where((index >= 0) & (index < size), index, size)


def _accumulations(
    weight: LaneOperand, activation: LaneOperand, max_vectors: int
) -> Iterator[tuple[LaneOperand, LaneOperand]]:
    """Parts of the reduction of at most ``max_vectors`` vectors."""
    for start in range(0, weight.codes.shape[1], max_vectors):
        part = slice(start, start + max_vectors)
        yield _vectors(weight, part), _vectors(activation, part)


def _vectors(operand: LaneOperand, part: slice) -> LaneOperand:
    scale = operand.vector_scale
    return LaneOperand(codes=operand.codes[:, part], vector_scale=None if scale is None else scale[:, part])
