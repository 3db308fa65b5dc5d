"""The lane bit for bit: every register of one vector's way through it, and whole layers' sums at once.

`run_lane` is the plain version, in Python's integers, and refuses any value that its register does not hold;
`lane_sums` is the same for many rows of weights and activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Int64, Integer

from vsquant.errors import ShapeError, WidthError
from vsquant.hardware.lane import Lane, Range, signed_bits
from vsquant.reference import round_product
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.widths import round_scale_product

FLOAT32_EXACT = 1 << 24
"""Integers up to here are float32 values, so that a sum of products below it is exact in any order."""

Codes: TypeAlias = Integer[np.ndarray, "rows vectors V"]
Scales: TypeAlias = Integer[np.ndarray, "rows vectors"]
Sums: TypeAlias = Int64[np.ndarray, "n k"]


@dataclass(frozen=True, kw_only=True, eq=False)
class LaneOperand:
    """Rows of whole vectors of one operand: ``codes`` (rows, vectors, V) and ``vector_scale`` (rows, vectors).

    ``vector_scale`` holds sigma (not sigma - 1, as which ``-top`` is fed) and is None without vector scales.
    """

    codes: Codes
    vector_scale: Scales | None

    def __post_init__(self) -> None:
        if self.codes.ndim != 3:
            raise ShapeError(f"codes must be of shape (rows, vectors, V), not {self.codes.shape}")
        if self.vector_scale is not None and self.vector_scale.shape != self.codes.shape[:2]:
            raise ShapeError(
                f"vector_scale must have one scale for each of {self.codes.shape[:2]} vectors, "
                f"not {self.vector_scale.shape}"
            )


class LaneStep(NamedTuple):
    """What one vector leaves in the lane's registers.

    ``gated``: the scale product is zero, so the scale multiplier keeps its operands and the partial sum is forced to
    zero. (A zero dot product is known too late, behind the adder tree.)
    """

    dot: int
    scale_product: int
    gated: bool
    partial: int
    accumulator: int


class LaneSums(NamedTuple):
    """Accumulators after all vectors, (rows of activations, rows of weights), and how many vectors were gated."""

    sums: Sums
    gated: int


def run_lane(
    lane: Lane,
    weight_codes: Sequence[Sequence[int]],
    weight_scale: Sequence[int] | None,
    activation_codes: Sequence[Sequence[int]],
    activation_scale: Sequence[int] | None,
) -> list[LaneStep]:
    """One accumulation, vector by vector, codes (vectors, V) and scales (vectors): the plain version.

    Raises:
        WidthError: a value does not fit its width: operands that are not of their formats, or too many vectors.
    """
    steps: list[LaneStep] = []
    accumulator = 0
    for j, (w, a) in enumerate(zip(weight_codes, activation_codes, strict=True)):
        dot = _dot(lane, w, a)
        product = _scale_product(
            lane, 1 if weight_scale is None else weight_scale[j], 1 if activation_scale is None else activation_scale[j]
        )
        gated = product == 0
        partial = 0 if gated else _held(dot * product, lane.scaled_bits, "a scaled partial sum")
        accumulator = _held(accumulator + partial, lane.accumulator_bits, "the accumulator")
        steps.append(LaneStep(dot, product, gated, partial, accumulator))
    return steps


def lane_sums(lane: Lane, weight: LaneOperand, activation: LaneOperand) -> LaneSums:
    """One accumulation for every pair of a row of activations and a row of weights, as `run_lane`.

    Vectors may be shorter than the lane's: the other multipliers are then fed zeros.

    Raises:
        ShapeError: the operands do not have the same number of vectors, or theirs are longer than the lane's.
        WidthError: a value is not of its format, or there are more than ``lane.max_vectors`` vectors.
    """
    check_operands(lane, weight, activation)
    vectors = weight.codes.shape[1]
    if vectors > lane.max_vectors:
        raise WidthError(
            f"one accumulation must be of at most {lane.max_vectors} vectors in {lane.accumulator_bits} bits, "
            f"not {vectors}; drain the accumulator in between"
        )
    exact = np.float32 if max(map(abs, lane.dot_range)) <= FLOAT32_EXACT else np.float64
    codes_w = weight.codes.transpose(1, 2, 0).astype(exact)
    codes_a = activation.codes.transpose(1, 0, 2).astype(exact)
    sums = np.zeros((codes_a.shape[1], codes_w.shape[2]), dtype=np.int64)
    gated = 0
    for j in range(vectors):
        dot = (codes_a[j] @ codes_w[j]).astype(np.int64)
        product = _scale_products(lane, weight, activation, j)
        gated += (product.size - int(np.count_nonzero(product))) * dot.size // max(1, product.size)
        sums += dot * product
    return LaneSums(sums, gated)


def check_operands(lane: Lane, weight: LaneOperand, activation: LaneOperand) -> None:
    """Refuse operands that the lane cannot be fed.

    Raises:
        ShapeError, WidthError: as `lane_sums`.
    """
    if weight.codes.shape[1:] != activation.codes.shape[1:] or weight.codes.shape[2] > lane.vector_size:
        raise ShapeError(
            f"both operands must have the same number of vectors of at most {lane.vector_size}, "
            f"not {weight.codes.shape} (weight) and {activation.codes.shape} (activation)"
        )
    _check_values(weight, lane.weight, "weight")
    _check_values(activation, lane.activation, "activation")


def _check_values(operand: LaneOperand, fmt: IntegerFormat, role: str) -> None:
    _check_range(operand.codes, (fmt.qmin, fmt.qmax), f"{role} codes")
    if (operand.vector_scale is None) == fmt.two_level:
        raise ShapeError(
            f"the {role} must come {'with' if fmt.two_level else 'without'} vector scales, as the lane's format says"
        )
    if operand.vector_scale is not None:
        _check_range(operand.vector_scale, (fmt.scale_min, fmt.scale_top), f"{role} vector scales")


def _check_range(values: Integer[np.ndarray, "..."], allowed: Range, name: str) -> None:
    if values.size and not (allowed[0] <= values.min() and values.max() <= allowed[1]):
        raise WidthError(
            f"{name} must be {allowed[0]}..{allowed[1]}, as the lane's format says, not {values.min()}..{values.max()}"
        )


def _scale_products(lane: Lane, weight: LaneOperand, activation: LaneOperand, j: int) -> Integer[np.ndarray, "#n #k"]:
    """Scale products of vector ``j`` after eq. (8), (rows of activations, rows of weights), 1 of a side without."""
    ones = np.ones((1, 1), dtype=np.int64)
    w = ones if weight.vector_scale is None else weight.vector_scale[None, :, j].astype(np.int64)
    a = ones if activation.vector_scale is None else activation.vector_scale[:, j, None].astype(np.int64)
    return round_product(a * w, lane.scale_shift, lane.product_bits)


def _dot(lane: Lane, weight: Sequence[int], activation: Sequence[int]) -> int:
    """V products through the adder tree, two and two; every level is as wide as its sums need."""
    if len(weight) != lane.vector_size or len(activation) != lane.vector_size:
        raise ShapeError(f"a vector must have {lane.vector_size} elements, not {len(weight)} and {len(activation)}")
    level = []
    for w, a in zip(weight, activation, strict=True):
        w = _held(w, lane.weight_bits, "a weight code")
        a = _held(a, lane.activation_bits, "an activation code", signed=lane.activation_signed)
        level.append(_held(w * a, lane.code_product_bits, "a product of codes"))
    low, high = lane.code_product_range
    terms = 1
    while len(level) > 1:
        terms = min(2 * terms, lane.vector_size)
        width = signed_bits((low * terms, high * terms))
        level = [_held(sum(level[i : i + 2]), width, f"a sum of {terms} products") for i in range(0, len(level), 2)]
    return _held(level[0], lane.dot_bits, "a dot product")


def _scale_product(lane: Lane, weight_scale: int, activation_scale: int) -> int:
    """The scale product after eq. (8); 1 without vector scales."""
    if not lane.has_scale_product:
        return 1
    product = round_scale_product(weight_scale * activation_scale, lane.scale_shift, lane.product_bits)
    return _held(product, lane.scale_product_bits, "a scale product", signed=False)


def _held(value: int, bits: int, what: str, *, signed: bool = True) -> int:
    """``value`` itself, once it is known to fit a register.

    Raises:
        WidthError: it does not.
    """
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= value <= high:
        kind = "two's complement" if signed else "unsigned"
        raise WidthError(f"{what} must fit {bits} bits ({kind}), {low}..{high}, not be {value}")
    return value
