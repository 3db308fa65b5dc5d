"""Post-training quantization: fold, observe, settle every layer, replace."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from vsquant.calibrate import weight_range
from vsquant.errors import CalibrationError
from vsquant.nn import QuantizedWeight, quantize_weight
from vsquant.optimize import Method, SearchOptions, method_text
from vsquant.progress import Progress, silent
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.attention import attention_modules, place_matmuls
from vsquant.transform.float_layers import require_module
from vsquant.transform.match import match_layers
from vsquant.transform.plan import LayerPlan, plan_layers, unsupported_layers
from vsquant.transform.recipe import FirstLast, Recipe
from vsquant.transform.replace import WeightSource, replace_layers
from vsquant.workflows.correct import Corrections, correct
from vsquant.workflows.importance import layers_to_weigh, require_moments, require_no_weighing, searching
from vsquant.workflows.kept import Kept
from vsquant.workflows.options import Calibrators, Options, WeightMethod
from vsquant.workflows.prepare import NOTHING_SEEN, PreparedModel, permute_prepared, plan, prepare
from vsquant.workflows.ranges import activation_ranges, attention_entries
from vsquant.workflows.record import QuantizationRecord, attach_record
from vsquant.workflows.requests import (
    as_recipe,
    has_weight,
    layers_to_observe,
    require_finite,
    require_float,
    require_no_calibration,
    require_some_layer,
)
from vsquant.workflows.solve import first_scale_mode, require_no_data, solve

__all__ = [
    "NOTHING_SEEN",
    "Calibrators",
    "PreparedModel",
    "WeightCache",
    "WeightMethod",
    "as_recipe",
    "layers_to_observe",
    "permute_prepared",
    "plan",
    "prepare",
    "quantize",
    "quantize_prepared",
]

WeightCache: TypeAlias = dict[tuple[str, str, str, str, str], QuantizedWeight]
"""Quantized weights by layer, weight format, scale mode, weight calibrator and method, all of one prepared model."""


def quantize(
    model: nn.Module,
    spec_or_recipe: LayerSpec | Recipe | str,
    *,
    calibration: Iterable[Any] | None = None,
    scale_mode: ScaleMode = "requantize",
    method: Method | str | None = None,
    calibrators: Calibrators | None = None,
    first_last: FirstLast | None = None,
    batchnorm_pairs: Sequence[tuple[str, str]] | None = None,
    bias_correction: bool = False,
    batchnorm_reestimation: bool = False,
    resume: str | Path | Kept | None = None,
    permute: bool = False,
    progress: Progress = silent,
) -> nn.Module:
    """Quantize a trained model after training; the argument is left as it was.

    Args:
        model: any ``nn.Module``; what is returned is in evaluation mode.
        spec_or_recipe: one spec (or its notation) for every linear and convolution layer, or a recipe.
        calibration: batches of inputs: a tensor, a tuple of arguments or a mapping of keyword arguments each.
            Needed for static activation scales, for ``u``, for ``first_last`` and for methods that learn from data.
        scale_mode: how codes and vector scales are settled (eqs. 3 and 5): ``"requantize"``, ``"paper"``, or
            ``"search"`` for weights (activations requantize), which is ``method=ScaleSearch()``.
        method: how weights are quantized, such as `vsquant.ScaleSearch`; `vsquant.Rounding` by default.
        calibrators: how coarse ranges are chosen; the maximum by default.
        first_last: overrides the recipe's policy for the first and last layer executed.
        batchnorm_pairs: (convolution, batch norm) names to fold where tracing cannot prove them.
        bias_correction: give the outputs of each layer the mean that the float layer's have, through its bias.
        batchnorm_reestimation: give those of layers with a folded batch norm the variance too, through their scales.
        resume: a folder where a method that takes long keeps finished layers; the same call goes on from there.
            A `vsquant.workflows.kept.Kept` counts them.
        permute: whether channels are first reordered for more homogeneous vectors, in the layers that make them and in
            those that take them, where the model's graph proves that nothing else changes. Needs
            calibration data.
        progress: told how far calibration and quantization are.

    Returns:
        The simulated model: an ordinary module with quantized layers, see `quantized_layers` and `quantization_record`.

    Raises:
        SpecError, RecipeError: the request contradicts itself, matches nothing, or would quantize no layer.
        CalibrationError: calibration data is needed and missing, empty, or does not reach a layer.
        NonFiniteError: a weight or an activation holds NaN or Inf; the message names the layer.
        ShapeError: a batch does not have the channels of a layer; the message names the layer.
    """
    require_module(model)
    options = Options.of(
        scale_mode=scale_mode,
        method=method,
        calibrators=calibrators,
        bias_correction=bias_correction,
        batchnorm_reestimation=batchnorm_reestimation,
        resume=resume,
    )
    require_float(model)
    recipe = as_recipe(spec_or_recipe, first_last)
    needed, weighed = _checked(model, recipe, options, given=calibration is not None)
    if permute and calibration is None:
        raise CalibrationError("calibration must be given: permute needs to see which channels are large; pass batches")
    if (permute or options.reads_data) and isinstance(calibration, Iterator):
        calibration = tuple(calibration)
    sample_rows = options.calibrators.vectors == "mse"
    prepared = prepare(
        model,
        calibration,
        layers=needed,
        second_moments=weighed,
        batchnorm_pairs=batchnorm_pairs,
        sample_rows=sample_rows,
        progress=progress,
    )
    if permute and calibration is not None:
        prepared = permute_prepared(prepared, recipe, calibration, scale_mode=options.scale_mode, progress=progress)
        if sample_rows:  # rows seen before are in the old order of channels
            anew = prepare(prepared.model, calibration, layers=needed, sample_rows=True, progress=progress)
            prepared = replace(prepared, observations=anew.observations)
    return _quantized(prepared, recipe, options, weight_cache=None, progress=progress)


def _checked(
    model: nn.Module, recipe: Recipe, options: Options, *, given: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Refuse what cannot be done; else layers to observe, and those of which E[x²] is wanted. ``given`` is the data."""
    matches = match_layers(model, recipe, matmuls=tuple(attention_modules(model)))
    plans = plan_layers(matches, recipe.fallback, options.scale_mode)
    require_some_layer(plans, recipe)
    needed = layers_to_observe(plans, recipe.first_last)
    weighed = layers_to_weigh(plans, options.method)
    if not given:
        require_no_calibration(needed, recipe.first_last)
        require_no_data(options.method, corrected=options.corrected)
        require_no_weighing(weighed, options.method)
    require_finite({plan.match.name: plan.match.module for plan in plans if has_weight(plan)})
    return tuple(needed), weighed


def quantize_prepared(
    prepared: PreparedModel,
    recipe: Recipe,
    *,
    scale_mode: ScaleMode = "requantize",
    method: Method | str | None = None,
    calibrators: Calibrators | None = None,
    weight_cache: WeightCache | None = None,
    bias_correction: bool = False,
    batchnorm_reestimation: bool = False,
    resume: str | Path | Kept | None = None,
    progress: Progress = silent,
) -> nn.Module:
    """Quantize a prepared model, which is left as it was.

    ``weight_cache`` keeps quantized weights between calls.

    Raises:
        SpecError: ``method`` and ``scale_mode`` contradict each other, or as `quantize`.
        CalibrationError: the method needs calibration data, and the model was prepared without.
    """
    options = Options.of(
        scale_mode=scale_mode,
        method=method,
        calibrators=calibrators,
        bias_correction=bias_correction,
        batchnorm_reestimation=batchnorm_reestimation,
        resume=resume,
    )
    return _quantized(prepared, recipe, options, weight_cache=weight_cache, progress=progress)


def _quantized(
    prepared: PreparedModel, recipe: Recipe, options: Options, *, weight_cache: WeightCache | None, progress: Progress
) -> nn.Module:
    calibrators, seen = options.calibrators, prepared.observations
    model = copy.deepcopy(prepared.model)
    plans = plan(model, seen, recipe, options.scale_mode)
    ranges = activation_ranges(plans, seen, calibrators.activation, calibrators.vectors)
    entries = attention_entries(plans, seen, calibrators.activation, options.layer_scale_mode)
    weights = _weight_source(prepared, plans, options, weight_cache, progress)
    model = replace_layers(model, plans, weights=weights, ranges=ranges, scale_mode=options.layer_scale_mode)
    place_matmuls(model, entries)
    total = sum(has_weight(layer) for layer in plans)
    progress("quantizing weights", total, total)
    solve(prepared.model, model, prepared.batches, options.method, resume=options.resume, progress=progress)
    corrections = Corrections(
        bias=options.bias_correction,
        folded=tuple(layer for layer, _ in prepared.folded.folded) if options.batchnorm_reestimation else None,
    )
    correct(prepared.model, model, prepared.batches, corrections, progress=progress)
    attach_record(
        model, _record(prepared, plans, options, method_text(options.method) + options.text + corrections.text)
    )
    return model


def _weight_source(
    prepared: PreparedModel,
    plans: Sequence[LayerPlan],
    options: Options,
    cache: WeightCache | None,
    progress: Progress,
) -> WeightSource:
    """The first weights of every layer, before a method goes on from them; kept in ``cache`` where there is one."""
    weighed = layers_to_weigh(plans, options.method)
    require_moments(weighed, prepared.observations)
    total, done = sum(has_weight(layer) for layer in plans), 0

    def weights(name: str, weight: Tensor, spec: LayerSpec) -> QuantizedWeight:
        nonlocal done
        progress("quantizing weights", done, total)
        done += 1
        key = (
            name,
            str(spec.weight),
            options.scale_mode,
            options.calibrators.weight,
            method_text(options.method),
        )
        if cache is not None and key in cache:
            return cache[key]
        moments = prepared.observations.second_moments.get(name) if name in weighed else None
        mode = first_scale_mode(options.method, options.scale_mode)
        search = searching(options.method, weight, moments)
        quantized = _quantize_weight(name, weight, spec, mode, options.calibrators.weight, search)
        if cache is not None:
            cache[key] = quantized
        return quantized

    return weights


def _record(prepared: PreparedModel, plans: Sequence[LayerPlan], options: Options, method: str) -> QuantizationRecord:
    return QuantizationRecord(
        layers=(*(layer.report for layer in plans), *unsupported_layers(prepared.model)),
        folded=prepared.folded.folded,
        unfolded=prepared.folded.unfolded,
        scale_mode=options.scale_mode,
        activation_calibrator=options.calibrators.activation,
        weight_calibrator=options.calibrators.weight,
        calibration_samples=prepared.observations.samples,
        method=method,
        permuted=prepared.permuted,
        workloads=prepared.workloads,
    )


def _quantize_weight(
    name: str, weight: Tensor, spec: LayerSpec, scale_mode: ScaleMode, calibrator: WeightMethod, search: SearchOptions
) -> QuantizedWeight:
    fmt, coarse_range = spec.weight, None
    if isinstance(fmt, IntegerFormat) and not fmt.has_vectors and calibrator != "max":
        coarse_range = weight_range(weight.flatten(1), fmt, calibrator)
    return quantize_weight(weight, fmt, name=name, scale_mode=scale_mode, coarse_range=coarse_range, search=search)
