"""Energy is actions times the table, area is parts times theirs, and what has no known cost is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vsquant.errors import AcceleratorError
from vsquant.hardware.accelerator import memories
from vsquant.hardware.accelerator.capacity import Capacity
from vsquant.hardware.accelerator.configuration import Accelerator, LaneWidths, load_accelerator
from vsquant.hardware.accelerator.cost import Request, accelerator_area, network_cost
from vsquant.hardware.accelerator.counts import count_layer
from vsquant.hardware.accelerator.fit import fit_layer
from vsquant.hardware.accelerator.lane_prices import LanePrice, LanePrices
from vsquant.results.accelerator import COMPONENTS, CostComparison
from vsquant.results.workloads import LayerWorkload
from vsquant.spec import LayerSpec, Workload

EDGE = load_accelerator("edge")
SPECS = ("w8a8", "w4a8-s4/6", "w4a4-s4/4-v16", "w4a4u-s4/4-v16", "w4a5-s4/4-v16", "w8a8-s4/6")
PRICES = LanePrices(
    prices={
        (str(LayerSpec.parse(spec)), 16): LanePrice(area_um2=1000.0 + n, operation_pj=2.0 + n)
        for n, spec in enumerate(SPECS)
    },
    source="made up",
)


def linear(name: str = "a", outputs: int = 64, reduction: int = 128, positions: int = 32, calls: int = 1):
    workload = Workload(kind="linear", outputs=outputs, reduction=reduction, positions=positions)
    return LayerWorkload(name=name, workload=workload, calls=calls)


def requests(*layers: LayerWorkload, spec: str | None = "w8a8", requested: bool = True) -> list[Request]:
    parsed = None if spec is None else LayerSpec.parse(spec)
    return [Request(layer=layer, spec=parsed, requested=requested) for layer in layers]


def cost(spec: str, wanted: list[Request], accelerator: Accelerator = EDGE, **options):
    return network_cost(accelerator, LayerSpec.parse(spec), wanted, PRICES, network="net", **options)


def test_energy_is_actions_times_what_each_takes() -> None:
    spec = LayerSpec.parse("w4a8-s4/6")
    found = cost("w4a8-s4/6", requests(linear(), spec="w4a8-s4/6"))
    lane = LaneWidths.of(spec)
    capacity, fit = Capacity.of(EDGE, lane), fit_layer(EDGE, lane, spec, name="a")
    actions, cycles = count_layer(EDGE, fit, spec, linear().workload, capacity, is_first=True, is_last=True)
    (layer,) = found.layers
    weight, activation = memories.sram_pj_per_bit(65536 * 8), memories.sram_pj_per_bit(8192 * 8)
    assert set(layer.energy_pj) == set(COMPONENTS)
    assert layer.energy_pj["lanes"] == actions.lane_operations * 3.0
    assert layer.energy_pj["weight buffers"] == pytest.approx(
        weight * (actions.weight_read_bits + actions.weight_write_bits)
    )
    assert layer.energy_pj["vector scales"] == pytest.approx(
        weight * (actions.weight_scale_read_bits + actions.weight_scale_write_bits)
        + activation * (actions.activation_scale_read_bits + actions.activation_scale_write_bits)
    )
    assert layer.energy_pj["DRAM"] == pytest.approx(actions.dram_bits * 350 / 64)
    assert (layer.cycles, layer.bound) == (cycles.total, cycles.bound)
    assert found.total_pj() == pytest.approx(sum(layer.energy_pj.values()))


def test_memory_counts_half_or_double_and_dram_or_not() -> None:
    found = cost("w8a8", requests(linear("a"), linear("b")))
    energy = found.energy_pj()
    rest = energy["lanes"] + energy["post-processing"]
    assert found.total_pj(memory=2) - rest == pytest.approx(2 * (found.total_pj() - rest))
    assert found.total_pj() - found.total_pj(dram=False) == pytest.approx(energy["DRAM"])


def test_a_layer_called_twice_costs_twice() -> None:
    once, twice = (cost("w8a8", requests(linear("a"), linear("b", calls=n), linear("c"))).layers[1] for n in (1, 2))
    assert twice.total_pj == pytest.approx(2 * once.total_pj) and twice.cycles == 2 * once.cycles
    assert twice.macs == 2 * once.macs == 2 * 64 * 128 * 32


def test_the_share_of_what_runs_as_asked_counts_layers_left_float() -> None:
    wanted = [
        *requests(linear("first", outputs=32), requested=False),
        *requests(linear("b"), spec="w4a4-s4/4"),
        *requests(linear("head", outputs=32), spec=None, requested=False),
    ]
    found = cost("w4a4-s4/4", wanted)
    assert found.requested_share == 0.5 and found.float_macs == 32 * 128 * 32
    assert found.unpriced == ("head",)
    assert [layer.passes for layer in found.layers] == [9, 1]
    with pytest.raises(AcceleratorError, match="net must have a quantized layer"):
        cost("w8a8", requests(linear(), spec=None))


def test_passes_take_cycles_and_energy() -> None:
    wanted = [*requests(linear("a")), *requests(linear("b"), spec="w4a4-s4/4")]
    first, second = cost("w4a4-s4/4", wanted).layers
    assert first.energy_pj["lanes"] == 9 * second.energy_pj["lanes"]
    assert (first.padded_macs, second.padded_macs) == (first.macs, second.macs)


def test_wide_lanes_take_area() -> None:
    plain = accelerator_area(EDGE, LaneWidths.of(LayerSpec.parse("w4a4-s4/4")), PRICES)
    wide = accelerator_area(load_accelerator("edge-wide"), LaneWidths.of(LayerSpec.parse("w4a4-s4/4")), PRICES)
    assert wide["wide lanes"] == 16 * 4 * 1000.0 and wide["lanes"] == plain["lanes"] == 16 * 16 * 1002.0
    large = linear(outputs=256, positions=4096)
    wanted = [*requests(large), *requests(large, spec="w4a4-s4/4")]
    first, second = cost("w4a4-s4/4", wanted, load_accelerator("edge-wide")).layers
    assert first.wide and not second.wide and first.cycles == 4 * second.cycles


def test_both_signs_take_a_wider_lane() -> None:
    wanted = [*requests(linear("a"), spec="w4a4-s4/4"), *requests(linear("b"), spec="w4a4u-s4/4")]
    assert cost("w4a4u-s4/4", wanted).lane == "w4a5-s4/4-v16"
    assert cost("w4a4u-s4/4", wanted[1:]).lane == "w4a4u-s4/4-v16"
    signed = cost("w4a4-s4/4", wanted)
    assert signed.lane == "w4a4-s4/4-v16" and [layer.passes for layer in signed.layers] == [1, 2]


def test_equal_elements_shrink_with_the_format_and_equal_bytes_do_not() -> None:
    narrow, byte = LaneWidths.of(LayerSpec.parse("w4a4-s4/4")), LaneWidths.of(LayerSpec.parse("w8a8"))
    by_bytes = [accelerator_area(EDGE, lane, PRICES)["weight buffers"] for lane in (narrow, byte)]
    elements = [
        accelerator_area(load_accelerator("edge-elements"), lane, PRICES)["weight buffers"] for lane in (narrow, byte)
    ]
    assert by_bytes[0] == by_bytes[1] == elements[1]
    assert elements[0] == pytest.approx(elements[1] * (4 + 4 / 16) / 8)


def test_a_lane_without_a_known_cost_is_refused_with_the_command_that_measures_it() -> None:
    with pytest.raises(AcceleratorError, match="'vsquant hw synth w8a8 w3a8-s4/6-v16 --liberty LIBRARY"):
        cost("w3a8-s4/6", requests(linear(), spec="w3a8-s4/6"))


def test_ratios_are_to_the_baseline() -> None:
    base, other = cost("w8a8", requests(linear())), cost("w4a4-s4/4", requests(linear(), spec="w4a4-s4/4"))
    compared = CostComparison(cost=other, baseline=base)
    assert compared.energy_ratio(memory=2, dram=False) == pytest.approx(
        other.total_pj(memory=2, dram=False) / base.total_pj(memory=2, dram=False)
    )
    faster = base.seconds / other.seconds
    assert compared.performance_per_area_ratio == pytest.approx(faster / compared.area_ratio)


def test_the_energy_of_a_memory_goes_through_the_published_points() -> None:
    for size, picojoules in ((8192, 7.5), (32768, 8.5), (1 << 20, 14.0)):
        assert memories.sram_pj_per_bit(size * 8) == pytest.approx(picojoules / 64)
    assert memories.sram_pj_per_bit(2048 * 8) == pytest.approx(7.5 / 64 / 2)
    sizes = [memories.sram_pj_per_bit(1 << n) for n in range(8, 30)]
    assert sizes == sorted(sizes)
    with pytest.raises(AcceleratorError, match=r"dram.kind must be one of ddr4, gddr6, hbm2, not 'ddr9'"):
        memories.dram_pj_per_bit("ddr9")


def test_a_table_of_lanes_from_a_file(tmp_path: Path) -> None:
    row = {"spec": "w8a8", "vector_size": 16, "area_um2": 5, "energy_fj_per_mac": 100}
    not_simulated = row | {"spec": "w4a4", "energy_fj_per_mac": None}
    (tmp_path / "t.json").write_text(json.dumps({"source": "here", "lanes": [row, not_simulated]}))
    found = LanePrices.load(tmp_path / "t.json")
    assert len(found.prices) == 1
    assert found.of(LaneWidths(weight_bits=8, activation_bits=8), 16) == LanePrice(area_um2=5.0, operation_pj=1.6)
    (tmp_path / "t.json").write_text(json.dumps({"source": "here", "lanes": [{"spec": "w8a8"}]}))
    with pytest.raises(AcceleratorError, match="must be a table of lanes that vsquant hw synth wrote"):
        LanePrices.load(tmp_path / "t.json")
    assert LanePrices.load().source
