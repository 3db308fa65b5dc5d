"""The registry: names, shapes, floors and what precision explains."""

from __future__ import annotations

import pytest
import torch

from vsquant.bench.cases import ConvCase, LinearCase
from vsquant.bench.contenders import contenders_of, find_contender, is_ours
from vsquant.bench.floors import Ceilings, floors, moved_bytes, operations, touched_bytes
from vsquant.bench.inputs import copies, layer_inputs
from vsquant.bench.precision import SLACK, Grid, Precision, expected_error, relative_error
from vsquant.bench.registry import CASES, choose_cases, find_case
from vsquant.errors import VsquantError

RATES = Ceilings(rates={1: {"read_bytes": 10.0, "avx512_vnni": 400.0, "avx2_vector_scaled": 300.0}})


def test_names_are_unique_and_found() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all(find_case(case.name) is case for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_has_ours_and_peers(case) -> None:
    contenders = contenders_of(case)
    assert len({contender.name for contender in contenders}) == len(contenders)
    assert is_ours(contenders[0]) and not is_ours(contenders[-1])
    assert find_contender(case, contenders[0].name).name == contenders[0].name


def test_choosing() -> None:
    assert {case.group for case in choose_cases("kernel", ())} == {"linear", "conv", "fake-quantize"}
    assert all(case.name.startswith("linear-1x") for case in choose_cases("all", ("linear-1x*",)))
    with pytest.raises(VsquantError, match="what to measure must be one of kernel, model, cell, all, not 'x'"):
        choose_cases("x", ())
    with pytest.raises(VsquantError, match="case must match a case of 'kernel'"):
        choose_cases("kernel", ("bert*",))


def test_operations_and_bytes() -> None:
    gemv = LinearCase(rows=1, inputs=4096, outputs=4096, cold=True)
    assert operations(gemv) == 2 * 4096 * 4096
    assert moved_bytes(gemv) == touched_bytes(gemv) == 4096 * 4096 * 4.25 / 8 + 4 * 2 * 4096
    warm = LinearCase(rows=384, inputs=768, outputs=768)
    assert moved_bytes(warm) == 0 and touched_bytes(warm) > 0
    conv = ConvCase(images=8, inputs=64, outputs=256, size=56, kernel=1)
    assert operations(conv) == 2 * 8 * 56 * 56 * 64 * 256 and moved_bytes(conv) > 0
    strided = ConvCase(images=1, inputs=8, outputs=8, size=56, kernel=3, stride=2)
    assert strided.output_size == 28 and strided.workload.macs == 28 * 28 * 8 * 8 * 9


def test_floors_take_the_ceiling_that_binds() -> None:
    (memory,) = floors(LinearCase(rows=1, inputs=4096, outputs=4096, cold=True), RATES, "avx512_vnni")
    (computing,) = floors(LinearCase(rows=384, inputs=768, outputs=768), RATES, "avx2")
    assert memory.bound == "memory" and memory.seconds == pytest.approx(8945664 / 10e9, rel=1e-3)
    assert computing.bound == "operations" and computing.seconds == pytest.approx(2 * 384 * 768 * 768 / 300e9)
    assert floors(LinearCase(rows=384, inputs=768, outputs=768), RATES, "scalar") == ()
    assert floors(find_case("bert-base-b1"), RATES, "avx2") == ()


def test_weights_rotate_only_where_they_are_cold() -> None:
    assert copies(LinearCase(rows=1, inputs=64, outputs=64, cold=True), 1000, 10_000) == 10
    assert copies(LinearCase(rows=1, inputs=64, outputs=64, cold=True), 100_000, 10_000) == 2
    assert copies(LinearCase(rows=1, inputs=64, outputs=64), 1000, 10_000) == 1


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("block", [None, 16])
def test_the_error_that_is_allowed_is_near_the_one_that_is_made(bits: int, block: int | None) -> None:
    inputs = layer_inputs(LinearCase(rows=64, inputs=512, outputs=128))
    grouped = inputs.weight.reshape(128, -1, block or 512)
    step = grouped.abs().amax(dim=2, keepdim=True) / (2 ** (bits - 1) - 1)
    rounded = ((grouped / step).round() * step).reshape(128, 512)
    made = relative_error(inputs.x @ rounded.t(), inputs.expected)
    allowed = expected_error(inputs, Precision(weight=Grid(bits=bits, block=block), activation=None))
    assert 0.8 * allowed / SLACK < made < allowed


def test_float_is_allowed_next_to_nothing() -> None:
    inputs = layer_inputs(LinearCase(rows=2, inputs=32, outputs=8))
    assert expected_error(inputs, Precision(weight=None, activation=None)) == 1e-5
    assert relative_error(torch.ones(3), torch.ones(3)) == 0
