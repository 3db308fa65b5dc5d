"""What a lane is fed, in dataflow order: a weight vector is held while the vectors of several positions stream by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Int64, Integer, UInt8, UInt64

from vsquant.errors import ShapeError, WidthError
from vsquant.hardware.lane import Lane
from vsquant.reference import round_product
from vsquant.spec.formats import IntegerFormat

WORD_STREAMS = 64
PIPELINE_CYCLES = 4
"""Cycles from an operand at the lane's ports to the sum that has it."""

Stimulus: TypeAlias = dict[str, UInt64[np.ndarray, "cycles bits words"]]
"""Values of each port, bit by bit, for each cycle; bit s of a word is stream s."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LaneOperands:
    """Operands of one lane: codes of ``groups`` weight vectors, and of the ``depth`` activation vectors each meets.

    Shapes: weight_codes (groups, V), weight_scale (groups,), activation_codes (groups, depth, V),
    activation_scale (groups, depth). Scales are sigma, and None without vector scales.
    """

    weight_codes: Integer[np.ndarray, "groups V"]
    weight_scale: Integer[np.ndarray, "groups"] | None
    activation_codes: Integer[np.ndarray, "groups depth V"]
    activation_scale: Integer[np.ndarray, "groups depth"] | None

    def __post_init__(self) -> None:
        groups, vector_size = self.weight_codes.shape
        if self.activation_codes.ndim != 3 or self.activation_codes.shape[::2] != (groups, vector_size):
            raise ShapeError(
                f"activation_codes must be of shape ({groups}, depth, {vector_size}), not {self.activation_codes.shape}"
            )
        for scale, codes in (
            (self.weight_scale, self.weight_codes),
            (self.activation_scale, self.activation_codes),
        ):
            if scale is not None and scale.shape != codes.shape[:-1]:
                raise ShapeError(f"a scale must be there for each of {codes.shape[:-1]} vectors, not {scale.shape}")

    @property
    def groups(self) -> int:
        """How many weight vectors."""
        return int(self.weight_codes.shape[0])

    @property
    def depth(self) -> int:
        """How many positions a weight vector is held for."""
        return int(self.activation_codes.shape[1])

    def first(self, groups: int) -> LaneOperands:
        """The operands of the first weight vectors alone."""
        return LaneOperands(
            weight_codes=self.weight_codes[:groups],
            weight_scale=None if self.weight_scale is None else self.weight_scale[:groups],
            activation_codes=self.activation_codes[:groups],
            activation_scale=None if self.activation_scale is None else self.activation_scale[:groups],
        )

    def without_scales(self) -> LaneOperands:
        """The same codes for a lane that has no vector scales."""
        return LaneOperands(
            weight_codes=self.weight_codes,
            weight_scale=None,
            activation_codes=self.activation_codes,
            activation_scale=None,
        )


def stimulus(lane: Lane, operands: LaneOperands, streams: int = WORD_STREAMS) -> Stimulus:
    """The lane's ports over groups / streams * depth cycles; stream s has its share of the groups in order.

    Raises:
        ShapeError: the groups do not divide into the streams, or vectors are not of the lane's size.
        WidthError: a code or a scale is not of its format.
    """
    if operands.groups % streams or operands.weight_codes.shape[1] != lane.vector_size:
        raise ShapeError(
            f"operands must be of V = {lane.vector_size} in a multiple of {streams} groups, "
            f"not {operands.weight_codes.shape}"
        )
    depth = operands.depth
    columns = {
        "w": _code_bits(operands.weight_codes, lane.weight).repeat(depth, axis=0),
        "sw": _scale_bits(operands.weight_scale, lane.weight, operands.groups).repeat(depth, axis=0),
        "a": _code_bits(operands.activation_codes.reshape(-1, lane.vector_size), lane.activation),
        "sa": _scale_bits(_flat(operands.activation_scale), lane.activation, operands.groups * depth),
    }
    starts = np.zeros((operands.groups * depth, 1), dtype=np.uint8)
    starts[::depth] = 1
    columns |= {"w_load": starts, "first": starts, "a_valid": np.ones_like(starts), "rst": np.zeros_like(starts)}
    return {port: _words(bits, streams) for port, bits in columns.items()}


def expected_sums(lane: Lane, operands: LaneOperands) -> Int64[np.ndarray, "groups depth"]:
    """What the lane's accumulator holds after each activation vector: eqs. (7)-(8), a new sum for each group."""
    dots = np.einsum("gv,gdv->gd", operands.weight_codes.astype(np.int64), operands.activation_codes.astype(np.int64))
    weight = np.ones(operands.groups, np.int64) if operands.weight_scale is None else operands.weight_scale
    activation = np.ones(dots.shape, np.int64) if operands.activation_scale is None else operands.activation_scale
    products = weight.astype(np.int64)[:, None] * activation.astype(np.int64)
    if lane.scale_shift and lane.product_bits is not None:
        products = round_product(products, lane.scale_shift, lane.product_bits)
    return np.cumsum(dots * products, axis=1)


def _code_bits(codes: Integer[np.ndarray, "n V"], fmt: IntegerFormat) -> UInt8[np.ndarray, "n bits"]:
    if codes.size and (codes.min() < fmt.qmin or codes.max() > fmt.qmax):
        raise WidthError(f"codes must be {fmt.qmin}..{fmt.qmax}, not {codes.min()}..{codes.max()}")
    return _bits(codes, fmt.bits).reshape(codes.shape[0], -1)


def _scale_bits(scale: Integer[np.ndarray, "n"] | None, fmt: IntegerFormat, rows: int) -> UInt8[np.ndarray, "n bits"]:
    if not fmt.two_level:
        return np.zeros((rows, 1), dtype=np.uint8)
    if scale is None or scale.min() < fmt.scale_min or scale.max() > fmt.scale_top:
        raise WidthError(f"vector scales must be {fmt.scale_min}..{fmt.scale_top}, and there for a lane that has them")
    return _bits(scale - (1 if fmt.scale_top_pow2 else 0), fmt.scale_storage_bits)


def _bits(values: Integer[np.ndarray, "..."], bits: int) -> UInt8[np.ndarray, "... bits"]:
    """Two's complement bits, lowest first."""
    return ((values.astype(np.int64)[..., None] >> np.arange(bits)) & 1).astype(np.uint8)


def _words(bits: UInt8[np.ndarray, "n bits"], streams: int) -> UInt64[np.ndarray, "cycles bits words"]:
    """Cuts the cycles into as many streams as bits of words; a last word of fewer streams is filled with zeros."""
    by_cycle = bits.reshape(streams, -1, bits.shape[1]).transpose(1, 2, 0)
    padding = -streams % WORD_STREAMS
    padded = np.pad(by_cycle, ((0, 0), (0, 0), (0, padding)))
    packed = np.packbits(padded, axis=2, bitorder="little")
    words: UInt64[np.ndarray, "cycles bits words"] = np.ascontiguousarray(packed).view(np.uint64)
    return words


def _flat(scale: Integer[np.ndarray, "groups depth"] | None) -> Integer[np.ndarray, "n"] | None:
    return None if scale is None else scale.reshape(-1)
