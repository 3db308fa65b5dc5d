"""Mapped netlists in Icarus: cells written from their Liberty functions, sums against the bit-true model by cocotb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rtl.lane_cases import lane_case
from tests.rtl.test_lane_rtl import AWKWARD, COSTS

from vsquant.hardware import Lane
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.synthesis import Library, SynthesizedLane, read_library, synthesize_lane, yosys
from vsquant.hardware.synthesis.liberty import Cell
from vsquant.hardware.synthesis.netlist import Gate, Netlist
from vsquant.spec import LayerSpec

TINY = Path(__file__).parents[1] / "hardware" / "cells" / "tiny.lib"
SMALL = ["w2a3-s2/3-v4-p3", "w3a3-s2/x-v2", "w2a2-s3/2-v2-full-top-p3", "w3a2u"]
PPU_FILES = ("vsq_ppu", "vsq_divider", "vsq_delay")
ASAP7 = "liberty/asap7_rvt_tt_subset.lib.gz"
MAPPED = [*COSTS, *(text for text in AWKWARD if "-p" in text and "-top" not in text)]
"""The lanes whose cost is published, rounded and not."""


def cell_module(cell: Cell) -> Iterator[str]:
    """A cell as a module; outputs are continuous functions of its pins, or of its register."""
    clock = cell.flip_flop.clock if cell.flip_flop else None
    pins = [f"input {pin}" for pin in cell.inputs] + [f"output {pin}" for pin in cell.outputs]
    yield f"module \\{cell.name} ({', '.join(pins)});"
    names = {pin: pin for pin in cell.inputs}
    if cell.flip_flop is not None:
        yield f"reg held = 0; always @(posedge {clock}) held <= {cell.flip_flop.next_state.verilog(names)};"
        names = {cell.flip_flop.state: "held", cell.flip_flop.inverse: "~held"}
    for pin, output in cell.outputs.items():
        yield f"assign {pin} = {output.function.verilog(names)};"
    yield "endmodule"


def instance(gate: Gate, number: int) -> str:
    pins = ", ".join(f".{pin}(n{net})" for pin, net in gate.nets.items())
    return f"  \\{gate.cell.name} g{number} ({pins});"


def netlist_module(name: str, netlist: Netlist) -> Iterator[str]:
    """The netlist with the ports of the RTL; a wire for each net."""
    directions = [("input", netlist.inputs), ("output", netlist.outputs)]
    ports = [f"{way} [{len(nets) - 1}:0] {port}" for way, group in directions for port, nets in group.items()]
    yield f"module {name} ({', '.join(ports)});"
    yield from (f"  wire n{net};" for net in range(netlist.net_count))
    for port, nets in netlist.inputs.items():
        yield from (f"  assign n{net} = {port}[{bit}];" for bit, net in enumerate(nets))
    for port, nets in netlist.outputs.items():
        yield from (f"  assign {port}[{bit}] = n{net};" for bit, net in enumerate(nets))
    yield from (instance(gate, number) for number, gate in enumerate(netlist.cells))
    yield "endmodule"


def bench_module(mapped: list[SynthesizedLane]) -> Iterator[str]:
    """All netlists side by side, their inputs variables of the top, as the lane's bench drives them."""
    yield "module lanes;\n  logic clk, rst;"
    for i, found in enumerate(mapped):
        ports = found.netlist.inputs | found.netlist.outputs
        own = {port: nets for port, nets in ports.items() if port not in ("clk", "rst")}
        yield from (f"  logic [{len(nets) - 1}:0] l{i}_{port};" for port, nets in own.items())
        joined = ", ".join(f".{port}(l{i}_{port})" for port in own)
        yield f"  mapped{i} gates{i} (.clk(clk), .rst(rst), {joined});"
    yield "endmodule"


def check_gates(lanes: list[Lane], library: Library, simulate, folder: Path, damage=lambda text: text) -> None:
    """Each lane mapped, written as Verilog with the cells it uses, and run on the vectors of the RTL's own test."""
    mapped = [synthesize_lane(lane, library) for lane in lanes]
    cells = {gate.cell.name: gate.cell for found in mapped for gate in found.netlist.cells}
    lines = [line for cell in cells.values() for line in cell_module(cell)]
    for i, found in enumerate(mapped):
        lines += netlist_module(f"mapped{i}", found.netlist)
    (folder / "gates.v").write_text(damage("\n".join([*lines, *bench_module(mapped)])) + "\n")
    cases = {f"l{i}_": lane_case(lane, seed=i) for i, lane in enumerate(lanes)}
    simulate("lanes", "lane_bench", cases, sources=[folder / "gates.v"])


def lane_of(text: str, vector_size: int) -> Lane:
    """The lane of a spec, with vectors of ``vector_size`` where the spec has none."""
    spec = LayerSpec.parse(text)
    return Lane.for_spec(spec, vector_size=spec.vector_size or vector_size, max_reduction_length=512)


def test_gates_of_a_small_library_equal_the_model(simulate, tmp_path: Path) -> None:
    check_gates([lane_of(text, 4) for text in SMALL], read_library(TINY), simulate, tmp_path)


def test_a_wrong_cell_is_found(simulate, tmp_path: Path) -> None:
    def damage(text: str) -> str:
        assert "assign Y = (A ^ B);" in text
        return text.replace("assign Y = (A ^ B);", "assign Y = (A | B);")

    with pytest.raises(pytest.fail.Exception, match="lane_bench"):
        check_gates([lane_of(SMALL[0], 4)], read_library(TINY), simulate, tmp_path, damage)


@pytest.mark.parametrize("text", MAPPED)
def test_gates_of_asap7_equal_the_model(text: str, simulate, vsquant_data: Path, tmp_path: Path) -> None:
    check_gates([lane_of(text, 16)], read_library(vsquant_data / ASAP7), simulate, tmp_path)


@pytest.mark.parametrize("text", ["w4a4u-s4/6", "w8a8"])
def test_post_processing_meets_a_nanosecond_in_asap7(text: str, rtl_sources: list[Path], vsquant_data: Path) -> None:
    lane = lane_of(text, 16)
    sources = {path.name: path.read_text() for path in rtl_sources if path.name.startswith(PPU_FILES)}
    parameters = PostProcessingUnit(lane=lane, output=lane.activation).verilog_parameters()
    library = read_library(vsquant_data / ASAP7)
    mapped = yosys.map_to_cells(sources, "vsq_ppu", parameters, library, period_ps=1000.0, booth=False)
    assert len(mapped.netlist["cells"]) > 1000 and mapped.delay_ps <= 1000.0
