"""What layers cost in candidate formats, and the least that all can: known from shapes, before any measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vsquant.errors import AllocationError
from vsquant.optimize.allocation import AllocationProblem, Tie, least_cost
from vsquant.packing import packed_bytes
from vsquant.results.sensitivity import Sensitivity
from vsquant.spec.layer import LayerSpec
from vsquant.transform.attention import attention_modules
from vsquant.transform.float_layers import float_weight
from vsquant.transform.match import apply_first_last, match_layers
from vsquant.transform.plan import plan_layers
from vsquant.transform.recipe import DEFAULT_KINDS, FirstLast, Recipe
from vsquant.workflows.budget import Budget
from vsquant.workflows.prepare import PreparedModel

Costs: TypeAlias = Mapping[tuple[str, str], float] | Callable[[str, LayerSpec], float]
"""What (layer name, spec in force) costs: a table by name and notation, or a function."""


@dataclass(frozen=True, kw_only=True)
class LayerFormats:
    """A layer's name, the shape of its weight, and the spec in force for each candidate."""

    name: str
    shape: tuple[int, ...]
    specs: tuple[LayerSpec, ...]

    @property
    def elements(self) -> int:
        """Weights of the layer."""
        return math.prod(self.shape)


def measured_formats(found: Sensitivity) -> tuple[LayerFormats, ...]:
    """The layers of a measurement."""
    return tuple(
        LayerFormats(name=layer.name, shape=layer.shape, specs=tuple(LayerSpec.parse(f.spec) for f in layer.formats))
        for layer in found.layers
    )


def planned_formats(
    prepared: PreparedModel, candidates: Sequence[LayerSpec], first_last: FirstLast
) -> tuple[LayerFormats, ...]:
    """The layers that a measurement would have, whose activations may yet turn out signed.

    Raises:
        SpecError, RecipeError: a candidate cannot be applied to the model.
    """
    model, matmuls = prepared.model, tuple(attention_modules(prepared.model))
    shapes: dict[str, tuple[int, ...]] = {}
    specs: dict[str, list[LayerSpec]] = {}
    for candidate in candidates:
        recipe = Recipe.from_spec(candidate, first_last)
        matches = apply_first_last(
            match_layers(model, recipe, matmuls=matmuls), prepared.observations.order, recipe.first_last
        )
        for plan in plan_layers(matches, recipe.fallback, "requantize"):
            if plan.spec is not None and plan.match.kind in DEFAULT_KINDS:
                shapes[plan.match.name] = tuple(float_weight(plan.match.module).shape)
                specs.setdefault(plan.match.name, []).append(plan.spec)
    return tuple(LayerFormats(name=name, shape=shapes[name], specs=tuple(found)) for name, found in specs.items())


def cost_table(layers: Sequence[LayerFormats], budget: Budget, costs: Costs | None) -> NDArray[np.float64]:
    """(layers, candidates) in the budget's unit; bits are of all weights together, see `weights_counted`.

    Raises:
        AllocationError: ``costs`` lacks a layer in a spec, or says what is no cost.
    """
    rows = [[_cost(layer, spec, budget, costs) for spec in layer.specs] for layer in layers]
    return np.array(rows, dtype=np.float64)


def weights_counted(layers: Sequence[LayerFormats], budget: Budget) -> int:
    """How many weights a budget is of: bits are an average over all, whose sum is exact."""
    return sum(layer.elements for layer in layers) if budget.unit == "bits" else 1


def same_spec_ties(layers: Sequence[LayerFormats], groups: Sequence[Sequence[str]]) -> Iterator[Tie]:
    """Groups of layer names that must share one candidate.

    Raises:
        AllocationError: a name is that of no layer.
    """
    places = {layer.name: place for place, layer in enumerate(layers)}
    for group in groups:
        unknown = [name for name in group if name not in places]
        if unknown:
            raise AllocationError(f"same_spec must name layers of the model; {unknown[0]!r} is none of its layers")
        if len(group) > 1:
            yield Tie(layers=tuple(places[name] for name in group), labels=tuple(range(len(layers[0].specs))))


def require_possible(layers: Sequence[LayerFormats], budget: Budget, same_spec: Sequence[Sequence[str]]) -> None:
    """Refuse a budget of bits or bytes that no choice of candidates meets, whatever is measured.

    Raises:
        AllocationError: it is such a one; the message says the least possible.
    """
    ties = tuple(same_spec_ties(layers, same_spec))
    if not layers or budget.unit == "cost":
        return
    costs = cost_table(layers, budget, None)
    scale = weights_counted(layers, budget)
    problem = AllocationProblem(errors=np.zeros_like(costs), costs=costs, budget=budget.limit * scale, ties=ties)
    require_within(problem, budget, scale)


def require_within(problem: AllocationProblem, budget: Budget, scale: int) -> None:
    """Refuse a budget below the least cost of a problem, whose costs are ``scale`` times those of the budget.

    Raises:
        AllocationError: it is below; the message says the least possible.
    """
    least = least_cost(problem)
    if least <= problem.budget:
        return
    least /= scale
    amount = {"bits": f"{least:.4g} bits", "bytes": f"{least:,.0f} bytes", "cost": f"{least:g}"}[budget.unit]
    raise AllocationError(
        f"the budget must be at least {amount}, the smallest possible with these candidates and ties, "
        f"not {budget.text}; raise it or add smaller candidates"
    )


def _cost(layer: LayerFormats, spec: LayerSpec, budget: Budget, costs: Costs | None) -> float:
    if budget.unit == "bits":
        return layer.elements * spec.weight.bits_per_element
    if budget.unit == "bytes" or costs is None:
        return packed_bytes(layer.shape, spec.weight)
    if not isinstance(costs, Mapping):
        return _number(costs(layer.name, spec), layer.name, spec)
    if (layer.name, str(spec)) not in costs:
        raise AllocationError(f"costs must have an entry for {(layer.name, str(spec))!r}, which is missing")
    return _number(costs[layer.name, str(spec)], layer.name, spec)


def _number(cost: Any, name: str, spec: LayerSpec) -> float:
    try:
        number = float(cost)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise AllocationError(
            f"costs must be finite numbers, not negative, but that of {(name, str(spec))} is {cost!r}"
        )
    return number
