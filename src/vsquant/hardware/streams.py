"""What goes over the ports of ``vsq_pe``, beat by beat: operands and commands in, sums and codes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Integer

from vsquant.errors import SpecError
from vsquant.hardware.lane_model import LaneOperand, lane_sums
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.processing_element import ProcessingElement
from vsquant.hardware.tiling import Plan, Tile, drained_parts
from vsquant.reference import PostProcessing, post_process
from vsquant.spec.formats import IntegerFormat

COMMAND_FLAGS: Final = tuple(
    f"command_{name}" for name in ("drain", "requantize", "relu", "free_weights", "free_activations", "free_constants")
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """The words of one port; bit 0 is the first field's lowest."""

    bits: int
    words: tuple[int, ...]

    def hex(self) -> str:
        """One word a line, for ``$readmemh``."""
        digits = -(-self.bits // 4)
        return "".join(f"{word:0{digits}x}\n" for word in self.words)


def port_fields(element: ProcessingElement) -> dict[str, dict[str, int]]:
    """Of every port of ``vsq_pe`` its signals, apart from valid and ready, and their bits; the first is the lowest."""
    bits, lane = element.verilog_parameters(), element.lane
    return {
        "command": {
            "command_last_position": index_bits(element.positions),
            "command_last_vector": index_bits(element.weight_words),
            **dict.fromkeys(COMMAND_FLAGS, 1),
        },
        "weights": {
            "weights_codes": lane.vector_size * lane.weight_bits,
            "weights_scale": max(1, lane.weight_scale_bits),
            "weights_last": 1,
        },
        "activations": {
            "activations_codes": lane.vector_size * lane.activation_bits,
            "activations_scale": max(1, lane.activation_scale_bits),
            "activations_last": 1,
        },
        "constants": {
            "constants_data": bits["MULT_BITS"] + bits["SHIFT_BITS"] + bits["BIAS_BITS"],
            "constants_last": 1,
        },
        "sums": {"sums_data": element.drain_width * lane.accumulator_bits, "sums_last": 1, "sums_partial": 1},
        "codes": {"codes_data": bits["OUT_V"] * bits["CODE_BITS"], "codes_scale": max(1, bits["SCALE_BITS"])},
    }


def packed(values: Integer[np.ndarray, "words fields"], bits: int) -> list[int]:
    """One integer a row, its first field lowest; two's complement."""
    unsigned = np.ascontiguousarray(values.astype(np.int64))
    fields = np.unpackbits(unsigned.view(np.uint8).reshape(*values.shape, 8), axis=2, bitorder="little", count=bits)
    rows = np.packbits(fields.reshape(len(values), -1), axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in rows]


def commands(plan: Plan) -> Stream:
    """{free constants, free activations, free weights, ReLU, requantize, drain, last vector, last position}."""
    element = plan.element
    position_bits, vector_bits = index_bits(element.positions), index_bits(element.weight_words)
    words = []
    for tile in plan.tiles:
        flags = (tile.drain, plan.post_process, plan.relu, tile.free_weights, True, tile.free_constants)
        word = tile.positions - 1 | (tile.vectors - 1) << position_bits
        words.append(word | sum(flag << i for i, flag in enumerate(flags)) << (position_bits + vector_bits))
    return Stream(bits=position_bits + vector_bits + 6, words=tuple(words))


def weights(plan: Plan, operand: LaneOperand) -> Stream:
    """{last, sigma, codes}: for each tile that loads weights, vector by vector, lane by lane; absent lanes are zero."""
    lanes = plan.element.lanes
    parts = []
    for tile in plan.tiles:
        if tile.load_weights:
            rows = np.arange(tile.output, tile.output + lanes)
            columns = np.arange(tile.vector, tile.vector + tile.vectors)
            parts.append((rows[None, :], columns[:, None]))
    return _operand_stream(parts, operand, plan.element.lane.weight)


def activations(plan: Plan, operand: LaneOperand) -> Stream:
    """{last, sigma, codes}: for each tile, vector by vector, position by position."""
    parts = []
    for tile in plan.tiles:
        rows = np.arange(tile.position, tile.position + tile.positions)
        columns = np.arange(tile.vector, tile.vector + tile.vectors)
        parts.append((rows[None, :], columns[:, None]))
    return _operand_stream(parts, operand, plan.element.lane.activation)


def raw_sums(plan: Plan, weight: LaneOperand, activation: LaneOperand) -> Stream:
    """{partial, last, sums}: ``drain_width`` lanes a beat, position by position, for each part that leaves as sums."""
    element = plan.element
    width, bits = element.drain_width, element.lane.accumulator_bits
    words: list[int] = []
    for tile, begin, end in drained_parts(plan):
        complete = tile.drain and end == plan.shape.vectors
        if complete and plan.post_process:
            continue
        beats = packed(tile_sums(plan, tile, begin, end, weight, activation).reshape(-1, width), bits)
        beats[-1] |= 1 << (width * bits)
        words += [beat | (not complete) << (width * bits + 1) for beat in beats]
    return Stream(bits=width * bits + 2, words=tuple(words))


def constants(plan: Plan, post_processing: PostProcessing) -> Stream:
    """{last, bias, shift, multiplier}: all lanes' channels for each tile that loads them; absent ones are zero."""
    unit, lanes = _unit(plan), plan.element.lanes
    bits = unit.verilog_parameters()
    shift_bit, bias_bit = bits["MULT_BITS"], bits["MULT_BITS"] + bits["SHIFT_BITS"]
    words: list[int] = []
    for tile in plan.tiles:
        if tile.load_constants:
            part = _channels(post_processing, tile, lanes)
            bias = part.bias & ((1 << bits["BIAS_BITS"]) - 1)
            columns = zip(part.multiplier.tolist(), part.shift.tolist(), bias.tolist(), strict=True)
            words += [m | r << shift_bit | b << bias_bit for m, r, b in columns]
            words[-1] |= 1 << bias_bit + bits["BIAS_BITS"]
    return Stream(bits=bias_bit + bits["BIAS_BITS"] + 1, words=tuple(words))


def output_codes(plan: Plan, weight: LaneOperand, activation: LaneOperand, post_processing: PostProcessing) -> Stream:
    """{sigma, codes}: position by position, the vectors of output channels of each tile that is post-processed."""
    unit = _unit(plan)
    fmt, size = unit.output, unit.vector_size
    words: list[int] = []
    for tile, begin, end in drained_parts(plan):
        sums = tile_sums(plan, tile, begin, end, weight, activation)
        found = post_process(sums, _channels(post_processing, tile, plan.element.lanes))
        sigma = np.ones(found.codes.size // size) if found.vector_scale is None else found.vector_scale.ravel()
        beats = packed(found.codes.reshape(-1, size), fmt.bits)
        words += [beat | int(scale) << size * fmt.bits for beat, scale in zip(beats, sigma, strict=True)]
    return Stream(bits=size * fmt.bits + max(1, fmt.scale_storage_bits), words=tuple(words))


def _unit(plan: Plan) -> PostProcessingUnit:
    if plan.element.post_processing is None or not plan.post_process:
        raise SpecError("the plan must be of a layer that is post-processed; plan_layer(…, post_process=True)")
    return plan.element.post_processing


def _channels(post_processing: PostProcessing, tile: Tile, lanes: int) -> PostProcessing:
    """The constants of a tile's output channels, zero where there are fewer channels than lanes."""

    def padded(values: Integer[np.ndarray, " k"]) -> Integer[np.ndarray, " lanes"]:
        part = values[tile.output : tile.output + lanes]
        return np.pad(part, (0, lanes - len(part)))

    return dataclasses.replace(
        post_processing,
        multiplier=padded(post_processing.multiplier),
        shift=padded(post_processing.shift),
        bias=padded(post_processing.bias),
    )


def tile_sums(
    plan: Plan, tile: Tile, begin: int, end: int, weight: LaneOperand, activation: LaneOperand
) -> Integer[np.ndarray, "positions lanes"]:
    """Sums of a tile's positions over the vectors from ``begin`` to before ``end``; absent lanes are zero."""
    lanes = plan.element.lanes
    sums = np.zeros((tile.positions, lanes), dtype=np.int64)
    rows = slice(tile.output, tile.output + lanes)
    positions = slice(tile.position, tile.position + tile.positions)
    part = lane_sums(
        plan.element.lane, _slice(weight, rows, begin, end), _slice(activation, positions, begin, end)
    ).sums
    sums[:, : part.shape[1]] = part
    return sums


def index_bits(count: int) -> int:
    """Bits of an index below ``count``; at least one."""
    return max(1, (count - 1).bit_length())


def _slice(operand: LaneOperand, rows: slice, begin: int, end: int) -> LaneOperand:
    scale = operand.vector_scale
    return LaneOperand(
        codes=operand.codes[rows, begin:end],
        vector_scale=None if scale is None else scale[rows, begin:end],
    )


def _operand_stream(
    parts: Sequence[tuple[Integer[np.ndarray, "..."], Integer[np.ndarray, "..."]]],
    operand: LaneOperand,
    fmt: IntegerFormat,
) -> Stream:
    """Vectors at (rows, columns) of each part; the last beat of a part ends its bank."""
    size, scale_bits = operand.codes.shape[2], fmt.scale_storage_bits
    lasts_bit = size * fmt.bits + max(1, scale_bits)
    words: list[int] = []
    for rows, columns in parts:
        present = np.broadcast_to(rows < len(operand.codes), np.broadcast_shapes(rows.shape, columns.shape)).ravel()
        rows = np.minimum(rows, len(operand.codes) - 1)
        codes = operand.codes[rows, columns].reshape(-1, size) * present[:, None]
        beats = packed(codes, fmt.bits)
        if operand.vector_scale is not None:
            fed = (operand.vector_scale[rows, columns].ravel() - fmt.scale_min) * present
            beats = [beat | int(scale) << size * fmt.bits for beat, scale in zip(beats, fed, strict=True)]
        beats[-1] |= 1 << lasts_bit
        words += beats
    return Stream(bits=lasts_bit + 1, words=tuple(words))
