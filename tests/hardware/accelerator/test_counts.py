"""The closed forms against loops that do what they say, one action at a time."""

from __future__ import annotations

import dataclasses
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsquant.hardware.accelerator.capacity import Capacity
from vsquant.hardware.accelerator.configuration import Accelerator, LaneWidths, load_accelerator
from vsquant.hardware.accelerator.counts import count_layer, count_mapping
from vsquant.hardware.accelerator.fit import fit_layer
from vsquant.hardware.accelerator.mapping import LayerMapping, mappings
from vsquant.hardware.accelerator.traffic import layer_tensors, loop_order
from vsquant.hardware.cycle_model import run_cycles
from vsquant.hardware.lane import Lane
from vsquant.hardware.processing_element import ProcessingElement
from vsquant.hardware.tiling import LayerShape, plan_layer
from vsquant.spec import LayerSpec, Workload

EDGE = load_accelerator("edge")


def small(**changes) -> Accelerator:
    """An accelerator that small layers do not fit at once."""
    buffers = {"policy": "bytes", "weight": 256, "activation": 256, "shared": 512} | changes.pop("buffers", {})
    shape = {"lanes": 3, "processing_elements": 4, "positions": 2, "vector_size": 4, "max_reduction_length": 64}
    return Accelerator.model_validate(EDGE.model_dump() | shape | {"buffers": buffers} | changes)


def walked(accelerator: Accelerator, fit, mapping: LayerMapping) -> tuple[Counter[str], int]:
    """Every round, element, word, pass, position and lane in turn; and the cycles of the busiest element."""
    seen: Counter[str] = Counter()
    cycles = 0
    weight_word = accelerator.vector_size * fit.lane.weight_bits
    activation_word = accelerator.vector_size * fit.lane.operand_bits
    channel_tiles = [
        (group, range(first, min(first + fit.lanes, mapping.outputs_per_group)))
        for group in range(mapping.groups)
        for first in range(0, mapping.outputs_per_group, fit.lanes)
    ]
    position_tiles = [
        range(first, min(first + mapping.depth, mapping.positions))
        for first in range(0, mapping.positions, mapping.depth)
    ]
    for channels in range(0, len(channel_tiles), mapping.rows):
        row_tiles = channel_tiles[channels : channels + mapping.rows]
        for positions in range(0, len(position_tiles), mapping.columns):
            column_tiles = position_tiles[positions : positions + mapping.columns]
            fed = {(group, place) for group, _ in row_tiles for tile in column_tiles for place in tile}
            for _ in product(fed, range(mapping.words * fit.activation_digits)):
                seen["shared_activation_words"] += 1
            busiest = 0
            for (_, lanes), tile in product(row_tiles, column_tiles):
                spent = 0
                for _ in product(range(mapping.words), range(fit.activation_digits), tile):
                    seen["activation_write_bits"] += activation_word
                for _ in product(range(mapping.words), range(fit.passes)):
                    for _ in lanes:
                        seen["weight_read_bits"] += weight_word
                        seen["weight_scale_read_bits"] += fit.lane.weight_scale_bits
                    for _ in tile:
                        spent += 1
                        seen["activation_read_bits"] += activation_word
                        seen["activation_scale_read_bits"] += fit.lane.activation_scale_bits
                        seen["lane_operations"] += len(lanes)
                for _ in product(lanes, tile):
                    seen["outputs"] += 1
                    seen["sums"] += fit.passes
                busiest = max(busiest, spent)
            cycles += busiest
    return seen, cycles


LAYERS = st.builds(
    lambda groups, outputs, reduction, rows, columns, kernel: Workload(
        kind="conv", outputs=groups * outputs, reduction=reduction, positions=rows * columns, kernel=kernel,
        groups=groups, input_size=(rows, columns), output_size=(rows, columns),
    ),
    st.integers(1, 4), st.integers(1, 8), st.integers(1, 9), st.integers(1, 3), st.integers(1, 4),
    st.sampled_from([(1, 1), (1, 3), (2, 2)]),
)  # fmt: skip
SPECS = st.sampled_from(["w4a4-s4/4-v4", "w4a4-s4/4-v8", "w8a8", "w8a4", "w2a8-s2/2-v4", "w4a4u-s4/4-v2"])


@given(workload=LAYERS, spec=SPECS.map(LayerSpec.parse), batch=st.integers(1, 3), choice=st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_the_loops(workload: Workload, spec: LayerSpec, batch: int, choice: int) -> None:
    accelerator = small()
    lane = LaneWidths(
        weight_bits=4, activation_bits=4, activations="both", weight_scale_bits=4, activation_scale_bits=4
    )
    fit = fit_layer(accelerator, lane, spec, name="layer")
    mapping = mappings(accelerator, fit, workload, batch=batch)[choice]
    capacity = Capacity.of(accelerator, lane)
    actions, cycles = count_mapping(accelerator, fit, spec, workload, capacity, mapping, batch=batch)
    seen, busiest = walked(accelerator, fit, mapping)
    assert cycles.compute == busiest
    for name in (
        "lane_operations", "outputs", "weight_read_bits", "weight_scale_read_bits", "activation_read_bits",
        "activation_scale_read_bits", "activation_write_bits",
    ):  # fmt: skip
        assert getattr(actions, name) == seen[name], name
    lanes = accelerator.processing_elements * fit.lanes
    assert actions.idle_lane_cycles == lanes * busiest - seen["lane_operations"] >= 0
    assert seen["shared_activation_words"] == (
        mapping.group_rounds * mapping.positions * mapping.words * fit.activation_digits
    )
    assert actions.drains >= seen["sums"]
    real = workload.macs * batch * fit.passes
    assert seen["lane_operations"] * accelerator.vector_size >= real


@given(workload=LAYERS, shared=st.sampled_from([16, 64, 512, 1 << 16]), weight=st.sampled_from([16, 64, 4096]))
@settings(max_examples=100, deadline=None)
def test_weights_come_as_often_as_the_loop_order_says(workload: Workload, shared: int, weight: int) -> None:
    """Walks the rounds with a memory of what each element and the shared buffer hold."""
    spec = LayerSpec.parse("w4a4-s4/4-v4")
    accelerator = small(buffers={"shared": shared, "weight": weight})
    lane = LaneWidths.of(spec)
    fit = fit_layer(accelerator, lane, spec, name="layer")
    capacity = Capacity.of(accelerator, lane)
    for mapping in mappings(accelerator, fit, workload, batch=1):
        tensors = layer_tensors(spec, workload, 1)
        order = loop_order(mapping, fit, tensors, accelerator, capacity)
        stay = mapping.words <= capacity.weight_words_per_lane(fit)
        word = accelerator.vector_size * 4 + 4
        held = min(mapping.rows, mapping.channel_tiles) * fit.lanes * mapping.words * word <= capacity.shared // 2
        fits = tensors.input <= capacity.shared // 2
        rounds, written = range(mapping.position_rounds), 0
        in_element: dict[int, bool] = {}
        for turn in rounds:
            for column in range(mapping.columns):
                if turn * mapping.columns + column < mapping.position_tiles and not (stay and column in in_element):
                    in_element[column] = True
                    written += 1
        if fits:
            assert order.input_fetches == 1
            assert order.copies == written
            assert order.weight_loads == (1 if stay else mapping.position_rounds)
            assert order.weight_fetches == (1 if stay or held else mapping.position_rounds)
        else:
            first = mapping.channel_rounds * tensors.input + (
                tensors.weight * (1 if stay or held else mapping.position_rounds)
            )
            moved = order.weight_fetches * tensors.weight + order.input_fetches * tensors.input
            assert moved <= first and min(order.weight_fetches, order.input_fetches) >= 1


def layer(kind: str = "linear", **fields) -> Workload:
    return Workload(kind=kind, **({"outputs": 32, "reduction": 64, "positions": 8} | fields))


def counted(spec: str, workload: Workload, accelerator: Accelerator = EDGE, **options):
    parsed = LayerSpec.parse(spec)
    lane = LaneWidths.of(parsed)
    fit = fit_layer(accelerator, lane, parsed, name="layer")
    return count_layer(accelerator, fit, parsed, workload, Capacity.of(accelerator, lane), **options)


def test_scales_are_stored_and_read_for_every_vector() -> None:
    plain, _ = counted("w4a8", layer())
    scaled, _ = counted("w4a8-s4/6", layer())
    assert (plain.weight_scale_read_bits, plain.activation_scale_read_bits) == (0, 0)
    assert scaled.weight_scale_read_bits * 16 * 4 == scaled.weight_read_bits * 4
    assert scaled.activation_scale_read_bits * 16 * 8 == scaled.activation_read_bits * 6
    assert scaled.dram_weight_bits - plain.dram_weight_bits == 32 * 64 // 16 * 4


def test_a_stem_of_three_channels_pays_for_its_padding() -> None:
    stem = layer("conv", reduction=3, positions=64, kernel=(3, 3), padding=(1, 1))
    actions, _ = counted("w8a8", stem)
    assert actions.lane_operations * 16 == 64 * 32 * 9 * 16 == stem.macs * 16 / 3
    assert layer_tensors(LayerSpec.parse("w8a8"), stem, 1).weight == 32 * (27 * 8 + 64)


def test_depthwise_uses_a_lane_of_each_element() -> None:
    depthwise = layer("conv", outputs=64, reduction=1, positions=64, kernel=(3, 3), padding=(1, 1), groups=64)
    actions, cycles = counted("w8a8", depthwise)
    assert actions.lane_operations == 64 * 9 * 64 and cycles.compute == 64 * 64 * 9 / 16
    assert actions.idle_lane_cycles == 15 * actions.lane_operations


def test_a_product_of_activations_has_no_stored_weights_and_heads_for_each_sample() -> None:
    scores = layer("matmul", outputs=4 * 8, reduction=16, positions=8, groups=4)
    one, _ = counted("w8a8", scores)
    two, _ = counted("w8a8", scores, batch=2)
    assert one.dram_weight_bits == 0 and two.lane_operations == 2 * one.lane_operations == 2 * 4 * 8 * 8
    assert layer_tensors(LayerSpec.parse("w8a8"), scores, 2).weight == 2 * 4 * 8 * 16 * 8


def test_the_ends_of_a_network_are_off_the_chip() -> None:
    inside, _ = counted("w8a8", layer())
    first, _ = counted("w8a8", layer(), is_first=True)
    last, _ = counted("w8a8", layer(), is_last=True)
    assert inside.dram_activation_bits == 0
    assert (first.dram_activation_bits, last.dram_activation_bits) == (8 * 64 * 8, 8 * 32 * 8)


def test_a_long_reduction_drains_in_parts() -> None:
    short, _ = counted("w8a8", layer(reduction=4096))
    long, _ = counted("w8a8", layer(reduction=4176))
    assert (short.drains, long.drains) == (short.outputs, 2 * long.outputs)


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({}, "compute"),
        ({"shared_bits_per_cycle": 8}, "buffer"),
        ({"dram": {"kind": "hbm2", "gigabytes_per_second": 0.01}}, "dram"),
        ({"outputs_per_cycle": 1, "positions": 64, "lanes": 64}, "post_processing"),
    ],
)
def test_the_bound_is_named(change, bound: str) -> None:
    accelerator = Accelerator.model_validate(EDGE.model_dump() | change)
    workload = layer(outputs=256, reduction=16 if bound == "post_processing" else 512, positions=1024)
    _, cycles = counted("w8a8", workload, accelerator)
    assert cycles.bound == bound
    assert cycles.total == max(dataclasses.asdict(cycles).values())


@pytest.mark.parametrize(
    ("outputs", "reduction", "positions"), [(16, 64, 16), (20, 100, 37), (5, 16, 3), (64, 600, 50)]
)
def test_one_element_takes_the_cycles_and_loads_of_the_rtl_s_model(outputs: int, reduction: int, positions: int):
    """Its tiles read as many operands, and its weights come anew as often, as the processing element's plan says."""
    spec = LayerSpec.parse("w4a4-s4/4")
    accelerator = Accelerator.model_validate(
        EDGE.model_dump() | {"processing_elements": 1, "buffers": EDGE.buffers.model_dump() | {"weight": 4352}}
    )
    lane, workload = LaneWidths.of(spec), layer(outputs=outputs, reduction=reduction, positions=positions)
    fit, capacity = fit_layer(accelerator, lane, spec, name="layer"), Capacity.of(accelerator, lane)
    assert capacity.weight_words_per_lane(fit) == 16
    actions, cycles = count_layer(accelerator, fit, spec, workload, capacity)
    element = ProcessingElement(lane=Lane.for_spec(spec), lanes=16, positions=16, weight_words=16, activation_words=256)
    shape = LayerShape(outputs=outputs, positions=positions, vectors=workload.vectors(16))
    plan = plan_layer(element, shape)
    assert cycles.compute == run_cycles(plan).computing_cycles
    assert cycles.compute == sum(tile.positions * tile.vectors for tile in plan.tiles)
    loaded = sum(min(16, outputs - tile.output) * tile.vectors for tile in plan.tiles if tile.load_weights)
    assert actions.weight_write_bits == loaded * 16 * 4
    assert actions.activation_write_bits == sum(tile.positions * tile.vectors for tile in plan.tiles) * 16 * 4
