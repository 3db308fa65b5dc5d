"""What a network costs on an accelerator: energy, area and time, and what they are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

COMPONENTS: Final = (
    "lanes",
    "accumulators",
    "weight buffers",
    "activation buffers",
    "vector scales",
    "post-processing",
    "shared buffer",
    "DRAM",
)
"""Where energy goes, in the order of tables and pictures; vector scales are their bits in the elements' buffers."""

MEMORIES: Final = frozenset(
    {"accumulators", "weight buffers", "activation buffers", "vector scales", "shared buffer", "DRAM"}
)


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer on an accelerator.

    ``requested`` is whether it runs in the spec that was asked for; ``passes`` is more than one where it is too wide
    for its lanes, ``wide`` whether it runs on lanes of its own. Energies are in picojoules by component.
    """

    name: str
    spec: str
    requested: bool
    macs: int
    padded_macs: int
    passes: int
    wide: bool
    cycles: int
    bound: str
    energy_pj: dict[str, float]
    note: str = ""

    @property
    def total_pj(self) -> float:
        """Energy of the layer."""
        return sum(self.energy_pj.values())


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """A network in one spec on one accelerator, for ``batch`` samples at once; energies and cycles are of all of them.

    ``float_macs`` are multiply-accumulates of layers that stay in floating point: they run elsewhere and are not
    priced. ``area_um2`` is by component; ``sources`` says where every figure is from.
    """

    network: str
    spec: str
    accelerator: str
    lane: str
    batch: int
    clock_ghz: float
    layers: tuple[LayerCost, ...]
    area_um2: dict[str, float]
    float_macs: int
    unpriced: tuple[str, ...] = ()
    sources: tuple[str, ...] = field(default_factory=tuple)

    @property
    def macs(self) -> int:
        """Multiply-accumulates on the accelerator, without those of padding and of passes."""
        return sum(layer.macs for layer in self.layers)

    @property
    def cycles(self) -> int:
        """Cycles, layer after layer."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def seconds(self) -> float:
        """Time of one batch."""
        return self.cycles / self.clock_ghz * 1e-9

    @property
    def total_area_um2(self) -> float:
        """Area of the chip without its interconnect and control."""
        return sum(self.area_um2.values())

    @property
    def inferences_per_second_per_mm2(self) -> float:
        """Performance per area."""
        return self.batch / self.seconds / (self.total_area_um2 / 1e6)

    @property
    def requested_share(self) -> float:
        """Of all multiply-accumulates, the share that runs in the spec that was asked for."""
        every = self.macs + self.float_macs
        return sum(layer.macs for layer in self.layers if layer.requested) / every if every else 0.0

    def energy_pj(self, *, memory: float = 1.0, dram: bool = True) -> dict[str, float]:
        """Energy by component, that of memories ``memory`` times what the table says, with or without DRAM."""
        total = dict.fromkeys(COMPONENTS, 0.0)
        for layer in self.layers:
            for name, energy in layer.energy_pj.items():
                total[name] += energy * (memory if name in MEMORIES else 1.0)
        return total if dram else {name: energy for name, energy in total.items() if name != "DRAM"}

    def total_pj(self, *, memory: float = 1.0, dram: bool = True) -> float:
        """Energy of the batch."""
        return sum(self.energy_pj(memory=memory, dram=dram).values())

    @property
    def cycles_by_bound(self) -> dict[str, int]:
        """Cycles by what the layers wait for."""
        found: dict[str, int] = {}
        for layer in self.layers:
            found[layer.bound] = found.get(layer.bound, 0) + layer.cycles
        return found


@dataclass(frozen=True, kw_only=True)
class CostComparison:
    """A network beside the same network at 8/8 per-channel, on the same accelerator with lanes for that."""

    cost: NetworkCost
    baseline: NetworkCost

    def energy_ratio(self, *, memory: float = 1.0, dram: bool = True) -> float:
        """Energy over the baseline's."""
        return self.cost.total_pj(memory=memory, dram=dram) / self.baseline.total_pj(memory=memory, dram=dram)

    @property
    def area_ratio(self) -> float:
        """Area over the baseline's."""
        return self.cost.total_area_um2 / self.baseline.total_area_um2

    @property
    def performance_per_area_ratio(self) -> float:
        """Performance per area over the baseline's."""
        return self.cost.inferences_per_second_per_mm2 / self.baseline.inferences_per_second_per_mm2
