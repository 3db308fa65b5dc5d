"""What a lane costs: synthesized, simulated on operands in dataflow order, checked against the model on the way."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from jaxtyping import Int64, UInt64

from vsquant.errors import DataError, SynthesisError
from vsquant.files import replacing
from vsquant.hardware.energy.loads import WIRE_FF_PER_READER, Loads, energy_per_cycle, loads_of
from vsquant.hardware.energy.operands import PIPELINE_CYCLES, WORD_STREAMS, LaneOperands, expected_sums, stimulus
from vsquant.hardware.energy.timed import check_tools, simulate_timed
from vsquant.hardware.energy.zero_delay import Activity, simulate
from vsquant.hardware.lane import Lane
from vsquant.hardware.synthesis import PERIOD_PS, Library, Netlist, SynthesizedLane, synthesize_lane, yosys
from vsquant.hardware.synthesis.lane_synthesis import lane_sources
from vsquant.progress import Progress, silent
from vsquant.results.lane_cost import LaneCost, LaneCosts, LaneEnergy
from vsquant.spec.layer import LayerSpec

GROUPS: Final = 256
"""Weight vectors for the simulation without delays; 4 in each of 64 streams, each met by 16 activation vectors."""
TIMED_GROUPS: Final = 16
"""Weight vectors for the simulation with delays: 256 cycles."""

SETTLING: Final = 2.0
"""Clock periods between edges in the simulation with delays: wires and the registers' own delay are in it, which the
timing report has not; energy for one cycle does not depend on how long that is."""

OperandsOf: TypeAlias = Callable[[Lane], Mapping[str, LaneOperands]]
"""The named operands that a lane is simulated on."""


@dataclass(frozen=True, kw_only=True)
class LaneRequest:
    """One lane of the list: a spec, and V where the spec does not say it."""

    spec: LayerSpec
    vector_size: int = 16

    @property
    def lane(self) -> Lane:
        """The lane."""
        return Lane.for_spec(self.spec, vector_size=self.spec.vector_size or self.vector_size)


def cost_lanes(
    requests: Sequence[LaneRequest],
    library: Library,
    operands_of: OperandsOf,
    path: Path,
    *,
    source: str,
    about: Mapping[str, Any],
    period_ps: float = PERIOD_PS,
    progress: Progress = silent,
) -> LaneCosts:
    """Measures every lane that ``path`` does not have from before, and keeps each there as soon as it is measured.

    Raises:
        SynthesisError: a lane does not meet the clock, its netlist does not compute what the model does, or a tool
            failed.
        MissingExtraError: pyosys is not installed.
        DataError: ``path`` is there and is no table of lanes.
    """
    check_tools()
    known = {lane.key: lane for lane in read_costs(path).lanes} if path.exists() else {}
    lanes: list[LaneCost] = []
    for done, request in enumerate(requests):
        progress("lanes", done, len(requests))
        operands = operands_of(request.lane)
        key = _key(request, library, operands, period_ps)
        lanes.append(known.get(key) or cost_lane(request, library, operands, key=key, period_ps=period_ps))
        left = [lane for lane in known.values() if lane.key not in {one.key for one in lanes}]
        costs = LaneCosts(source=source, about=about, lanes=(*lanes, *left))
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(costs.to_json(), indent=1) + "\n", encoding="utf-8")
    progress("lanes", len(requests), len(requests))
    return LaneCosts(source=source, about=about, lanes=tuple(lanes))


def cost_lane(
    request: LaneRequest,
    library: Library,
    operands: Mapping[str, LaneOperands],
    *,
    key: str = "",
    period_ps: float = PERIOD_PS,
) -> LaneCost:
    """One lane's area and its energy on each of the operands.

    Raises:
        SynthesisError, MissingExtraError: as `cost_lanes`.
    """
    found = synthesize_lane(request.lane, library, period_ps=period_ps)
    start = time.monotonic()
    loads = loads_of(found.netlist, library)
    energies = tuple(_energy(found, loads, name, stream, period_ps) for name, stream in operands.items())
    return LaneCost(
        spec=str(request.spec),
        vector_size=found.lane.vector_size,
        key=key,
        multiplier=found.multiplier,
        delay_ps=found.delay_ps,
        area_um2=found.netlist.area,
        sequential_um2=found.netlist.sequential_area,
        components_um2=found.components,
        cells=found.cell_counts,
        energies=energies,
        synthesis_seconds=round(found.seconds, 2),
        simulation_seconds=round(time.monotonic() - start, 2),
    )


def read_costs(path: Path) -> LaneCosts:
    """A table of lanes from a file.

    Raises:
        DataError: the file cannot be read or is no such table.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise DataError(
            f"{path} must be a table of lanes that vsquant hw synth wrote, and it cannot be read"
        ) from error
    if not isinstance(data, dict):
        raise DataError(f"{path} must be a table of lanes that vsquant hw synth wrote, not a {type(data).__name__}")
    try:
        return LaneCosts.from_json(data)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def shipped_costs() -> LaneCosts:
    """The lanes that were measured for the package."""
    text = (resources.files("vsquant.hardware") / "tables" / "lane_prices.json").read_text("utf-8")
    return LaneCosts.from_json(json.loads(text))


def about_library(library: Library, period_ps: float) -> dict[str, Any]:
    """What a table of lanes says of how it was made."""
    return {
        "library": library.name,
        "conditions": library.conditions,
        "period_ps": period_ps,
        "recipe": yosys.recipe().splitlines(),
        "pyosys": yosys.version(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def check_sums(netlist: Netlist, lane: Lane, operands: LaneOperands, activity: Activity, streams: int) -> None:
    """Whether the netlist's accumulator held what eqs. (7)-(8) say, in every cycle of every stream.

    Raises:
        SynthesisError: it did not.
    """
    found = _signed(activity.outputs["acc"])[PIPELINE_CYCLES:, :streams]
    expected = expected_sums(lane, operands).reshape(streams, -1).T[: found.shape[0]]
    if not np.array_equal(found, expected):
        raise SynthesisError(
            f"the netlist must compute what the lane's model does, but {np.count_nonzero(found != expected)} of "
            f"{expected.size} sums differ; the synthesizer or the library's functions are wrong"
        )


def check_settled(netlist: Netlist, settled: Activity, timed: Activity) -> None:
    """Whether the registers switched as often with delays as without: then every transition came before its edge.

    Raises:
        SynthesisError: they did not.
    """
    outputs = [gate.nets[pin] for gate in netlist.flip_flops for pin in gate.cell.outputs]
    late = int(np.abs(settled.toggles[outputs] - timed.toggles[outputs]).sum())
    if late:
        raise SynthesisError(
            f"registers must take the same values with delays and without, but {late} of their transitions differ: "
            f"the delays at these loads are longer than {SETTLING:g} clock periods"
        )


def _energy(found: SynthesizedLane, loads: Loads, name: str, operands: LaneOperands, period_ps: float) -> LaneEnergy:
    lane, netlist = found.lane, found.netlist
    settled = simulate(netlist, stimulus(lane, operands), streams=WORD_STREAMS)
    check_sums(netlist, lane, operands, settled, WORD_STREAMS)
    few = stimulus(lane, operands.first(TIMED_GROUPS), streams=1)
    timed = simulate_timed(netlist, loads, few, period_ps=SETTLING * period_ps)
    check_settled(netlist, simulate(netlist, few, streams=1), timed)
    parts = energy_per_cycle(netlist, loads, timed)
    return LaneEnergy(
        operands=name,
        switching_fj=parts.switching_fj,
        internal_fj=parts.internal_fj,
        clock_fj=parts.clock_fj,
        zero_delay_fj=energy_per_cycle(netlist, loads, settled).total_fj,
        cycles=timed.cycles,
    )


def _signed(words: UInt64[np.ndarray, "cycles bits words"]) -> Int64[np.ndarray, "cycles streams"]:
    """Two's complement values of every stream from words of bits."""
    cycles, bits, count = words.shape
    planes = np.unpackbits(words.view(np.uint8).reshape(cycles, bits, count * 8), axis=2, bitorder="little")
    weights = np.array([1 << bit for bit in range(bits - 1)] + [-(1 << (bits - 1))], dtype=np.int64)
    values: Int64[np.ndarray, "cycles streams"] = np.einsum("cbs,b->cs", planes.astype(np.int64), weights)
    return values


def _key(request: LaneRequest, library: Library, operands: Mapping[str, LaneOperands], period_ps: float) -> str:
    """A digest of everything that a lane's cost depends on."""
    digest = hashlib.sha256()
    method = (yosys.version(), yosys.recipe(), WIRE_FF_PER_READER, TIMED_GROUPS, SETTLING)
    facts = (request.spec, request.lane.vector_size, period_ps, *method, library.text)
    for text in (*map(str, facts), *lane_sources().values()):
        digest.update(text.encode())
    for name, one in operands.items():
        digest.update(name.encode())
        for array in (one.weight_codes, one.weight_scale, one.activation_codes, one.activation_scale):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
