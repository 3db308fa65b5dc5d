"""Cycles of a processing element: its control, cycle by cycle, with the operands left out.

Equal to the RTL's in every cycle, whatever its ports wait for; each class here is the control of one module there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from vsquant.hardware.tiling import Plan, Tile, drained_parts

ARRIVAL_CYCLES = 5
"""From the read of an operand to its sum in the accumulators: the buffer, three stages of the lane, the adder."""
SCALE_STAGES = 3
"""Stages of the post-processing unit before the vector maximum."""

Pattern: TypeAlias = Sequence[bool]
"""Whether the other side of a port would transfer in a cycle; repeats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """When the other side of each port is willing, cycle by cycle; always, where nothing else is said.

    A source that has offered a beat keeps it on offer until it is taken.
    """

    command: Pattern = (True,)
    weights: Pattern = (True,)
    activations: Pattern = (True,)
    constants: Pattern = (True,)
    sums: Pattern = (True,)
    codes: Pattern = (True,)


class Run(NamedTuple):
    """When each beat left, counted from the first cycle after reset, and how many of the cycles computed."""

    sums: list[int]
    codes: list[int]
    computing_cycles: int

    @property
    def cycles(self) -> int:
        """Cycles until the last beat has left."""
        return 1 + max(self.sums[-1:] + self.codes[-1:])


def run_cycles(plan: Plan, ports: Ports | None = None) -> Run:
    """Runs a plan from reset to the last beat that leaves."""
    return _Element(plan, ports or Ports()).run()


@dataclass(slots=True)
class _Source:
    """What feeds a port: ``lasts`` tells of each beat whether it is the last of a bank."""

    pattern: Pattern
    lasts: Sequence[bool]
    sent: int = 0
    offering: bool = False

    def valid(self, cycle: int) -> bool:
        self.offering = self.sent < len(self.lasts) and (self.offering or _willing(self.pattern, cycle))
        return self.offering

    def taken(self) -> bool:
        """Removes the beat on offer and says whether it was the last of its bank."""
        self.offering = False
        self.sent += 1
        return self.lasts[self.sent - 1]


@dataclass(slots=True)
class _Banks:
    """``vsq_bank_control``: one bank is filled while the other is read."""

    source: _Source
    full: list[bool] = field(default_factory=lambda: [False, False])
    writing: int = 0
    reading: int = 0

    @property
    def available(self) -> bool:
        return self.full[self.reading]

    def step(self, cycle: int, free: bool) -> None:
        accepted = self.source.valid(cycle) and not self.full[self.writing]
        if free:
            self.full[self.reading] = False
            self.reading ^= 1
        if accepted and self.source.taken():
            self.full[self.writing] = True
            self.writing ^= 1


@dataclass(slots=True)
class _PostProcessing:
    """``vsq_ppu``: a pipeline that advances as a whole."""

    beats: int
    stages: int
    beat: int = 0
    ticks: int = 0
    due: deque[int] = field(default_factory=deque)
    out_valid: bool = False

    def step(self, in_valid: bool, out_ready: bool) -> None:
        if self.out_valid and not out_ready:
            return
        self.out_valid = False
        if not in_valid and self.beat:
            return
        if self.due and self.due[0] == self.ticks:
            self.due.popleft()
            self.out_valid = True
        if in_valid:
            self.beat = (self.beat + 1) % self.beats
            if self.beat == 0:
                self.due.append(self.ticks + self.stages)
        self.ticks += 1


class _Finished(NamedTuple):
    """A bank of complete sums: the cycle from which it can drain, its beats, and what is done with them."""

    cycle: int
    beats: int
    requantize: bool
    free_constants: bool


@dataclass(slots=True)
class _Sequencer:
    """``vsq_sequencer``: which operand is read in which cycle."""

    plan: Plan
    commands: _Source
    tile: Tile | None = None
    commanded: int = 0
    position: int = 0
    vector: int = 0
    accumulated: int = 0
    bank: int = 0
    taken: list[bool] = field(default_factory=lambda: [False, False])
    reads: int = 0

    def step(self, cycle: int, filled: bool, drained: int | None) -> tuple[Tile | None, _Finished | None]:
        """The tile that ends in this cycle, and the sums that are complete with it."""
        tile = self.tile
        offered = self.commands.valid(cycle)
        start = self.accumulated == 0 and self.position == 0
        reads = tile is not None and filled and not (start and self.taken[self.bank])
        if drained is not None:
            self.taken[drained] = False
        ended, finished = self._read(tile, cycle, start) if tile is not None and reads else (None, None)
        if tile is None or ended is not None:
            self.tile = self._next_tile() if offered else None
        return ended, finished

    def _next_tile(self) -> Tile:
        self.commands.taken()
        self.commanded += 1
        return self.plan.tiles[self.commanded - 1]

    def _read(self, tile: Tile, cycle: int, start: bool) -> tuple[Tile | None, _Finished | None]:
        self.reads += 1
        self.taken[self.bank] |= start
        self.position += 1
        if self.position < tile.positions:
            return None, None
        self.position = 0
        self.vector += 1
        self.accumulated += 1
        ended = tile if self.vector == tile.vectors else None
        self.vector %= tile.vectors
        complete = ended is not None and tile.drain
        if not complete and self.accumulated < self.plan.element.lane.max_vectors:
            return ended, None
        self.accumulated = 0
        self.bank ^= 1
        return ended, self._finished(tile, cycle, complete)

    def _finished(self, tile: Tile, cycle: int, complete: bool) -> _Finished:
        element = self.plan.element
        requantize = complete and self.plan.post_process
        return _Finished(
            cycle=cycle + ARRIVAL_CYCLES,
            beats=tile.positions * element.lanes // element.drain_width,
            requantize=requantize,
            free_constants=requantize and tile.free_constants,
        )


@dataclass(slots=True)
class _Drain:
    """``vsq_drain``: complete sums leave beat by beat."""

    finished: deque[_Finished] = field(default_factory=deque)
    beat: int = 0
    bank: int = 0
    out_valid: bool = False
    out_requantize: bool = False

    def step(self, cycle: int, out_ready: bool, constants_available: bool) -> tuple[int | None, bool]:
        """The bank that has left with this cycle, and whether the constants are not needed any more."""
        finished = self.finished[0] if self.finished and self.finished[0].cycle <= cycle else None
        waits = self.out_valid and not out_ready
        if waits or finished is None or (finished.requantize and not constants_available):
            self.out_valid = waits
            return None, False
        self.out_valid, self.out_requantize = True, finished.requantize
        self.beat += 1
        if self.beat < finished.beats:
            return None, False
        self.finished.popleft()
        self.beat, bank = 0, self.bank
        self.bank ^= 1
        return bank, finished.free_constants


class _Element:
    """``vsq_pe``: its parts, and the beats that have left."""

    def __init__(self, plan: Plan, ports: Ports) -> None:
        lanes, tiles = plan.element.lanes, plan.tiles
        self.ports = ports
        self.weights = _banks(ports.weights, [tile.vectors * lanes for tile in tiles if tile.load_weights])
        self.activations = _banks(ports.activations, [tile.vectors * tile.positions for tile in tiles])
        self.constants = _banks(ports.constants, [lanes for tile in tiles if tile.load_constants])
        self.sequencer = _Sequencer(plan, _Source(ports.command, [True] * len(tiles)))
        self.drain = _Drain()
        self.unit = _post_processing(plan)
        self.sums: list[int] = []
        self.codes: list[int] = []
        self.expected_sums, self.expected_codes = expected_beats(plan)

    def run(self) -> Run:
        cycle = 0
        while len(self.sums) < self.expected_sums or len(self.codes) < self.expected_codes:
            self._step(cycle)
            cycle += 1
        return Run(self.sums, self.codes, self.sequencer.reads)

    def _step(self, cycle: int) -> None:
        """One cycle: what every part does follows from the registers before it."""
        drain, unit = self.drain, self.unit
        sums_ready, codes_ready = _willing(self.ports.sums, cycle), _willing(self.ports.codes, cycle)
        if drain.out_valid and not drain.out_requantize and sums_ready:
            self.sums.append(cycle)
        if unit.out_valid and codes_ready:
            self.codes.append(cycle)
        out_ready = (not unit.out_valid or codes_ready) if drain.out_requantize else sums_ready
        to_unit = drain.out_valid and drain.out_requantize
        filled = self.weights.available and self.activations.available
        drained, free_constants = drain.step(cycle, out_ready, self.constants.available)
        unit.step(to_unit, codes_ready)
        ended, finished = self.sequencer.step(cycle, filled, drained)
        if finished is not None:
            drain.finished.append(finished)
        self.weights.step(cycle, ended is not None and ended.free_weights)
        self.activations.step(cycle, ended is not None)
        self.constants.step(cycle, free_constants)


def expected_beats(plan: Plan) -> tuple[int, int]:
    """Beats that leave through the ports of sums and of codes."""
    element = plan.element
    sums = codes = 0
    for tile, _, end in drained_parts(plan):
        outputs = tile.positions * element.lanes
        if plan.post_process and element.post_processing is not None and end == plan.shape.vectors:
            codes += outputs // element.post_processing.vector_size
        else:
            sums += outputs // element.drain_width
    return sums, codes


def _willing(pattern: Pattern, cycle: int) -> bool:
    return pattern[cycle % len(pattern)]


def _banks(pattern: Pattern, sizes: Iterable[int]) -> _Banks:
    return _Banks(_Source(pattern, [beat == size - 1 for size in sizes for beat in range(size)]))


def _post_processing(plan: Plan) -> _PostProcessing:
    unit = plan.element.post_processing
    if unit is None:
        return _PostProcessing(beats=1, stages=1)
    beats = unit.vector_size // plan.element.drain_width
    waiting = beats + unit.output.scale_storage_bits + 2 if unit.output.has_vectors else 0
    return _PostProcessing(beats=beats, stages=SCALE_STAGES + waiting + unit.output.qmax.bit_length() + 1)
