"""Layers cut into tiles, and the cycles they take: what each part of the plan covers, and when."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vsquant.errors import SpecError
from vsquant.hardware import Lane
from vsquant.hardware.cycle_model import Ports, run_cycles
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.processing_element import ProcessingElement
from vsquant.hardware.streams import packed
from vsquant.hardware.tiling import LayerShape, drained_parts, plan_layer
from vsquant.spec import LayerSpec

SPEC = LayerSpec.parse("w4a4u-s4/6")


def element(max_reduction_length=4096, **sizes):
    return ProcessingElement(lane=Lane.for_spec(SPEC, max_reduction_length=max_reduction_length), **sizes)


@pytest.mark.parametrize("shape", [(16, 16, 9), (1, 1, 1), (33, 50, 40), (16, 100, 3)])
@pytest.mark.parametrize("sizes", [{}, {"lanes": 8, "positions": 4, "weight_words": 4, "activation_words": 8}])
def test_tiles_cover_the_layer_once_and_fit_the_buffers(shape, sizes) -> None:
    plan = plan_layer(element(**sizes), LayerShape(outputs=shape[0], positions=shape[1], vectors=shape[2]))
    covered = np.zeros(shape, dtype=int)
    for tile in plan.tiles:
        assert tile.vectors <= plan.element.weight_words
        assert tile.positions * tile.vectors <= plan.element.activation_words
        covered[
            tile.output : tile.output + plan.element.lanes,
            tile.position : tile.position + tile.positions,
            tile.vector : tile.vector + tile.vectors,
        ] += 1
    assert (covered == 1).all()


def test_weights_are_loaded_once_for_all_positions_where_the_buffer_holds_the_reduction() -> None:
    plan = plan_layer(element(), LayerShape(outputs=32, positions=64, vectors=9))
    assert [tile.load_weights for tile in plan.tiles] == [True, False, False, False] * 2
    assert [tile.free_weights for tile in plan.tiles] == [False, False, False, True] * 2


def test_sums_leave_in_parts_that_the_accumulator_holds() -> None:
    plan = plan_layer(element(max_reduction_length=64), LayerShape(outputs=8, positions=4, vectors=11))
    longest = plan.element.lane.max_vectors
    parts = [(begin, end) for _, begin, end in drained_parts(plan)]
    assert all(end - begin <= longest for begin, end in parts)
    assert list(itertools.chain.from_iterable(range(*part) for part in parts)) == list(range(11))


@pytest.mark.parametrize(("lanes", "positions", "vectors"), [(16, 16, 9), (8, 4, 30), (16, 1, 16)])
def test_computing_takes_a_cycle_for_each_vector_and_position_of_all_lanes(lanes, positions, vectors) -> None:
    shape = LayerShape(outputs=2 * lanes, positions=3 * positions, vectors=vectors)
    run = run_cycles(plan_layer(element(lanes=lanes, positions=positions), shape))
    assert run.computing_cycles == 2 * 3 * positions * vectors


def test_loading_draining_and_computing_overlap() -> None:
    """Once the first tile is loaded a long layer takes its computing cycles, and what the last drain adds."""
    plan = plan_layer(element(drain_width=4), LayerShape(outputs=16, positions=1024, vectors=9))
    run = run_cycles(plan)
    first_load, last_drain = 9 * 16, 16 * 4 + 6
    assert run.computing_cycles == 1024 * 9
    assert run.cycles <= run.computing_cycles + first_load + last_drain + 2


def test_a_port_that_hesitates_costs_cycles_and_one_that_drains_slowly_bounds_them() -> None:
    plan = plan_layer(element(), LayerShape(outputs=16, positions=64, vectors=16))
    eager = run_cycles(plan).cycles
    assert run_cycles(plan, Ports(activations=(True, False))).cycles > 1.5 * eager
    beats = 64 * 16 // 2
    assert run_cycles(plan, Ports(sums=(False, False, False, True))).cycles >= 4 * beats


def test_words_of_fields_are_twos_complement_with_the_first_field_lowest() -> None:
    assert packed(np.array([[-1, 2, -8]]), 4) == [0x82F]
    assert packed(np.array([[255, 1]]), 8) == [0x1FF]
    rng = np.random.default_rng(0)
    values = rng.integers(-(1 << 40), 1 << 40, (5, 3))
    assert packed(values, 41) == [sum((int(v) % (1 << 41)) << 41 * i for i, v in enumerate(row)) for row in values]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"lanes": 12}, "lanes must be a power of two, not 12"),
        ({"positions": 0}, "positions must be a power of two, not 0"),
        ({"positions": 32, "activation_words": 16}, "activation_words must be at least positions, 32, not 16"),
        ({"lanes": 4, "drain_width": 8}, "drain_width must divide the 4 lanes, not be 8"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(sizes, message) -> None:
    with pytest.raises(SpecError, match=message):
        element(**sizes)


def test_a_post_processing_unit_must_fit_the_lanes() -> None:
    lane = Lane.for_spec(SPEC)
    unit = PostProcessingUnit.between(lane, SPEC)
    with pytest.raises(SpecError, match="lanes must be a multiple of the 16 channels of one output vector, not 8"):
        ProcessingElement(lane=lane, lanes=8, post_processing=unit)
    with pytest.raises(SpecError, match="drain_width must divide the 16 channels of a vector, not be 32"):
        ProcessingElement(lane=lane, lanes=32, drain_width=32, post_processing=unit)
    with pytest.raises(SpecError, match="post_processing must be of the element's own lane"):
        ProcessingElement(lane=Lane.for_spec(LayerSpec.parse("w8a8")), post_processing=unit)


def test_plans_that_the_element_cannot_follow_are_refused() -> None:
    shape = LayerShape(outputs=16, positions=16, vectors=300)
    lane = Lane.for_spec(SPEC, max_reduction_length=1024)
    with pytest.raises(SpecError, match="post_process must be False"):
        plan_layer(element(), shape, post_process=True)
    with_unit = ProcessingElement(lane=lane, post_processing=PostProcessingUnit.between(lane, SPEC))
    with pytest.raises(SpecError, match=f"at most {lane.max_vectors} vectors in its reduction"):
        plan_layer(with_unit, shape, post_process=True)
    with pytest.raises(SpecError, match="relu must be False where nothing is post-processed"):
        plan_layer(with_unit, shape, relu=True)
    with pytest.raises(SpecError, match="vectors must be at least 1, not 0"):
        LayerShape(outputs=1, positions=1, vectors=0)
