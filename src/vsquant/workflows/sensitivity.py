"""Which layer hurts: every layer in every candidate format, alone, in one pass over calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from vsquant.errors import CalibrationError
from vsquant.progress import Progress, silent
from vsquant.results.sensitivity import Sensitivity
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.recipe import DEFAULT_KINDS, FirstLast, Recipe
from vsquant.workflows.allocation_costs import planned_formats
from vsquant.workflows.batches import repeatable
from vsquant.workflows.prepare import PreparedModel, plan, prepare
from vsquant.workflows.ranges import activation_ranges
from vsquant.workflows.sensitivity_pass import Logits, Option, SensitivityPass, all_logits

DRAWS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """How sensitivity is measured; each is described at `vsquant.sensitivity`."""

    logits: Logits | None = None
    scale_mode: ScaleMode = "requantize"
    first_last: FirstLast = "same"
    draws: int = DRAWS
    seed: int = 0
    name: str = ""


def sensitivity(
    model: nn.Module,
    candidates: LayerSpec | str | Sequence[LayerSpec | str],
    *,
    calibration: Iterable[Any],
    logits: Logits | None = None,
    scale_mode: ScaleMode = "requantize",
    first_last: FirstLast = "same",
    batchnorm_pairs: Sequence[tuple[str, str]] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    name: str = "",
    progress: Progress = silent,
) -> Sensitivity:
    """What each linear and convolution layer loses in each candidate format, all others left float.

    Args:
        model: any ``nn.Module``; it is left as it was.
        candidates: specs, or their notation.
        calibration: batches as for `vsquant.quantize`, passed through twice (ranges, then sensitivity).
        logits: takes the rows of logits out of an output; by default all floating tensors of the output.
        scale_mode: as for `vsquant.quantize`.
        first_last: as for `vsquant.quantize`; the ends are then the same in every candidate.
        batchnorm_pairs: as for `vsquant.quantize`.
        draws: labels drawn for every row of logits; more make the estimate steadier and cost a backward pass each.
        seed: of the draws.
        name: what the record calls the model.
        progress: told how far calibration is.

    Raises:
        CalibrationError: ``calibration`` is an iterator, or does not reach a layer.
        SpecError, RecipeError, NonFiniteError, ShapeError: as `vsquant.quantize`.
    """
    specs = as_specs(candidates)
    how = Measuring(logits=logits, scale_mode=scale_mode, first_last=first_last, draws=draws, seed=seed, name=name)
    prepared = prepare(model, repeatable(calibration), batchnorm_pairs=batchnorm_pairs, progress=progress)
    return measure(prepared, specs, calibration, how, progress=progress)


def as_specs(candidates: LayerSpec | str | Sequence[LayerSpec | str]) -> tuple[LayerSpec, ...]:
    """Candidates as specs, each once.

    Raises:
        CalibrationError: there are none.
        SpecError: one is no spec.
    """
    if isinstance(candidates, (LayerSpec, str)):
        candidates = [candidates]
    specs = [LayerSpec.parse(text) if isinstance(text, str) else text for text in candidates]
    if not specs:
        raise CalibrationError("candidates must hold at least one spec, not none")
    return tuple(dict.fromkeys(specs))


def measure(
    prepared: PreparedModel,
    candidates: Sequence[LayerSpec],
    batches: Iterable[Any],
    how: Measuring,
    *,
    progress: Progress = silent,
) -> Sensitivity:
    """`sensitivity` of a prepared model. Memory: the activations of one batch, and every weight's codes by format."""
    options = _options(prepared, candidates, how)
    sums = SensitivityPass(prepared.model, options, how.scale_mode)
    generator = torch.Generator().manual_seed(how.seed)
    total, rows, done = len(batches) if isinstance(batches, Sequence) else 0, 0, 0
    progress("measuring sensitivity", 0, total)
    for done, batch in enumerate(batches, start=1):
        rows += sums.add(batch, how.logits or all_logits, how.draws, generator)
        progress("measuring sensitivity", done, max(total, done))
    return Sensitivity(
        model=how.name or type(prepared.model).__name__,
        candidates=tuple(str(spec) for spec in candidates),
        layers=tuple(sums.layer(layer, candidates, rows * how.draws) for layer in options),
        samples=prepared.observations.samples,
        rows=rows,
        draws=how.draws,
        seed=how.seed,
        scale_mode=how.scale_mode,
    )


def _require_reached(prepared: PreparedModel, candidate: LayerSpec, first_last: FirstLast) -> None:
    """Refuse layers that calibration missed, before a message could be about one of the candidates."""
    for layer in planned_formats(prepared, [candidate], first_last):
        if layer.name not in prepared.observations.order:
            raise CalibrationError(
                f"layer {layer.name!r} must be reached by the calibration data, but was not; give data that reaches "
                "it, or take it out of the model"
            )


def _options(prepared: PreparedModel, candidates: Sequence[LayerSpec], how: Measuring) -> dict[str, list[Option]]:
    """By layer, one option per candidate; layers that stay float have none."""
    options: dict[str, list[Option]] = {}
    _require_reached(prepared, candidates[0], how.first_last)
    for candidate in candidates:
        recipe = Recipe.from_spec(candidate, how.first_last)
        plans = plan(prepared.model, prepared.observations, recipe, how.scale_mode)
        ranges = activation_ranges(plans, prepared.observations, "max")
        for layer in plans:
            if layer.spec is not None and layer.match.kind in DEFAULT_KINDS:
                name = layer.match.name
                option = Option(plan=layer, spec=layer.spec, activation_range=ranges.get(name))
                options.setdefault(name, []).append(option)
    return options
