"""From quantized tensors to what one lane sees: weights held while the vectors of several positions stream by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float32

from vsquant.errors import ShapeError
from vsquant.hardware.energy.operands import LaneOperands
from vsquant.hardware.lane import Lane
from vsquant.hardware.lane_model import LaneOperand
from vsquant.reference import Quantized, quantize
from vsquant.spec.formats import IntegerFormat

DEPTH: Final = 16
"""Positions for which a lane holds a weight vector: as many as it has accumulators."""


def dataflow_operands(
    weight: LaneOperand, activation: LaneOperand, *, groups: int, depth: int = DEPTH, seed: int = 0
) -> LaneOperands:
    """Draws tiles of one output channel and ``depth`` neighbouring positions, and streams each vector by vector.

    ``weight`` has a row for each output channel, ``activation`` one for each position; both have the same vectors.

    Raises:
        ShapeError: the operands do not have the same vectors, or there are fewer positions than ``depth``.
    """
    channels, vectors, _ = weight.codes.shape
    positions = activation.codes.shape[0]
    if activation.codes.shape[1:] != weight.codes.shape[1:] or positions < depth:
        raise ShapeError(
            f"activation codes must be of {depth} or more positions and {weight.codes.shape[1:]} vectors, "
            f"not {activation.codes.shape}"
        )
    generator = np.random.default_rng(seed)
    tiles = -(-groups // vectors)
    channel = generator.integers(0, channels, tiles).repeat(vectors)[:groups]
    start = generator.integers(0, positions // depth, tiles).repeat(vectors)[:groups] * depth
    vector = np.tile(np.arange(vectors), tiles)[:groups]
    position = start[:, None] + np.arange(depth)
    return LaneOperands(
        weight_codes=weight.codes[channel, vector],
        weight_scale=None if weight.vector_scale is None else weight.vector_scale[channel, vector],
        activation_codes=activation.codes[position, vector[:, None]],
        activation_scale=None
        if activation.vector_scale is None
        else activation.vector_scale[position, vector[:, None]],
    )


def quantized_operands(
    lane: Lane,
    weight: Float32[np.ndarray, "channels length"],
    activation: Float32[np.ndarray, "positions length"],
    *,
    groups: int,
    depth: int = DEPTH,
    seed: int = 0,
) -> LaneOperands:
    """Real weights and inputs of a layer, quantized in the lane's formats by eqs. (1)-(5), as the lane sees them.

    The activation's coarse scale is that of these positions. Lengths must be whole vectors.
    """
    return dataflow_operands(
        _operand(quantize(weight, lane.weight, "row"), lane.weight, lane.vector_size),
        _operand(quantize(activation, lane.activation, "tensor"), lane.activation, lane.vector_size),
        groups=groups,
        depth=depth,
        seed=seed,
    )


def normal_operands(lane: Lane, *, groups: int, depth: int = DEPTH, seed: int = 0) -> LaneOperands:
    """Operands without a network: normally distributed weights and activations, quantized in the lane's formats.

    Unsigned activations are of the positive half, as behind ReLU.
    """
    generator = np.random.default_rng(seed)
    length = 16 * lane.vector_size
    weight = generator.standard_normal((64, length), dtype=np.float32)
    activation = generator.standard_normal((256, length), dtype=np.float32)
    return quantized_operands(lane, weight, activation, groups=groups, depth=depth, seed=seed)


def interleaved(parts: Sequence[LaneOperands], chunk: int) -> LaneOperands:
    """One stream of several layers' operands, ``chunk`` groups of each in turn.

    Raises:
        ShapeError: a part is not whole chunks, or some have vector scales and others have not.
    """

    def merged(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
        there = [array for array in arrays if array is not None]
        if not there:
            return None
        if len(there) < len(arrays) or any(array.shape != there[0].shape or len(array) % chunk for array in there):
            raise ShapeError(f"parts must be of one shape and of whole chunks of {chunk} groups")
        chunks = np.stack([array.reshape(-1, chunk, *array.shape[1:]) for array in there], axis=1)
        return chunks.reshape(-1, *there[0].shape[1:])

    weight, activation = merged([part.weight_codes for part in parts]), merged([p.activation_codes for p in parts])
    assert weight is not None and activation is not None
    return LaneOperands(
        weight_codes=weight,
        weight_scale=merged([part.weight_scale for part in parts]),
        activation_codes=activation,
        activation_scale=merged([part.activation_scale for part in parts]),
    )


def _operand(found: Quantized, fmt: IntegerFormat, vector_size: int) -> LaneOperand:
    rows, length = found.codes.shape[0], found.length
    if length % vector_size:
        raise ShapeError(f"a row must be whole vectors of {vector_size}, not {length} elements")
    codes = found.codes.reshape(rows, -1)[:, :length].reshape(rows, -1, vector_size).astype(np.int64)
    scale = found.vector_scale.astype(np.int64) if fmt.two_level and found.vector_scale is not None else None
    return LaneOperand(codes=codes, vector_scale=scale)
