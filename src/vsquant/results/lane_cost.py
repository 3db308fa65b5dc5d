"""What lanes cost: area and energy of each, measured the same way, and their ratios to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from vsquant.errors import DataError

BASELINE: Final = "w8a8"
"""The lane that ratios are to: 8/8 per channel."""


@dataclass(frozen=True, kw_only=True)
class LaneEnergy:
    """Energy of one cycle, V products, on some ``operands``: what delays make of it, and what no delays would.

    ``switching_fj`` charges pins and wire, ``internal_fj`` is within cells, ``clock_fj`` is the registers' clock.
    """

    operands: str
    switching_fj: float
    internal_fj: float
    clock_fj: float
    zero_delay_fj: float
    cycles: int

    @property
    def total_fj(self) -> float:
        """Energy of one cycle."""
        return self.switching_fj + self.internal_fj + self.clock_fj


@dataclass(frozen=True, kw_only=True)
class LaneCost:
    """One lane of ``vector_size`` multipliers: ``multiplier`` (plain or booth), longest path, area by component.

    ``seconds`` are of synthesis and of simulation.
    """

    spec: str
    vector_size: int
    key: str
    multiplier: str
    delay_ps: float
    area_um2: float
    sequential_um2: float
    components_um2: Mapping[str, float]
    cells: Mapping[str, int]
    energies: tuple[LaneEnergy, ...]
    synthesis_seconds: float
    simulation_seconds: float

    def energy_fj_per_mac(self, operands: str | None = None) -> float | None:
        """Energy of one multiply-accumulate on named operands; without a name the mean over its own formats'."""
        chosen = [
            energy.total_fj
            for energy in self.energies
            if (energy.operands == operands if operands else not energy.operands.startswith(SHARED))
        ]
        return sum(chosen) / len(chosen) / self.vector_size if chosen else None

    @property
    def operands(self) -> tuple[str, ...]:
        """The names of what it was simulated on."""
        return tuple(energy.operands for energy in self.energies)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the energy of one multiply-accumulate beside them."""
        return asdict(self) | {"energy_fj_per_mac": self.energy_fj_per_mac()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> LaneCost:
        """Inverse of `to_json`."""
        plain = {name: value for name, value in row.items() if name != "energy_fj_per_mac"}
        return cls(**plain | {"energies": tuple(LaneEnergy(**energy) for energy in row["energies"])})


SHARED: Final = "shared "
"""How operands are named that are codes of another format: identical ones through two lanes."""


@dataclass(frozen=True, kw_only=True)
class LaneCosts:
    """Lanes measured with one library and one recipe; ``about`` says which, and who measured when."""

    source: str
    about: Mapping[str, Any]
    lanes: tuple[LaneCost, ...]

    def of(self, spec: str, vector_size: int = 16) -> LaneCost | None:
        """The lane of a spec in canonical notation, or None."""
        return next((lane for lane in self.lanes if (lane.spec, lane.vector_size) == (spec, vector_size)), None)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what `vsquant hw cost` prices lanes from."""
        return {"source": self.source, **self.about, "lanes": [lane.to_json() for lane in self.lanes]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LaneCosts:
        """Inverse of `to_json`.

        Raises:
            DataError: it is no such table.
        """
        try:
            return cls(
                source=str(data["source"]),
                about={name: value for name, value in data.items() if name not in ("source", "lanes")},
                lanes=tuple(LaneCost.from_json(row) for row in data["lanes"]),
            )
        except KeyError as error:
            raise DataError(f"a table of lanes must be one that vsquant hw synth wrote; it lacks {error}") from error
        except (TypeError, AttributeError) as error:
            raise DataError(f"a table of lanes must be one that vsquant hw synth wrote: {error}") from error

    def relative_area(self, lane: LaneCost) -> float | None:
        """Area for one multiplier against the baseline's; None where that was not measured."""
        base = self.of(BASELINE)
        return None if base is None else lane.area_um2 / lane.vector_size / (base.area_um2 / base.vector_size)

    def relative_energy(self, lane: LaneCost, operands: str | None = None) -> float | None:
        """Energy of one multiply-accumulate against the baseline's on the same operands, or None.

        Without a name the mean over all that are of each lane's own formats.
        """
        base = self.of(BASELINE)
        names = [operands] if operands else [name for name in lane.operands if not name.startswith(SHARED)]
        pairs = [] if base is None else [(lane.energy_fj_per_mac(name), base.energy_fj_per_mac(name)) for name in names]
        ratios = [mine / whole for mine, whole in pairs if mine is not None and whole is not None]
        return sum(ratios) / len(ratios) if ratios else None

    def relative_energy_on_vectors(self, lane: LaneCost) -> float | None:
        """As `relative_energy`, with both lanes on the codes of formats with vector scales, which use all their bits.

        What the structure takes: per-channel codes are small where outliers set their one scale, and switch less.
        """
        base = self.of(BASELINE)
        for name in [] if base is None else base.operands:
            assert base is not None
            own = name.removeprefix(SHARED)
            mine = lane.energy_fj_per_mac(name) or lane.energy_fj_per_mac(own)
            whole = base.energy_fj_per_mac(name)
            if name != own and mine is not None and whole is not None:
                return mine / whole
        return None
