"""From a float model to one that is ready to be quantized: batch norms folded, inputs observed, channels reordered."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from torch import nn

from vsquant.progress import Progress, silent
from vsquant.results.permutation import PermutedChannels
from vsquant.results.workloads import LayerWorkload
from vsquant.spec.layer import ScaleMode
from vsquant.transform.attention import attention_modules
from vsquant.transform.fold import FoldReport, fold_batchnorm
from vsquant.transform.match import apply_first_last, find_layers, match_layers
from vsquant.transform.observe import Observations, observe
from vsquant.transform.plan import LayerPlan, plan_layers, with_signs
from vsquant.transform.recipe import DEFAULT_KINDS, Recipe
from vsquant.workflows.batches import Batches, as_batches, by_argument, call
from vsquant.workflows.permutation import permuted
from vsquant.workflows.requests import require_finite
from vsquant.workflows.shapes import RecordingCall

NOTHING_SEEN: Final = Observations(statistics={}, matmuls={}, order=(), samples=0)


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A float model ready to be quantized any number of times: batch norms folded, inputs observed."""

    model: nn.Module
    observations: Observations
    folded: FoldReport
    batches: Batches | None = None
    """The calibration data, for what runs it through the quantized layers too."""
    permuted: tuple[PermutedChannels, ...] = ()
    workloads: tuple[LayerWorkload, ...] = ()
    """The shapes of all layers and products in the first calibration batch."""


def prepare(
    model: nn.Module,
    calibration: Iterable[Any] | None,
    *,
    layers: Sequence[str] | None = None,
    second_moments: Sequence[str] | None = (),
    batchnorm_pairs: Sequence[tuple[str, str]] | None = None,
    sample_rows: bool = False,
    progress: Progress = silent,
) -> PreparedModel:
    """A copy of ``model`` with batch norms folded and the inputs of ``layers`` observed.

    ``layers`` may name attention modules; None is all linear and convolution layers, here as for ``second_moments``,
    the layers of which E[x²] of the input channels is wanted. Where both are empty, one batch is run, to learn the
    order of the layers. ``sample_rows`` keeps rows of the inputs of ``layers``, for ``Calibrators.vectors``.

    Raises:
        CalibrationError: ``calibration`` holds no batch, or what is none.
        NonFiniteError: a weight or an activation holds NaN or Inf; the message names the layer.
        ShapeError: a batch does not have the channels of a layer; the message names the layer.
    """
    batches = None if calibration is None else as_batches(calibration)
    copied = copy.deepcopy(model).eval()
    example = None if batches is None else by_argument(copied, batches.first)
    folded = fold_batchnorm(copied, pairs=batchnorm_pairs, example=example)
    if batches is None:
        return PreparedModel(model=copied, observations=NOTHING_SEEN, folded=folded)
    watched = {layer.name: layer.module for layer in find_layers(copied) if layer.kind in DEFAULT_KINDS}
    measured = set(watched if layers is None else layers)
    moments = set(watched if second_moments is None else second_moments)
    whole = bool(measured or moments)
    require_finite({name: module for name, module in watched.items() if name in measured})
    recording = RecordingCall(call)
    observations = observe(
        copied,
        watched,
        batches if whole else [batches.first],
        recording,
        progress,
        count=batches.count if whole else 1,
        measured=measured,
        sampled=measured if sample_rows else (),
        matmuls=[name for name in attention_modules(copied) if name in measured],
        moments=moments,
    )
    return PreparedModel(
        model=copied, observations=observations, folded=folded, batches=batches, workloads=recording.workloads
    )


def permute_prepared(
    prepared: PreparedModel,
    recipe: Recipe,
    calibration: Iterable[Any],
    *,
    scale_mode: ScaleMode = "requantize",
    progress: Progress = silent,
) -> PreparedModel:
    """The prepared model with channels reordered for the recipe's layers; what was observed of whole inputs holds.

    Raises:
        RecipeError, CalibrationError, VsquantError: as `permuted`.
    """
    plans = plan(prepared.model, prepared.observations, recipe, scale_mode)
    specs = {layer.match.name: layer.spec for layer in plans if layer.spec and layer.match.kind in DEFAULT_KINDS}
    model, records = permuted(prepared.model, specs, calibration, progress)
    observations = _moments_again(prepared.observations, model, calibration, progress)
    return replace(prepared, model=model, permuted=records, observations=observations)


def _moments_again(
    seen: Observations, model: nn.Module, calibration: Iterable[Any], progress: Progress
) -> Observations:
    """Second moments belong to channels, and follow them to their new places."""
    layers = {layer.name: layer.module for layer in find_layers(model) if layer.name in seen.second_moments}
    if not layers:
        return seen
    again = observe(model, layers, as_batches(calibration), call, progress, measured=(), moments=tuple(layers))
    return replace(seen, second_moments=again.second_moments)


def plan(
    model: nn.Module, observations: Observations, recipe: Recipe, scale_mode: ScaleMode = "requantize"
) -> tuple[LayerPlan, ...]:
    """What each layer of ``model`` gets, in the model's order.

    Raises:
        SpecError, RecipeError: the recipe cannot be applied to the model.
        CalibrationError: a layer that needs statistics was not observed.
    """
    matches = match_layers(model, recipe, matmuls=tuple(attention_modules(model)))
    matches = apply_first_last(matches, observations.order, recipe.first_last)
    return with_signs(plan_layers(matches, recipe.fallback, scale_mode), observations.statistics)
