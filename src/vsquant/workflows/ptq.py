"""Post-training quantization: fold, observe, settle every layer, replace."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from vsquant.calibrate import calibrated_range, weight_range
from vsquant.errors import CalibrationError
from vsquant.nn import QuantizedWeight, needs_range, quantize_weight
from vsquant.progress import Progress, silent
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.fold import FoldReport, fold_batchnorm
from vsquant.transform.match import Match, apply_first_last, find_layers, match_layers
from vsquant.transform.observe import Observations, observe
from vsquant.transform.plan import LayerPlan, plan_layers
from vsquant.transform.recipe import DEFAULT_KINDS, FirstLast, Recipe
from vsquant.transform.replace import replace_layers
from vsquant.workflows.record import QuantizationRecord, attach_record

WeightMethod: TypeAlias = Literal["max", "mse"]
NOTHING_SEEN: Final = Observations(statistics={}, order=(), samples=0)


@dataclass(frozen=True, kw_only=True)
class Calibrators:
    """How coarse ranges are chosen where an operand has no vector scales; with them, ranges are the maximum.

    ``activation`` names a calibrator for static activation scales, ``weight`` says how output channels are clipped.
    """

    activation: str = "max"
    weight: WeightMethod = "max"


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A float model ready to be quantized any number of times: batch norms folded, inputs observed."""

    model: nn.Module
    observations: Observations
    folded: FoldReport


def quantize(
    model: nn.Module,
    spec_or_recipe: LayerSpec | Recipe | str,
    *,
    calibration: Iterable[Any] | None = None,
    scale_mode: ScaleMode = "requantize",
    calibrators: Calibrators | None = None,
    first_last: FirstLast | None = None,
    batchnorm_pairs: Sequence[tuple[str, str]] | None = None,
    progress: Progress = silent,
) -> nn.Module:
    """Quantize a trained model after training; the argument is left as it was.

    Args:
        model: any ``nn.Module`` in evaluation mode.
        spec_or_recipe: one spec (or its notation) for every linear and convolution layer, or a recipe.
        calibration: batches of inputs: a tensor, a tuple of arguments or a mapping of keyword arguments each.
            Needed for static activation scales and for ``u``.
        scale_mode: ``"requantize"`` or ``"paper"``, how codes and vector scales are settled (eqs. 3 and 5).
        calibrators: how coarse ranges are chosen; the maximum by default.
        first_last: overrides the recipe's policy for the first and last layer executed.
        batchnorm_pairs: (convolution, batch norm) names to fold where tracing cannot prove them.
        progress: told how far calibration and quantization are.

    Returns:
        The simulated model: an ordinary module with quantized layers, see `quantized_layers` and `quantization_record`.

    Raises:
        SpecError, RecipeError: the request contradicts itself or matches nothing.
        CalibrationError: calibration data is needed and missing, empty, or does not reach a layer.
        NonFiniteError: a weight or an activation holds NaN or Inf; the message names the layer.
    """
    recipe = as_recipe(spec_or_recipe, first_last)
    needed = layers_to_observe(match_layers(model, recipe))
    if calibration is None:
        _require_no_calibration(needed)
    prepared = prepare(model, calibration, layers=tuple(needed), batchnorm_pairs=batchnorm_pairs, progress=progress)
    return quantize_prepared(prepared, recipe, scale_mode=scale_mode, calibrators=calibrators, progress=progress)


def as_recipe(spec_or_recipe: LayerSpec | Recipe | str, first_last: FirstLast | None = None) -> Recipe:
    """A spec, its notation or a recipe as a recipe.

    Raises:
        SpecError: the text is no spec.
    """
    if isinstance(spec_or_recipe, str):
        spec_or_recipe = LayerSpec.parse(spec_or_recipe)
    if isinstance(spec_or_recipe, LayerSpec):
        return Recipe.from_spec(spec_or_recipe, first_last or "same")
    return spec_or_recipe if first_last is None else spec_or_recipe.model_copy(update={"first_last": first_last})


def layers_to_observe(matches: Sequence[Match]) -> dict[str, LayerSpec]:
    """Layers whose spec needs their input seen, by name."""
    return {
        match.name: match.requested
        for match in matches
        if match.requested is not None and match.kind != "embedding" and match.requested.needs_calibration
    }


def prepare(
    model: nn.Module,
    calibration: Iterable[Any] | None,
    *,
    layers: Sequence[str] | None = None,
    batchnorm_pairs: Sequence[tuple[str, str]] | None = None,
    progress: Progress = silent,
) -> PreparedModel:
    """A copy of ``model`` with batch norms folded and the inputs of ``layers`` (all, if None) observed.

    Raises:
        CalibrationError: ``calibration`` holds no batch.
        NonFiniteError: an activation holds NaN or Inf; the message names the layer.
    """
    copied = copy.deepcopy(model).eval()
    batches = None if calibration is None else list(calibration)
    example = batches[0] if batches else None
    folded = fold_batchnorm(copied, pairs=batchnorm_pairs, example=example)
    if batches is None:
        return PreparedModel(model=copied, observations=NOTHING_SEEN, folded=folded)
    watched = {layer.name: layer.module for layer in find_layers(copied) if layer.kind in DEFAULT_KINDS}
    observations = observe(copied, watched, batches, call, progress, measured=None if layers is None else set(layers))
    return PreparedModel(model=copied, observations=observations, folded=folded)


def quantize_prepared(
    prepared: PreparedModel,
    recipe: Recipe,
    *,
    scale_mode: ScaleMode = "requantize",
    calibrators: Calibrators | None = None,
    weight_cache: dict[tuple[str, str, str, str], QuantizedWeight] | None = None,
    progress: Progress = silent,
) -> nn.Module:
    """Quantize a prepared model, which is left as it was.

    ``weight_cache`` keeps quantized weights between calls, keyed by layer, weight format, scale mode and method.
    """
    chosen = calibrators or Calibrators()
    model = copy.deepcopy(prepared.model)
    plans = plan(model, prepared.observations, recipe)
    ranges = activation_ranges(plans, prepared.observations, chosen.activation)
    done = 0

    def weights(name: str, weight: Tensor, spec: LayerSpec) -> QuantizedWeight:
        nonlocal done
        progress("quantizing weights", done, len(plans))
        done += 1
        key = (name, str(spec.weight), scale_mode, chosen.weight)
        if weight_cache is not None and key in weight_cache:
            return weight_cache[key]
        quantized = _quantize_weight(name, weight, spec, scale_mode, chosen.weight)
        if weight_cache is not None:
            weight_cache[key] = quantized
        return quantized

    replace_layers(model, plans, weights=weights, ranges=ranges, scale_mode=scale_mode)
    progress("quantizing weights", len(plans), len(plans))
    attach_record(
        model,
        QuantizationRecord(
            layers=tuple(layer.report for layer in plans),
            folded=prepared.folded.folded,
            scale_mode=scale_mode,
            activation_calibrator=chosen.activation,
            weight_calibrator=chosen.weight,
            calibration_samples=prepared.observations.samples,
        ),
    )
    return model


def plan(model: nn.Module, observations: Observations, recipe: Recipe) -> tuple[LayerPlan, ...]:
    """What each layer of ``model`` gets, in the model's order."""
    matches = match_layers(model, recipe)
    order = observations.order or tuple(match.name for match in matches)
    matches = apply_first_last(matches, order, recipe.first_last)
    return plan_layers(matches, observations.statistics, recipe.fallback)


def activation_ranges(plans: Sequence[LayerPlan], observations: Observations, calibrator: str) -> Mapping[str, Tensor]:
    """The calibrated range (1,) of every layer with a static activation scale.

    A layer with activation vector scales takes the maximum: clipping is what its vector scales make unnecessary.
    """
    ranges = {}
    for layer in plans:
        if layer.spec is None or layer.match.kind == "embedding" or not needs_range(layer.spec):
            continue
        fmt = layer.spec.activation
        assert isinstance(fmt, IntegerFormat)
        method = "max" if fmt.has_vectors else calibrator
        range_ = calibrated_range(observations.statistics[layer.match.name], fmt, method)
        ranges[layer.match.name] = torch.from_numpy(range_)
    return ranges


def call(model: nn.Module, batch: Any) -> Any:
    """The model's output on one batch: a tensor, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def _quantize_weight(
    name: str, weight: Tensor, spec: LayerSpec, scale_mode: ScaleMode, method: WeightMethod
) -> QuantizedWeight:
    fmt, coarse_range = spec.weight, None
    if isinstance(fmt, IntegerFormat) and not fmt.has_vectors and method != "max":
        coarse_range = weight_range(weight.flatten(1), fmt, method)
    return quantize_weight(weight, fmt, name=name, scale_mode=scale_mode, coarse_range=coarse_range)


def _require_no_calibration(needed: Mapping[str, LayerSpec]) -> None:
    for name, spec in needed.items():
        raise CalibrationError(
            f"calibration must be given: layer {name!r} with {spec} needs its input observed; pass "
            "calibration=batches, or use a spec with -tensor or -token and no 'u'"
        )
