"""How often a layer's operands come anew: from the buffer behind the processing elements, and from off the chip."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vsquant.hardware.accelerator.capacity import Capacity
from vsquant.hardware.accelerator.configuration import Accelerator, integer_formats
from vsquant.hardware.accelerator.fit import Fit
from vsquant.hardware.accelerator.mapping import LayerMapping
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec
from vsquant.spec.workload import Workload

CONSTANT_BITS = 64
"""Multiplier, shift and bias of one output channel, for the post-processing unit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensors:
    """Bits of a layer's operands as stored, vector scales included; a product's second operand counts as weights."""

    weight: int
    input: int
    output: int


def layer_tensors(spec: LayerSpec, workload: Workload, batch: int) -> Tensors:
    """What is stored: real elements without the zeros of padded tails, scales of whole vectors, outputs as codes."""
    weight, activation = integer_formats(spec)
    samples = workload.input_positions * batch
    outputs = _stored_bits(activation, workload.outputs) * workload.positions * batch
    if workload.kind == "matmul":
        columns = workload.outputs // workload.groups
        operand = _stored_bits(activation, workload.reduction) * columns * workload.groups * batch
        rows = _stored_bits(activation, workload.reduction) * workload.groups * workload.positions * batch
        return Tensors(weight=operand, input=rows, output=outputs)
    per_channel = workload.taps * _stored_bits(weight, workload.reduction) + CONSTANT_BITS
    inputs = workload.groups * _stored_bits(activation, workload.reduction) * samples
    return Tensors(weight=workload.outputs * per_channel, input=inputs, output=outputs)


def _stored_bits(fmt: IntegerFormat, length: int) -> int:
    """Bits of ``length`` elements along the vectors' dimension."""
    vectors = math.ceil(length / fmt.vector_size) if fmt.vector_size else 0
    return length * fmt.bits + vectors * fmt.scale_storage_bits


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopOrder:
    """How often operands come anew.

    ``weight_loads``: how often the weights of a channel tile come from the shared buffer, for all elements of its row
    together; ``copies``: how often they are written, to all those elements. ``weight_fetches`` and ``input_fetches``:
    how often both tensors come from off the chip, if they do. A tensor of at most ``half_bits``, half of the shared
    buffer, stays on the chip from one layer to the next.
    """

    weight_loads: int
    copies: int
    weight_fetches: int
    input_fetches: int
    half_bits: int


def loop_order(
    mapping: LayerMapping, fit: Fit, tensors: Tensors, accelerator: Accelerator, capacity: Capacity
) -> LoopOrder:
    """The loop order that moves fewer bits to and from the memory off the chip, eq. (A5).

    Rounds of channel tiles are outermost, and an input that does not fit half of the shared buffer comes anew in each;
    or it is cut into blocks of positions that fit, these are outermost, and the weights come anew in each. Where an
    element's buffer does not hold the weights of a channel tile, they come anew in every round of position tiles: from
    the shared buffer if half of it holds those of all rows.
    """
    half = capacity.shared // 2
    weight_bits, _ = word_bits(fit, accelerator)
    tile_words = mapping.words * fit.weight_digits
    rows = min(mapping.rows, mapping.channel_tiles)
    held = rows * fit.lanes * tile_words * (weight_bits + fit.lane.weight_scale_bits) <= half
    stay = tile_words <= capacity.weight_words_per_lane(fit)
    loads = 1 if stay else mapping.position_rounds
    fetches = 1 if stay or held else mapping.position_rounds
    copies = min(mapping.columns, mapping.position_tiles) if stay else mapping.position_tiles
    blocks = min(math.ceil(tensors.input / half), mapping.position_rounds)
    channels_first = LoopOrder(
        weight_loads=loads,
        copies=copies,
        weight_fetches=fetches,
        input_fetches=mapping.channel_rounds if blocks > 1 else 1,
        half_bits=half,
    )
    positions_first = LoopOrder(
        weight_loads=max(loads, blocks),
        copies=max(copies, min(copies * blocks, mapping.position_tiles)),
        weight_fetches=max(fetches, blocks),
        input_fetches=1,
        half_bits=half,
    )
    return min(
        channels_first,
        positions_first,
        key=lambda order: order.weight_fetches * tensors.weight + order.input_fetches * tensors.input,
    )


def word_bits(fit: Fit, accelerator: Accelerator) -> tuple[int, int]:
    """Bits of V codes as a lane takes them: weights, activations."""
    return accelerator.vector_size * fit.lane.weight_bits, accelerator.vector_size * fit.lane.operand_bits
