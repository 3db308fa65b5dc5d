"""What a lane costs, from the tables that ship or that synthesis wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from vsquant.errors import AcceleratorError
from vsquant.hardware.accelerator.configuration import LaneWidths
from vsquant.results.lane_cost import BASELINE
from vsquant.spec.layer import LayerSpec

SHIPPED: Final = "tables/lane_prices.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class LanePrice:
    """One lane of V multipliers with its accumulator: area, and energy of the dot product of one vector."""

    area_um2: float
    operation_pj: float


@dataclass(frozen=True, kw_only=True)
class LanePrices:
    """Lanes by (spec, V), and where the figures come from."""

    prices: Mapping[tuple[str, int], LanePrice]
    source: str

    @classmethod
    def load(cls, path: Path | None = None) -> LanePrices:
        """The table that ships, or one from a file; lanes that were synthesized and not simulated have no price.

        Raises:
            AcceleratorError: the file is not such a table.
        """
        try:
            text = (files("vsquant.hardware") / SHIPPED if path is None else path).read_text("utf-8")
            table: dict[str, Any] = json.loads(text)
            simulated = [row for row in table["lanes"] if row["energy_fj_per_mac"] is not None]
            return cls(prices=dict(map(_price, simulated)), source=str(table["source"]))
        except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
            raise AcceleratorError(f"{path} must be a table of lanes that vsquant hw synth wrote: {error!r}") from error

    def of(self, lane: LaneWidths, vector_size: int) -> LanePrice:
        """The price of a lane.

        Raises:
            AcceleratorError: the table does not have it; names the command that makes it.
        """
        spec = lane.text(vector_size)
        found = self.prices.get((spec, vector_size))
        if found is None:
            known = ", ".join(sorted(name for name, size in self.prices if size == vector_size)) or "none"
            wanted = spec if spec == BASELINE else f"{BASELINE} {spec}"
            raise AcceleratorError(
                f"there is no known cost of a lane of {spec} with V = {vector_size}; measure it beside 8/8 with "
                f"'vsquant hw synth {wanted} --liberty LIBRARY -o lanes.json' and give --lanes lanes.json, "
                f"or choose one of the known: {known}"
            )
        return found


def _price(row: Mapping[str, Any]) -> tuple[tuple[str, int], LanePrice]:
    spec, size = LayerSpec.parse(row["spec"]), int(row["vector_size"])
    price = LanePrice(area_um2=float(row["area_um2"]), operation_pj=float(row["energy_fj_per_mac"]) * size / 1000)
    return (str(spec), size), price
