"""What an allocation may cost: average bits of a weight, bytes of all weights, or a cost of the caller's own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vsquant.errors import AllocationError

BudgetUnit: TypeAlias = Literal["bits", "bytes", "cost"]

_UNITS: Final[dict[str, tuple[BudgetUnit, int]]] = {
    "bits": ("bits", 1),
    "bit": ("bits", 1),
    "b": ("bytes", 1),
    "byte": ("bytes", 1),
    "bytes": ("bytes", 1),
    "kb": ("bytes", 10**3),
    "mb": ("bytes", 10**6),
    "gb": ("bytes", 10**9),
    "kib": ("bytes", 2**10),
    "mib": ("bytes", 2**20),
    "gib": ("bytes", 2**30),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit on what all allocated layers together take.

    ``unit`` says what of: "bits" is N + M/V of a weight, averaged over all weights, coarse scales and padding aside;
    "bytes" counts what packing stores: codes, vector scales and coarse scales; "cost" is the caller's table.
    """

    text: str
    unit: BudgetUnit
    limit: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Reads "4.25 bits", "3 MB", "2.5 MiB" or "800000 bytes".

        Raises:
            AllocationError: it is none of these.
        """
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
        unit, factor = _UNITS.get(found.group(2).lower(), (None, 1)) if found else (None, 1)
        if found is None or unit is None or float(found.group(1)) == 0:
            raise AllocationError(
                f"a budget must be like '4.25 bits', '3 MB', '2.5 MiB' or '800000 bytes', not {text!r}"
            )
        return cls(text=text.strip(), unit=unit, limit=float(found.group(1)) * factor)

    @classmethod
    def of_cost(cls, limit: float) -> Budget:
        """A limit in the unit of a cost table."""
        return cls(text=f"{limit:g}", unit="cost", limit=float(limit))
