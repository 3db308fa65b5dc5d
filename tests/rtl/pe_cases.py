"""Cases for ``benches/ports_bench.py``: a plan's words, and when they leave by the cycle model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vsquant.hardware import Lane, streams
from vsquant.hardware.cycle_model import Ports, run_cycles
from vsquant.hardware.lane_model import LaneOperand
from vsquant.hardware.streams import Stream, index_bits
from vsquant.hardware.tiling import Plan
from vsquant.reference import PostProcessing
from vsquant.spec.formats import IntegerFormat

Field = tuple[str, int]
EMPTY = Stream(bits=1, words=())


def patterns(seed: int, willing: float = 0.7, length: int = 997) -> Ports:
    """Every port hesitates at random, each by itself."""
    rng = np.random.default_rng(seed)
    names = ("command", "weights", "activations", "constants", "sums", "codes")
    return Ports(**{name: tuple(bool(x) for x in rng.random(length) < willing) for name in names})


def random_layer(plan: Plan, seed: int) -> tuple[LaneOperand, LaneOperand]:
    """Codes and scales of a layer's weights and activations, each value as likely as any other."""
    rng, lane = np.random.default_rng(seed), plan.element.lane
    return (
        _random(rng, (plan.shape.outputs, plan.shape.vectors), lane, lane.weight),
        _random(rng, (plan.shape.positions, plan.shape.vectors), lane, lane.activation),
    )


def _random(rng: np.random.Generator, shape: tuple[int, int], lane: Lane, fmt: IntegerFormat) -> LaneOperand:
    return LaneOperand(
        codes=rng.integers(fmt.qmin, fmt.qmax + 1, (*shape, lane.vector_size)),
        vector_scale=rng.integers(fmt.scale_min, fmt.scale_top + 1, shape) if fmt.two_level else None,
    )


def case_of(
    plan: Plan,
    weight: LaneOperand,
    activation: LaneOperand,
    *,
    ports: Ports,
    post_processing: PostProcessing | None = None,
) -> dict[str, Any]:
    """Every port's words and willingness, and in which cycles sums and codes leave."""
    words = {
        "command": streams.commands(plan),
        "weights": streams.weights(plan, weight),
        "activations": streams.activations(plan, activation),
        "constants": EMPTY if post_processing is None else streams.constants(plan, post_processing),
        "sums": streams.raw_sums(plan, weight, activation),
        "codes": EMPTY if post_processing is None else streams.output_codes(plan, weight, activation, post_processing),
    }
    run = run_cycles(plan, ports)
    fields = _fields(plan)
    given = {name: port(fields[name], stream.words, getattr(ports, name)) for name, stream in words.items()}
    return {
        "patience": run.cycles + 1000,
        "leaves": {"sums": run.sums, "codes": run.codes},
        "sources": {name: given[name] for name in ("command", "weights", "activations", "constants")},
        "sinks": {name: given[name] for name in ("sums", "codes")},
    }


def port(fields: list[Field], words: Sequence[int], pattern: Sequence[bool]) -> dict[str, Any]:
    """What ``ports_bench`` needs to know of a port; the first field is the lowest."""
    return {
        "fields": _offsets(fields),
        "words": [f"{word:x}" for word in words],
        "pattern": [int(willing) for willing in pattern],
    }


def _fields(plan: Plan) -> dict[str, list[Field]]:
    element, lane = plan.element, plan.element.lane
    sums = element.drain_width * lane.accumulator_bits
    unit = element.post_processing
    parameters = element.verilog_parameters()
    constants = sum(parameters.get(name, 0) for name in ("MULT_BITS", "SHIFT_BITS", "BIAS_BITS"))
    return {
        "command": [
            ("command_last_position", index_bits(element.positions)),
            ("command_last_vector", index_bits(element.weight_words)),
            ("command_drain", 1),
            ("command_requantize", 1),
            ("command_relu", 1),
            ("command_free_weights", 1),
            ("command_free_activations", 1),
            ("command_free_constants", 1),
        ],
        "weights": [
            ("weights_codes", lane.vector_size * lane.weight_bits),
            ("weights_scale", max(1, lane.weight_scale_bits)),
            ("weights_last", 1),
        ],
        "activations": [
            ("activations_codes", lane.vector_size * lane.activation_bits),
            ("activations_scale", max(1, lane.activation_scale_bits)),
            ("activations_last", 1),
        ],
        "constants": [("constants_data", constants), ("constants_last", 1)],
        "sums": [("sums_data", sums), ("sums_last", 1), ("sums_partial", 1)],
        "codes": []
        if unit is None
        else [
            ("codes_data", unit.vector_size * unit.output.bits),
            ("codes_scale", max(1, unit.output.scale_storage_bits)),
        ],
    }


def _offsets(fields: list[Field]) -> list[tuple[str, int, int]]:
    offset, placed = 0, []
    for name, bits in fields:
        placed.append((name, offset, bits))
        offset += bits
    return placed
