"""The shapes of a network's layers, as one pass over it found them."""

from __future__ import annotations

from dataclasses import dataclass

from vsquant.errors import SpecError
from vsquant.spec.workload import Workload


@dataclass(frozen=True, kw_only=True)
class LayerWorkload:
    """What one layer is asked for in one sample: its shape, and how often it is called with that shape.

    Invariant: ``calls`` is at least 1.
    """

    name: str
    workload: Workload
    calls: int = 1

    def __post_init__(self) -> None:
        if self.calls < 1:
            raise SpecError(f"calls of layer {self.name!r} must be at least 1, not {self.calls}")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample."""
        return self.calls * self.workload.macs
