"""What became of each layer of a model: the report that comes with every quantized model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One layer of a quantized model.

    ``requested`` is the spec the recipe asked for and ``spec`` the one in force (both in notation, None = float);
    ``padding`` is the share of stored elements that pad tails to whole vectors (0.25 = a quarter of them);
    ``unsigned_activations`` is None where activations are not quantized; ``note`` says why the layer is not what was
    requested (fallback, skip, tied weights) and is empty otherwise.
    """

    name: str
    kind: str
    rule: str
    requested: str | None
    spec: str | None
    weights: int
    padding: float
    unsigned_activations: bool | None
    note: str = ""

    @property
    def fallback(self) -> bool:
        """Whether the layer could not take the spec requested and took the recipe's fallback."""
        return self.spec is not None and "fallback" in self.note
