"""Stimulus for ``vsq_mac_lane``, cycle by cycle, and what the bit-true model says of it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from vsquant.hardware import Lane
from vsquant.hardware.lane_model import run_lane
from vsquant.hardware.streams import packed

LATENCY_CYCLES = 4
FEW = 1 << 12


@dataclass
class Stimulus:
    """What a lane is fed in consecutive cycles: codes (cycles, V), scales and control (cycles,)."""

    w: np.ndarray
    sw: np.ndarray
    a: np.ndarray
    sa: np.ndarray
    w_load: np.ndarray
    a_valid: np.ndarray
    first: np.ndarray


def lane_case(lane: Lane, seed: int = 0) -> dict[str, Any]:
    """Words of every input, and of every vector (cycle, accumulator, whether the scale multiplier is gated)."""
    rng = np.random.default_rng(seed)
    parts = [_random(lane, rng, 250), _corners(lane), _scale_pairs(lane, rng), _code_pairs(lane, rng)]
    names = Stimulus.__dataclass_fields__
    fed = Stimulus(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
    words = {
        "w": packed(fed.w, lane.weight_bits),
        "a": packed(fed.a, lane.activation_bits),
        "sw": fed.sw - lane.weight.scale_min if lane.weight.two_level else 0 * fed.sw,
        "sa": fed.sa if lane.activation.two_level else 0 * fed.sa,
        "w_load": fed.w_load,
        "a_valid": fed.a_valid,
        "first": fed.first,
    }
    inputs = {name: [f"{int(word):x}" for word in column] for name, column in words.items()}
    return {"inputs": inputs, "vectors": _expected(lane, fed), "has_scales": lane.has_scale_product}


def _expected(lane: Lane, fed: Stimulus) -> list[tuple[int, int, bool]]:
    vectors, accumulator, held = [], 0, 0
    for cycle in range(len(fed.w)):
        held = cycle if fed.w_load[cycle] else held
        if not fed.a_valid[cycle]:
            continue
        step = run_lane(
            lane,
            [fed.w[held].tolist()],
            [int(fed.sw[held])] if lane.weight.two_level else None,
            [fed.a[cycle].tolist()],
            [int(fed.sa[cycle])] if lane.activation.two_level else None,
        )[0]
        accumulator = step.partial + (0 if fed.first[cycle] else accumulator)
        vectors.append((cycle + LATENCY_CYCLES, accumulator, step.gated))
    return vectors


def _random(lane: Lane, rng: np.random.Generator, cycles: int) -> Stimulus:
    """Random operands, some of them zero, some with the smallest scale; weights stay for some cycles, inputs pause."""
    size, held = lane.vector_size, min(lane.max_vectors, 50)
    scales = []
    for fmt in (lane.weight, lane.activation):
        some = rng.integers(fmt.scale_min, fmt.scale_top + 1, cycles)
        scales.append(np.where(rng.random(cycles) < 0.1, fmt.scale_min, some))
    return Stimulus(
        w=rng.integers(lane.weight.qmin, lane.weight.qmax + 1, (cycles, size)) * (rng.random((cycles, 1)) < 0.9),
        sw=scales[0],
        a=rng.integers(lane.activation.qmin, lane.activation.qmax + 1, (cycles, size))
        * (rng.random((cycles, 1)) < 0.9),
        sa=scales[1],
        w_load=(rng.random(cycles) < 0.3) | (np.arange(cycles) == 0),
        a_valid=(rng.random(cycles) < 0.8) | (np.arange(cycles) % held == 0),
        first=np.arange(cycles) % held == 0,
    )


def _corners(lane: Lane) -> Stimulus:
    """Each pair of extreme codes with the largest scales, as often as the accumulator holds."""
    weight, activation, count = lane.weight, lane.activation, lane.max_vectors
    corners = np.array(list(itertools.product((weight.qmin, weight.qmax), (activation.qmin, activation.qmax))))
    w, a = np.repeat(corners, count, axis=0).T
    return _dense(
        lane, w[:, None], np.full(len(w), weight.scale_top), a[:, None], np.full(len(w), activation.scale_top)
    )


def _scale_pairs(lane: Lane, rng: np.random.Generator) -> Stimulus:
    """All pairs of scales where they are few, else some; codes as large as they can be."""
    sw, sa = _pairs(lane.weight.scale_min, lane.weight.scale_top, lane.activation.scale_min, lane.activation.scale_top)
    if len(sw) > FEW:
        some = rng.choice(len(sw), FEW // 16, replace=False)
        sw, sa = sw[some], sa[some]
    ones = np.ones((len(sw), 1), dtype=np.int64)
    return _dense(lane, ones * lane.weight.qmin, sw, ones * lane.activation.qmax, sa, alone=True)


def _code_pairs(lane: Lane, rng: np.random.Generator) -> Stimulus:
    """All pairs of codes where they are few, else some, V to a cycle and in random places; with random scales."""
    w, a = _pairs(lane.weight.qmin, lane.weight.qmax, lane.activation.qmin, lane.activation.qmax)
    order = rng.permutation(len(w))[:FEW]
    order = np.resize(order, -(-len(order) // lane.vector_size) * lane.vector_size)
    cycles = len(order) // lane.vector_size
    sw = rng.integers(lane.weight.scale_min, lane.weight.scale_top + 1, cycles)
    sa = rng.integers(lane.activation.scale_min, lane.activation.scale_top + 1, cycles)
    return _dense(lane, w[order].reshape(cycles, -1), sw, a[order].reshape(cycles, -1), sa, alone=True)


def _pairs(low: int, high: int, other_low: int, other_high: int) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.meshgrid(np.arange(low, high + 1), np.arange(other_low, other_high + 1), indexing="ij")
    return first.ravel(), second.ravel()


def _dense(
    lane: Lane, w: np.ndarray, sw: np.ndarray, a: np.ndarray, sa: np.ndarray, *, alone: bool = False
) -> Stimulus:
    """New operands in every cycle; each vector alone, or as many to a sum as the accumulator holds."""
    cycles, shape = len(w), (len(w), lane.vector_size)
    every = np.ones(cycles, dtype=bool)
    first = every if alone else np.arange(cycles) % lane.max_vectors == 0
    return Stimulus(
        w=np.broadcast_to(w, shape), sw=sw, a=np.broadcast_to(a, shape), sa=sa, w_load=every, a_valid=every, first=first
    )
