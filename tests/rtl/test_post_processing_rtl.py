"""The post-processing unit alone against its definition: corners and random values, with pauses inside vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.rtl.pe_cases import port

from vsquant.hardware import Lane
from vsquant.hardware.post_processing import BIAS_BITS, PostProcessingUnit
from vsquant.hardware.streams import packed
from vsquant.reference import PostProcessing, post_process
from vsquant.spec import LayerSpec

VECTORS = 150


def constants(unit: PostProcessingUnit, rng: np.random.Generator, relu: bool) -> PostProcessing:
    """Random constants for every channel of every vector, whose values are of the size that the format holds."""
    count = VECTORS * unit.vector_size
    multiplier = rng.integers(1 << (unit.multiplier_bits - 1), 1 << unit.multiplier_bits, count)
    bias = rng.normal(0, 0.2 * 2**unit.value_bits, count).astype(np.int64)
    shift = rng.integers(0, unit.product_bits, count)
    middling = unit.product_bits - unit.value_bits
    shift = np.where(rng.random(count) < 0.8, np.clip(middling + rng.integers(-3, 4, count), 0, None), shift)
    corners = rng.random(count)
    limit = (1 << (BIAS_BITS - 1)) - 1
    return PostProcessing(
        format=unit.output,
        fraction_bits=unit.fraction_bits,
        value_bits=unit.value_bits,
        relu=relu,
        multiplier=np.where(corners < 0.02, 0, np.where(corners > 0.98, (1 << unit.multiplier_bits) - 1, multiplier)),
        shift=shift,
        bias=np.clip(np.where(rng.random(count) < 0.02, limit * rng.choice([-1, 1], count), bias), -limit, limit),
    )


def sums_of(unit: PostProcessingUnit, rng: np.random.Generator) -> np.ndarray:
    """Sums of every magnitude, the extremes among them; some vectors zero altogether."""
    largest = (1 << (unit.lane.accumulator_bits - 1)) - 1
    shape = (VECTORS, unit.vector_size)
    sums = rng.integers(-largest - 1, largest + 1, shape) >> rng.integers(0, unit.lane.accumulator_bits, (VECTORS, 1))
    corners = rng.random(shape)
    sums = np.where(corners < 0.01, -largest - 1, np.where(corners > 0.99, largest, sums))
    return sums * (rng.random((VECTORS, 1)) < 0.9)


def ties(unit: PostProcessingUnit, given: PostProcessing, sums: np.ndarray, rng: np.random.Generator) -> PostProcessing:
    """The same, with the bias so that in every other vector the values are multiples of half a step, and a few zero."""
    values = rng.integers(-2 * unit.output.qmax, 2 * unit.output.qmax + 1, sums.shape) << (unit.fraction_bits - 1)
    values *= rng.integers(1, unit.output.scale_top + 1, (VECTORS, 1))
    flat = dataclasses.replace(given, bias=np.zeros_like(given.bias), relu=False)
    before = post_process(sums.reshape(1, -1), flat).values.reshape(sums.shape)
    exact = (np.abs(before) < given.largest_value) & (np.arange(VECTORS) % 2 == 0)[:, None]
    values[::10] = 0
    bias = np.where(exact, values - before, given.bias.reshape(sums.shape)).ravel()
    return dataclasses.replace(given, bias=bias)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("spec", "following", "beat"),
    [
        ("w4a4u-s4/6", "w4a4u-s4/6", 2),
        ("w4a4-s4/4", "w4a4-s4/4", 4),
        ("w4a8-s6/10", "w4a8-s6/10", 1),
        ("w8a8u", "w8a8u", 2),
        ("w8a8", "w8a8", 16),
        ("w3a3", "w3a2-s4/2-v8", 8),
        ("w2a2u-s2/2-v4", "w2a2u-s2/2-v4", 1),
        ("w8a8u-s6/10", "w8a8u-s6/10-v32", 4),
    ],
)
def test_the_unit_equals_its_definition(simulate, spec, following, beat, relu) -> None:
    lane = Lane.for_spec(LayerSpec.parse(spec))
    unit = PostProcessingUnit.between(lane, LayerSpec.parse(following))
    rng = np.random.default_rng(0)
    sums = sums_of(unit, rng)
    given = ties(unit, constants(unit, rng, relu), sums, rng)
    found = post_process(sums.reshape(1, -1), given)
    bits = unit.verilog_parameters()
    fields = {
        "in_sums": (sums.reshape(-1, beat), bits["ACC_BITS"]),
        "in_multipliers": (given.multiplier.reshape(-1, beat), bits["MULT_BITS"]),
        "in_shifts": (given.shift.reshape(-1, beat), bits["SHIFT_BITS"]),
        "in_biases": (given.bias.reshape(-1, beat), bits["BIAS_BITS"]),
    }
    words = [int(relu)] * (sums.size // beat)
    offset = 1
    for values, width in fields.values():
        words = [word | more << offset for word, more in zip(words, packed(values, width), strict=True)]
        offset += beat * width
    codes = packed(found.codes.reshape(-1, unit.vector_size), bits["CODE_BITS"])
    sigma = np.ones(VECTORS, dtype=int) if found.vector_scale is None else found.vector_scale.ravel()
    results = [c | int(s) << unit.vector_size * bits["CODE_BITS"] for c, s in zip(codes, sigma, strict=True)]
    names = [("in_relu", 1), *((name, beat * width) for name, (_, width) in fields.items())]
    willing = rng.random((2, 499)) < 0.7
    case = {
        "patience": 2000,
        "leaves": None,
        "sources": {"in": port(names, words, willing[0])},
        "sinks": {
            "out": port(
                [("out_codes", unit.vector_size * bits["CODE_BITS"]), ("out_scale", max(1, bits["SCALE_BITS"]))],
                results,
                willing[1],
            )
        },
    }
    assert set(np.unique(found.codes)) >= {0, unit.output.qmax}
    simulate("vsq_ppu", "ports_bench", case, {**bits, "E": beat})
