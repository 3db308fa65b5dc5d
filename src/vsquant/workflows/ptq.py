"""Post-training quantization: fold, observe, settle every layer, replace."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from vsquant.calibrate import VectorMethod, weight_range
from vsquant.calibrate.calibrators import create_calibrator
from vsquant.errors import CalibrationError, NonFiniteError, RecipeError, SpecError
from vsquant.nn import IntegerLayer, QuantizedWeight, QuantLayer, quantize_weight
from vsquant.optimize import Method, SearchOptions, method_text, settle
from vsquant.progress import Progress, silent
from vsquant.results.permutation import PermutedChannels
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.attention import attention_modules, place_matmuls
from vsquant.transform.float_layers import float_bias, float_weight, require_module
from vsquant.transform.fold import FoldReport, fold_batchnorm
from vsquant.transform.match import apply_first_last, eight_bit, find_layers, match_layers
from vsquant.transform.observe import Observations, observe
from vsquant.transform.plan import LayerPlan, plan_layers, unsupported_layers, with_signs
from vsquant.transform.recipe import DEFAULT_KINDS, FirstLast, Recipe
from vsquant.transform.replace import replace_layers
from vsquant.workflows.batches import Batches, as_batches, by_argument, call
from vsquant.workflows.correct import Corrections, correct
from vsquant.workflows.importance import layers_to_weigh, require_moments, require_no_weighing, searching
from vsquant.workflows.permutation import permuted
from vsquant.workflows.ranges import activation_ranges, attention_entries
from vsquant.workflows.record import QuantizationRecord, attach_record
from vsquant.workflows.solve import first_scale_mode, reads_data, require_no_data, solve

WeightMethod: TypeAlias = Literal["max", "mse"]
WeightCache: TypeAlias = dict[tuple[str, str, str, str, str], QuantizedWeight]
"""Quantized weights by layer, weight format, scale mode, weight calibrator and method, all of one prepared model."""
NOTHING_SEEN: Final = Observations(statistics={}, matmuls={}, order=(), samples=0)


@dataclass(frozen=True, kw_only=True)
class Calibrators:
    """How coarse ranges are chosen where an operand has no vector scales; with them, ranges are the maximum.

    ``activation`` names a calibrator for static activation scales, ``weight`` says how output channels are clipped.
    ``vectors`` is for layers that do have vector scales under a static coarse one: "mse" takes the range of least
    squared error on sampled rows of the layer's input, in place of the maximum (attention products keep that).

    Raises:
        CalibrationError: there is no such calibrator or method.
    """

    activation: str = "max"
    weight: WeightMethod = "max"
    vectors: VectorMethod = "max"

    def __post_init__(self) -> None:
        create_calibrator(self.activation)
        if self.vectors not in get_args(VectorMethod):
            raise CalibrationError(f"vectors must be one of {', '.join(get_args(VectorMethod))}, not {self.vectors!r}")
        if self.weight not in get_args(WeightMethod):
            raise CalibrationError(f"weight must be one of {', '.join(get_args(WeightMethod))}, not {self.weight!r}")


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """A float model ready to be quantized any number of times: batch norms folded, inputs observed."""

    model: nn.Module
    observations: Observations
    folded: FoldReport
    batches: Batches | None = None
    """The calibration data, for what runs it through the quantized layers too."""
    permuted: tuple[PermutedChannels, ...] = ()


def quantize(
    model: nn.Module,
    spec_or_recipe: LayerSpec | Recipe | str,
    *,
    calibration: Iterable[Any] | None = None,
    scale_mode: ScaleMode = "requantize",
    method: Method | None = None,
    calibrators: Calibrators | None = None,
    first_last: FirstLast | None = None,
    batchnorm_pairs: Sequence[tuple[str, str]] | None = None,
    bias_correction: bool = False,
    batchnorm_reestimation: bool = False,
    resume: Path | None = None,
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
    if calibrators is not None and not isinstance(calibrators, Calibrators):
        raise CalibrationError(
            f"calibrators must be a Calibrators, such as Calibrators(activation='mse'), not {calibrators!r}"
        )
    _require_float(model)
    recipe = as_recipe(spec_or_recipe, first_last)
    method, scale_mode = settle(method, scale_mode)
    plans = plan_layers(
        match_layers(model, recipe, matmuls=tuple(attention_modules(model))), recipe.fallback, scale_mode
    )
    _require_some_layer(plans, recipe)
    needed = layers_to_observe(plans, recipe.first_last)
    weighed = layers_to_weigh(plans, method)
    read_again = permute or reads_data(method) or bias_correction or batchnorm_reestimation
    if calibration is None:
        _require_no_calibration(needed, recipe.first_last)
        require_no_data(method, corrected=bias_correction or batchnorm_reestimation)
        require_no_weighing(weighed, method)
    elif read_again and isinstance(calibration, Iterator):
        calibration = tuple(calibration)
    _require_finite({plan.match.name: plan.match.module for plan in plans if _has_weight(plan)})
    if permute and calibration is None:
        raise CalibrationError("calibration must be given: permute needs to see which channels are large; pass batches")
    sample_rows = calibrators is not None and calibrators.vectors == "mse"
    prepared = prepare(
        model,
        calibration,
        layers=tuple(needed),
        second_moments=weighed,
        batchnorm_pairs=batchnorm_pairs,
        sample_rows=sample_rows,
        progress=progress,
    )
    if permute and calibration is not None:
        prepared = permute_prepared(prepared, recipe, calibration, scale_mode=scale_mode, progress=progress)
        if sample_rows:  # rows seen before are in the old order of channels
            anew = prepare(prepared.model, calibration, layers=tuple(needed), sample_rows=True, progress=progress)
            prepared = replace(prepared, observations=anew.observations)
    return quantize_prepared(
        prepared,
        recipe,
        scale_mode=scale_mode,
        method=method,
        calibrators=calibrators,
        bias_correction=bias_correction,
        batchnorm_reestimation=batchnorm_reestimation,
        resume=resume,
        progress=progress,
    )


def as_recipe(spec_or_recipe: LayerSpec | Recipe | str, first_last: FirstLast | None = None) -> Recipe:
    """A spec, its notation or a recipe as a recipe.

    Raises:
        SpecError: it is none of these, or the text is no spec.
    """
    if not isinstance(spec_or_recipe, (str, LayerSpec, Recipe)):
        raise SpecError(f"spec_or_recipe must be a LayerSpec, its notation or a Recipe, not {spec_or_recipe!r}")
    if isinstance(spec_or_recipe, str):
        if spec_or_recipe.endswith((".yaml", ".yml")):
            raise SpecError(f"spec_or_recipe must be a recipe, not its file; give Recipe.from_yaml({spec_or_recipe!r})")
        spec_or_recipe = LayerSpec.parse(spec_or_recipe)
    if isinstance(spec_or_recipe, LayerSpec):
        return Recipe.from_spec(spec_or_recipe, first_last or "same")
    return spec_or_recipe if first_last is None else spec_or_recipe.model_copy(update={"first_last": first_last})


def layers_to_observe(plans: Sequence[LayerPlan], first_last: FirstLast = "same") -> dict[str, LayerSpec]:
    """Layers whose operands must be seen, by name, with the spec that needs it."""
    needed = {}
    for plan in plans:
        if plan.spec is None or plan.match.kind == "embedding":
            continue
        ends = first_last == "8bit" and plan.match.kind in DEFAULT_KINDS
        for spec in (plan.spec, eight_bit(plan.spec)) if ends else (plan.spec,):
            if spec.needs_calibration:
                needed[plan.match.name] = spec
    return needed


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
    _require_finite({name: module for name, module in watched.items() if name in measured})
    observations = observe(
        copied,
        watched,
        batches if whole else [batches.first],
        call,
        progress,
        count=batches.count if whole else 1,
        measured=measured,
        sampled=measured if sample_rows else (),
        matmuls=[name for name in attention_modules(copied) if name in measured],
        moments=moments,
    )
    return PreparedModel(model=copied, observations=observations, folded=folded, batches=batches)


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


def quantize_prepared(
    prepared: PreparedModel,
    recipe: Recipe,
    *,
    scale_mode: ScaleMode = "requantize",
    method: Method | None = None,
    calibrators: Calibrators | None = None,
    weight_cache: WeightCache | None = None,
    bias_correction: bool = False,
    batchnorm_reestimation: bool = False,
    resume: Path | None = None,
    progress: Progress = silent,
) -> nn.Module:
    """Quantize a prepared model, which is left as it was.

    ``weight_cache`` keeps quantized weights between calls.

    Raises:
        SpecError: ``method`` and ``scale_mode`` contradict each other, or as `quantize`.
        CalibrationError: the method needs calibration data, and the model was prepared without.
    """
    method, scale_mode = settle(method, scale_mode)
    chosen = calibrators or Calibrators()
    model = copy.deepcopy(prepared.model)
    plans = plan(model, prepared.observations, recipe, scale_mode)
    ranges = activation_ranges(plans, prepared.observations, chosen.activation, chosen.vectors)
    entries = attention_entries(plans, prepared.observations, chosen.activation, scale_mode)
    weighed = layers_to_weigh(plans, method)
    require_moments(weighed, prepared.observations)
    done, total = 0, sum(_has_weight(layer) for layer in plans)

    def weights(name: str, weight: Tensor, spec: LayerSpec) -> QuantizedWeight:
        nonlocal done
        progress("quantizing weights", done, total)
        done += 1
        key = (name, str(spec.weight), scale_mode, chosen.weight, method_text(method))
        if weight_cache is not None and key in weight_cache:
            return weight_cache[key]
        moments = prepared.observations.second_moments.get(name) if name in weighed else None
        mode, search = first_scale_mode(method, scale_mode), searching(method, weight, moments)
        quantized = _quantize_weight(name, weight, spec, mode, chosen.weight, search)
        if weight_cache is not None:
            weight_cache[key] = quantized
        return quantized

    model = replace_layers(model, plans, weights=weights, ranges=ranges, scale_mode=scale_mode)
    place_matmuls(model, entries)
    progress("quantizing weights", total, total)
    solve(prepared.model, model, prepared.batches, method, resume=resume, progress=progress)
    corrections = Corrections(
        bias=bias_correction,
        folded=tuple(layer for layer, _ in prepared.folded.folded) if batchnorm_reestimation else None,
    )
    correct(prepared.model, model, prepared.batches, corrections, progress=progress)
    attach_record(
        model,
        QuantizationRecord(
            layers=(*(layer.report for layer in plans), *unsupported_layers(prepared.model)),
            folded=prepared.folded.folded,
            unfolded=prepared.folded.unfolded,
            scale_mode=scale_mode,
            activation_calibrator=chosen.activation,
            weight_calibrator=chosen.weight,
            calibration_samples=prepared.observations.samples,
            method=method_text(method) + corrections.text,
            permuted=prepared.permuted,
        ),
    )
    return model


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


def _quantize_weight(
    name: str, weight: Tensor, spec: LayerSpec, scale_mode: ScaleMode, calibrator: WeightMethod, search: SearchOptions
) -> QuantizedWeight:
    fmt, coarse_range = spec.weight, None
    if isinstance(fmt, IntegerFormat) and not fmt.has_vectors and calibrator != "max":
        coarse_range = weight_range(weight.flatten(1), fmt, calibrator)
    return quantize_weight(weight, fmt, name=name, scale_mode=scale_mode, coarse_range=coarse_range, search=search)


def _has_weight(plan: LayerPlan) -> bool:
    return plan.spec is not None and plan.match.kind != "matmul"


def _require_float(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, (QuantLayer, IntegerLayer)):
            raise RecipeError(
                f"model must be a float model, but its layer {name!r} is quantized already ({module.spec}); quantize "
                "the float model anew"
            )


def _require_finite(layers: Mapping[str, nn.Module]) -> None:
    """Found only after calibration, a weight of NaN would be blamed on the input of the next layer."""
    tensors = {
        f"{part} of layer {name!r}": tensor
        for name, module in layers.items()
        for part, tensor in (("weight", float_weight(module)), ("bias", float_bias(module)))
    }
    for what, tensor in tensors.items():
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "Inf"
            raise NonFiniteError(f"{what}: a tensor must be finite to be quantized, but it holds {kind}")


def _require_some_layer(plans: Sequence[LayerPlan], recipe: Recipe) -> None:
    """A request to quantize that leaves the whole model as it is has failed, and must not look as if it had not."""
    if any(plan.spec is not None for plan in plans) or all(rule.skip for rule in recipe.rules):
        return
    reasons = [f"{plan.match.name or 'the model'}: {plan.note}" for plan in plans if plan.match.rule_index is not None]
    raise RecipeError(f"at least one layer must be quantized, not none; {'; '.join(reasons[:3])}")


def _require_no_calibration(needed: Mapping[str, LayerSpec], first_last: FirstLast) -> None:
    for name, spec in needed.items():
        raise CalibrationError(
            f"calibration must be given: layer {name!r} with {spec} needs its input observed; pass "
            "calibration=batches, or use a spec with -tensor or -token and no 'u'"
        )
    if first_last != "same":
        raise CalibrationError(
            f"calibration must be given: first_last: {first_last} needs to see which layer runs first and which last; "
            "pass calibration=batches, or use first_last: same"
        )
