"""Event simulation of a netlist by Icarus Verilog, with each gate's rise and fall delay: inertial, glitches and all.

The delays stand in `assign #(rise, fall)`, since Icarus does not read the delay files that other tools write.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from vsquant.errors import SynthesisError
from vsquant.hardware.energy.loads import Loads
from vsquant.hardware.energy.operands import Stimulus
from vsquant.hardware.energy.zero_delay import WARM_UP_CYCLES, Activity
from vsquant.hardware.synthesis.netlist import CLOCK, Gate, Netlist

TIME_LIMIT_S: Final = 300.0
INPUT_DELAY_PS: Final = 50
"""When input ports change after the clock's edge: as registers outside would."""
_STIMULUS: Final = "stimulus.hex"


def check_tools() -> None:
    """Whether Icarus Verilog is here.

    Raises:
        SynthesisError: it is not, with how to install it.
    """
    missing = [tool for tool in ("iverilog", "vvp") if shutil.which(tool) is None]
    if missing:
        raise SynthesisError(
            f"simulation with delays needs Icarus Verilog ({', '.join(missing)} not found). "
            f"Install it with:  apt-get install iverilog"
        )


def simulate_timed(
    netlist: Netlist, loads: Loads | None, stimulus: Stimulus, *, period_ps: float, time_limit_s: float = TIME_LIMIT_S
) -> Activity:
    """Simulates the first stream of ``stimulus`` from registers that hold zero.

    With ``loads`` every transition counts, glitches too; without (no delays) those from one settled cycle to the next.

    Raises:
        SynthesisError: Icarus is missing, failed, or took longer than the limit.
    """
    check_tools()
    ports = {port: bits for port, bits in netlist.inputs.items() if port != CLOCK}
    cycles = next(iter(stimulus.values())).shape[0]
    with tempfile.TemporaryDirectory(prefix="vsquant-simulation-") as name:
        folder = Path(name)
        (folder / "netlist.v").write_text("\n".join(_module(netlist, loads, ports, cycles, period_ps)))
        (folder / _STIMULUS).write_text(_hex_lines(stimulus, ports))
        _call(["iverilog", "-g2012", "-o", "netlist.vvp", "netlist.v"], folder, time_limit_s)
        printed = _call(["vvp", "-n", "netlist.vvp"], folder, time_limit_s)
    lines = [line for line in printed.splitlines() if line.startswith("=")]
    counted = cycles - WARM_UP_CYCLES
    if loads is None:
        settled = np.array([[int(bit) for bit in line[1:]] for line in lines], dtype=np.int8)[:, ::-1]
        toggles = np.abs(np.diff(settled, axis=0)).sum(axis=0, dtype=np.int64)
    else:
        toggles = np.array([int(line[1:]) for line in lines], dtype=np.int64)
    if toggles.shape != (netlist.net_count,):
        raise SynthesisError(
            f"the simulation must count {netlist.net_count} nets, not {toggles.shape}; it printed:\n" + printed[-500:]
        )
    return Activity(toggles=toggles, cycles=counted, outputs={})


def _module(
    netlist: Netlist, loads: Loads | None, ports: dict[str, list[int]], cycles: int, period_ps: float
) -> Iterator[str]:
    """The netlist and its test bench as one Verilog module."""
    width = sum(len(bits) for bits in ports.values())
    inputs = {net for bits in ports.values() for net in bits}
    (clock,) = netlist.inputs[CLOCK]
    yield "`timescale 1ps/100fs\nmodule top;"
    yield f"reg [{width - 1}:0] memory [0:{cycles - 1}]; integer cycle, i;"
    yield f"integer toggles [0:{netlist.net_count - 1}];"
    for net in range(netlist.net_count):
        yield f"reg n{net} = 0;" if net in inputs or net == clock else f"wire n{net};"
    for gate in netlist.gates:
        for pin, output in gate.cell.outputs.items():
            net = gate.nets[pin]
            names = {other: f"n{gate.nets[other]}" for other in gate.cell.inputs}
            yield f"assign {_delay(loads, net)}n{net} = {output.function.verilog(names)};"
    for number, gate in enumerate(netlist.flip_flops):
        yield from _flip_flop(gate, number, loads, clock)
    if loads is not None:
        for net in range(netlist.net_count):
            if net != clock:
                yield f"always @(n{net}) toggles[{net}] = toggles[{net}] + 1;"
    yield from _bench(netlist, loads, ports, cycles, period_ps, clock)
    yield "endmodule"


def _flip_flop(gate: Gate, number: int, loads: Loads | None, clock: int) -> Iterator[str]:
    flip_flop = gate.cell.flip_flop
    assert flip_flop is not None
    names = {pin: f"n{gate.nets[pin]}" for pin in gate.cell.inputs}
    yield f"reg s{number} = 0;"
    yield f"always @(posedge n{clock}) s{number} <= {flip_flop.next_state.verilog(names)};"
    states = {flip_flop.state: f"s{number}", flip_flop.inverse: f"~s{number}"}
    for pin, output in gate.cell.outputs.items():
        yield f"assign {_delay(loads, gate.nets[pin])}n{gate.nets[pin]} = {output.function.verilog(states)};"


def _bench(
    netlist: Netlist, loads: Loads | None, ports: dict[str, list[int]], cycles: int, period_ps: float, clock: int
) -> Iterator[str]:
    """Feeds a cycle's ports shortly after each edge, and prints counts, or settled values shortly before the next."""
    targets = "{" + ", ".join(f"n{net}" for bits in ports.values() for net in reversed(bits)) + "}"
    rest = period_ps - INPUT_DELAY_PS - 1
    yield f'initial begin $readmemh("{_STIMULUS}", memory);'
    yield f"for (cycle = 0; cycle < {cycles}; cycle = cycle + 1) begin"
    if loads is not None:
        yield f"if (cycle == {WARM_UP_CYCLES}) for (i = 0; i < {netlist.net_count}; i = i + 1) toggles[i] = 0;"
    yield f"n{clock} = 1; #{INPUT_DELAY_PS} {targets} = memory[cycle]; #{rest:g}"
    if loads is None:
        nets = ", ".join(f"n{net}" for net in reversed(range(netlist.net_count)))
        yield f'if (cycle >= {WARM_UP_CYCLES - 1}) $display("=%b", {{{nets}}});'
    yield f"n{clock} = 0; #1;"
    yield "end"
    if loads is not None:
        yield f'for (i = 0; i < {netlist.net_count}; i = i + 1) $display("=%0d", toggles[i]);'
    yield "$finish; end"


def _delay(loads: Loads | None, net: int) -> str:
    return "" if loads is None else f"#({max(loads.rise_ps[net], 0):.1f}, {max(loads.fall_ps[net], 0):.1f}) "


def _hex_lines(stimulus: Stimulus, ports: dict[str, list[int]]) -> str:
    """Each cycle's ports of stream 0 as one hexadecimal number, the first port highest."""
    bits = np.concatenate([stimulus[port][:, ::-1, 0] & np.uint64(1) for port in ports], axis=1)
    return "\n".join(f"{int(''.join(map(str, row)), 2):x}" for row in bits.tolist())


def _call(command: list[str], folder: Path, time_limit_s: float) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=time_limit_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise SynthesisError(f"{command[0]} must end within {time_limit_s:g} s; it was stopped") from error
    if done.returncode != 0:
        raise SynthesisError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
