"""Runs in the simulator: feeds valid/ready ports from a case's words and compares what leaves, and when."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

RESET_CYCLES = 2


class Source:
    """Offers words on a valid/ready port as its pattern allows; a word on offer stays until it is taken."""

    def __init__(self, dut: Any, port: str, fields: list[list[Any]], words: list[str], pattern: list[int]) -> None:
        self.valid, self.ready = getattr(dut, f"{port}_valid"), getattr(dut, f"{port}_ready")
        self.fields = [(getattr(dut, name), offset, (1 << bits) - 1) for name, offset, bits in fields]
        self.words, self.pattern = [int(word, 16) for word in words], pattern
        self.sent, self.offering = 0, False
        self.valid.value = 0
        for handle, _, _ in self.fields:
            handle.value = 0

    def drive(self, cycle: int) -> None:
        if self.offering or self.sent == len(self.words):
            return
        if self.pattern[cycle % len(self.pattern)]:
            word = self.words[self.sent]
            for handle, offset, mask in self.fields:
                handle.value = word >> offset & mask
            self.valid.value = 1
            self.offering = True

    def sample(self) -> None:
        if self.offering and self.ready.value == 1:
            self.sent += 1
            self.offering = False

    def retire(self) -> None:
        """After the clock edge that took the word."""
        if not self.offering:
            self.valid.value = 0


class Sink:
    """Takes words as its pattern allows, and compares each and the cycle in which it left."""

    def __init__(self, dut: Any, port: str, fields: list[list[Any]], words: list[str], pattern: list[int]) -> None:
        self.valid, self.ready, self.port = getattr(dut, f"{port}_valid"), getattr(dut, f"{port}_ready"), port
        self.fields = [(getattr(dut, name), offset) for name, offset, _ in fields]
        self.words, self.pattern = [int(word, 16) for word in words], pattern
        self.cycles: list[int] = []
        self.willing = 0
        self.ready.value = 0

    @property
    def complete(self) -> bool:
        return len(self.cycles) == len(self.words)

    def drive(self, cycle: int) -> None:
        willing = self.pattern[cycle % len(self.pattern)]
        if willing != self.willing:
            self.ready.value = self.willing = willing

    def sample(self, cycle: int) -> None:
        if self.willing and self.valid.value == 1:
            index = len(self.cycles)
            assert index < len(self.words), f"{self.port}: more than {index} beats leave"
            word = sum(int(handle.value) << offset for handle, offset in self.fields)
            assert word == self.words[index], f"{self.port} {index}: {word:x} leaves, not {self.words[index]:x}"
            self.cycles.append(cycle)


@cocotb.test()
async def every_word_is_exact_and_leaves_in_its_cycle(dut: Any) -> None:
    case = json.loads(Path(os.environ["VSQUANT_CASE"]).read_text())
    sources, sinks = (
        [kind(dut, name, port["fields"], port["words"], port["pattern"]) for name, port in case[role].items()]
        for kind, role in ((Source, "sources"), (Sink, "sinks"))
    )
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="step").start(start_high=False)
    for _ in range(RESET_CYCLES):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    cycle, last = 0, 0
    while not all(sink.complete for sink in sinks):
        for port in (*sources, *sinks):
            port.drive(cycle)
        await FallingEdge(dut.clk)
        for source in sources:
            source.sample()
        for sink in sinks:
            sink.sample(cycle)
        await RisingEdge(dut.clk)
        for source in sources:
            source.retire()
        cycle += 1
        last = max([last, *(sink.cycles[-1] for sink in sinks if sink.cycles)])
        assert cycle - last < case["patience"], f"nothing has left since cycle {last}"
    assert {sink.port: sink.cycles for sink in sinks} == case["leaves"] or not case["leaves"]
