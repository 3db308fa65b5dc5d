"""Which layer hurts, and what each would cost and lose in other formats; and the formats chosen within a budget."""

from __future__ import annotations

from dataclasses import dataclass

from vsquant.errors import AllocationError
from vsquant.results.plain_table import plain_table


@dataclass(frozen=True, kw_only=True)
class FormatSensitivity:
    """One layer in one candidate format.

    ``requested`` is the candidate and ``spec`` the spec in force (both in notation). ``mean_squared_error`` and
    ``relative_error`` (its ratio to the mean square) are of the layer's output, float input against quantized
    operands; ``divergence`` estimates what the error costs at the network's outputs, in nats per row of logits;
    ``weight_bits`` is N + M/V, ``stored_bytes`` what codes and all scales take once packed.
    """

    requested: str
    spec: str
    mean_squared_error: float
    relative_error: float
    divergence: float
    weight_bits: float
    stored_bytes: int


@dataclass(frozen=True, kw_only=True)
class LayerSensitivity:
    """One layer in every candidate format; layers with an equal ``shared_input`` read the same tensor."""

    name: str
    kind: str
    shape: tuple[int, ...]
    elements: int
    shared_input: int
    formats: tuple[FormatSensitivity, ...]
    note: str = ""

    @property
    def is_fixed(self) -> bool:
        """Whether every candidate comes to the same: a fallback, or an end that the recipe decides."""
        return len({found.spec for found in self.formats}) == 1


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """What was measured of a model, every layer in every one of ``candidates``, on ``samples`` samples.

    ``rows`` counts rows of logits, ``draws`` labels drawn for each with ``seed``.
    """

    model: str
    candidates: tuple[str, ...]
    layers: tuple[LayerSensitivity, ...]
    samples: int
    rows: int
    draws: int
    seed: int
    scale_mode: str

    def __str__(self) -> str:
        """For each candidate, what all layers cost together and the layers ranked by what each does."""
        parts = [
            f"{self.model} in {candidate}: {self.divergence(candidate):.3g} nats a row from all layers, "
            f"from {self.samples} calibration samples\n"
            + plain_table(
                ("layer", "weights", "relative error", "nats"),
                [
                    (
                        layer.name or "the model itself",
                        f"{layer.elements:,}",
                        f"{form.relative_error:.2g}",
                        f"{form.divergence:.2g}",
                    )
                    for layer, form in self.ranked(candidate)
                ],
            )
            for candidate in self.candidates
        ]
        return "\n\n".join(parts)

    def index(self, candidate: str) -> int:
        """Where a candidate stands.

        Raises:
            AllocationError: it was not measured.
        """
        if candidate not in self.candidates:
            raise AllocationError(f"the candidate must be one of {', '.join(self.candidates)}, not {candidate}")
        return self.candidates.index(candidate)

    def ranked(self, candidate: str) -> tuple[tuple[LayerSensitivity, FormatSensitivity], ...]:
        """The layers as they are in a candidate format, the one that costs most first."""
        column = self.index(candidate)
        pairs = [(layer, layer.formats[column]) for layer in self.layers]
        return tuple(sorted(pairs, key=lambda pair: -pair[1].divergence))

    def divergence(self, candidate: str) -> float:
        """Sum over the layers, in nats per row: an estimate for the network with every layer in that format."""
        column = self.index(candidate)
        return sum(layer.formats[column].divergence for layer in self.layers)

    @property
    def elements(self) -> int:
        """Weights of all layers."""
        return sum(layer.elements for layer in self.layers)


@dataclass(frozen=True, kw_only=True)
class LayerChoice:
    """What one layer was given."""

    name: str
    elements: int
    chosen: FormatSensitivity


@dataclass(frozen=True, kw_only=True)
class UniformChoice:
    """One candidate for every layer: what that costs, by the budget's own measure, and loses."""

    candidate: str
    cost: float
    divergence: float


@dataclass(frozen=True, kw_only=True)
class AllocationRecord:
    """The formats that lose least within a budget.

    ``budget`` is as it was asked for; ``unit`` is what ``limit`` and ``cost`` count: "bits" a weight, "bytes" or
    "cost". ``uniform`` has every candidate for comparison, whether or not it is within the budget.
    """

    model: str
    budget: str
    unit: str
    limit: float
    cost: float
    layers: tuple[LayerChoice, ...]
    uniform: tuple[UniformChoice, ...]
    samples: int

    def __str__(self) -> str:
        """What each layer was given, as a table in text, and what it comes to."""
        rows = [
            (
                layer.name or "the model itself",
                layer.chosen.spec,
                f"{layer.chosen.weight_bits:.2f}",
                f"{layer.chosen.divergence:.2g}",
            )
            for layer in self.layers
        ]
        return (
            f"{self.model} within {self.budget}: {self.weight_bits:.3f} bits a weight, "
            f"{self.stored_bytes:,} bytes packed, {self.divergence:.3g} nats a row\n"
            + plain_table(("layer", "spec", "bits", "nats"), rows)
        )

    @property
    def divergence(self) -> float:
        """Sum of what the layers lose, in nats per row of logits."""
        return sum(layer.chosen.divergence for layer in self.layers)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all allocated weights once packed."""
        return sum(layer.chosen.stored_bytes for layer in self.layers)

    @property
    def weight_bits(self) -> float:
        """Bits of a weight with its share of a vector scale, N + M/V, averaged over all allocated weights."""
        elements = sum(layer.elements for layer in self.layers)
        return sum(layer.elements * layer.chosen.weight_bits for layer in self.layers) / max(1, elements)

    @property
    def best_uniform(self) -> UniformChoice | None:
        """The candidate that loses least of those that fit the budget everywhere; None where none does."""
        fitting = [choice for choice in self.uniform if choice.cost <= self.limit]
        return min(fitting, key=lambda choice: choice.divergence, default=None)
