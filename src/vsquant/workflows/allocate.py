"""One spec for every layer, such that the network loses least within a budget; the result is a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vsquant.errors import AllocationError
from vsquant.files import replacing
from vsquant.optimize.allocation import AllocationProblem, Tie
from vsquant.optimize.allocation import allocate as solve
from vsquant.progress import Progress, silent
from vsquant.results.sensitivity import (
    AllocationRecord,
    FormatSensitivity,
    LayerChoice,
    Sensitivity,
    UniformChoice,
)
from vsquant.spec.formats import MAX_ELEMENT_BITS, MIN_ELEMENT_BITS, IntegerFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.recipe import FirstLast, Recipe, Rule
from vsquant.workflows.allocation_costs import (
    Costs,
    cost_table,
    measured_formats,
    planned_formats,
    require_possible,
    require_within,
    same_spec_ties,
    weights_counted,
)
from vsquant.workflows.batches import repeatable
from vsquant.workflows.budget import Budget
from vsquant.workflows.prepare import prepare
from vsquant.workflows.sensitivity import DRAWS, Measuring, as_specs
from vsquant.workflows.sensitivity import measure as measure_sensitivity
from vsquant.workflows.sensitivity_pass import Logits

Measure: TypeAlias = Literal["divergence", "output"]
"""What is summed over layers: estimated divergence of the network, or relative squared error of layers' outputs."""

_GLOB: Final = re.compile(r"[*?\[\]]|^re:")


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A recipe with one rule per layer, what it is expected to cost and lose, and what that was decided on."""

    recipe: Recipe
    record: AllocationRecord
    sensitivity: Sensitivity

    def __str__(self) -> str:
        """What each layer was given, as a table in text."""
        return str(self.record)

    def to_yaml(self) -> str:
        """The recipe as YAML, with its provenance in comments."""
        record = self.record
        lines = [
            f"allocated for {record.model}: least estimated divergence within {record.budget}",
            f"average weight bits {record.weight_bits:.4f}, {record.stored_bytes} bytes packed",
            f"estimated divergence {record.divergence:.6g} nats a row, from {record.samples} calibration samples",
            f"candidates: {', '.join(self.sensitivity.candidates)}",
        ]
        return "".join(f"# {line}\n" for line in lines) + self.recipe.to_yaml()

    def write(self, path: Path) -> None:
        """The YAML file, whole or not at all; raises `OSError` where it cannot be written."""
        with replacing(path) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")


def allocate(
    model: nn.Module,
    budget: str | float,
    *,
    candidates: LayerSpec | str | Sequence[LayerSpec | str],
    calibration: Iterable[Any],
    costs: Costs | None = None,
    same_spec: Sequence[Sequence[str]] = (),
    measure: Measure = "divergence",
    logits: Logits | None = None,
    scale_mode: ScaleMode = "requantize",
    first_last: FirstLast = "same",
    batchnorm_pairs: Sequence[tuple[str, str]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    name: str = "",
    progress: Progress = silent,
) -> Allocation:
    """Choose a spec for every linear and convolution layer: the least summed sensitivity within a budget, exactly.

    Args:
        model: any ``nn.Module``; it is left as it was.
        budget: "4.25 bits" (N + M/V of a weight on average), "3 MB" (of packed weights with all their scales), or a
            number in the unit of ``costs``.
        candidates: specs to choose from; a single one stands for itself with 2 to 8 weight bits.
        calibration: batches as for `vsquant.quantize`, passed through twice.
        costs: what each layer costs in each spec in force, for a budget that is a number.
        same_spec: groups of layer names that must share one candidate. Layers that read the same tensor (queries,
            keys and values) share its activation format in any case.
        measure: "divergence", or "output" for the relative error of layers' outputs.
        logits: as `vsquant.sensitivity`.
        scale_mode: as `vsquant.quantize`.
        first_last: as `vsquant.quantize`; the ends are then not chosen.
        batchnorm_pairs: as `vsquant.quantize`.
        draws: as `vsquant.sensitivity`.
        seed: as `vsquant.sensitivity`.
        name: what the record calls the model.
        progress: told how far calibration is.

    Returns:
        The recipe, for `vsquant.quantize`, with a record of what was chosen.

    Raises:
        AllocationError: the budget is malformed or less than the least possible, which the message says (before any
            measuring, where the budget is of bits or bytes); a layer of ``same_spec`` does not exist, or ``costs``
            lacks one or says what is no cost.
        CalibrationError, SpecError, RecipeError, NonFiniteError, ShapeError: as `vsquant.sensitivity`.
    """
    limit = as_budget(budget, costs)
    specs = as_specs(weight_candidates(candidates) if isinstance(candidates, (LayerSpec, str)) else candidates)
    how = Measuring(logits=logits, scale_mode=scale_mode, first_last=first_last, draws=draws, seed=seed, name=name)
    ordered = prepare(model, repeatable(calibration), layers=(), batchnorm_pairs=batchnorm_pairs)
    require_possible(planned_formats(ordered, specs, first_last), limit, same_spec)
    prepared = prepare(model, calibration, batchnorm_pairs=batchnorm_pairs, progress=progress)
    found = measure_sensitivity(prepared, specs, calibration, how, progress=progress)
    return allocate_measured(found, limit, costs=costs, same_spec=same_spec, measure=measure, first_last=first_last)


def weight_candidates(spec: LayerSpec | str) -> tuple[LayerSpec, ...]:
    """The spec with each number of weight bits there is.

    Raises:
        AllocationError: its weights are of a comparison format.
        SpecError: the text is no spec.
    """
    parsed = LayerSpec.parse(spec) if isinstance(spec, str) else spec
    weight = parsed.weight
    if not isinstance(weight, IntegerFormat):
        raise AllocationError(f"weight bits can be chosen for integer formats only, not for {parsed}")
    bits = range(MIN_ELEMENT_BITS, MAX_ELEMENT_BITS + 1)
    return tuple(replace(parsed, weight=replace(weight, bits=count)) for count in bits)


def as_budget(budget: str | float, costs: Costs | None = None) -> Budget:
    """A budget in text, or a number that limits ``costs``.

    Raises:
        AllocationError: the text is no budget, a number comes without costs, or costs with a text.
    """
    if isinstance(budget, str):
        if costs is not None:
            raise AllocationError(f"a budget with costs must be a number in their unit, not {budget!r}")
        return Budget.parse(budget)
    if costs is None:
        raise AllocationError(f"a budget must be a text such as '4.25 bits' where there are no costs, not {budget!r}")
    return Budget.of_cost(budget)


def allocate_measured(
    found: Sensitivity,
    budget: Budget,
    *,
    costs: Costs | None = None,
    same_spec: Sequence[Sequence[str]] = (),
    measure: Measure = "divergence",
    first_last: FirstLast = "same",
) -> Allocation:
    """`allocate` from sensitivities already measured; ``first_last`` is that of the measurement.

    Raises:
        AllocationError: as `allocate`.
    """
    layers = measured_formats(found)
    scale = weights_counted(layers, budget)
    problem = AllocationProblem(
        errors=np.array([[_error(option, measure) for option in layer.formats] for layer in found.layers]),
        costs=cost_table(layers, budget, costs),
        budget=budget.limit * scale,
        ties=(*same_spec_ties(layers, same_spec), *_same_activation(found)),
    )
    require_within(problem, budget, scale)
    choice = solve(problem)
    record = _record(found, budget, choice, problem.costs / scale)
    return Allocation(recipe=_recipe(record, first_last), record=record, sensitivity=found)


def _record(found: Sensitivity, budget: Budget, choice: Sequence[int], costs: NDArray[np.float64]) -> AllocationRecord:
    return AllocationRecord(
        model=found.model,
        budget=budget.text,
        unit=budget.unit,
        limit=budget.limit,
        cost=float(costs[np.arange(len(choice)), list(choice)].sum()),
        layers=tuple(
            LayerChoice(name=layer.name, elements=layer.elements, chosen=layer.formats[option])
            for layer, option in zip(found.layers, choice, strict=True)
        ),
        uniform=tuple(
            UniformChoice(
                candidate=candidate, cost=float(costs[:, column].sum()), divergence=found.divergence(candidate)
            )
            for column, candidate in enumerate(found.candidates)
        ),
        samples=found.samples,
    )


def _recipe(record: AllocationRecord, first_last: FirstLast) -> Recipe:
    rules = tuple(
        Rule(match=_pattern(layer.name), spec=LayerSpec.parse(layer.chosen.requested)) for layer in record.layers
    )
    return Recipe(rules=rules, first_last=first_last)


def _pattern(name: str) -> str:
    """A rule's pattern for exactly this layer; "" is the model itself."""
    if not name:
        return "*"
    return f"re:{re.escape(name)}" if _GLOB.search(name) else name


def _error(option: FormatSensitivity, measure: Measure) -> float:
    return option.divergence if measure == "divergence" else option.relative_error


def _same_activation(found: Sensitivity) -> Iterator[Tie]:
    """Layers that read one tensor quantize it alike; those that a fallback decides for have no say."""
    parsed = [LayerSpec.parse(candidate) for candidate in found.candidates]
    formats = list(dict.fromkeys((spec.activation, spec.gamma) for spec in parsed))
    if len(formats) == 1:
        return
    labels = tuple(formats.index((spec.activation, spec.gamma)) for spec in parsed)
    readers: dict[int, list[int]] = {}
    for place, layer in enumerate(found.layers):
        if not layer.is_fixed:
            readers.setdefault(layer.shared_input, []).append(place)
    for layers in readers.values():
        if len(layers) > 1:
            yield Tie(layers=tuple(layers), labels=labels)
