"""What quantizing a model by a recipe would run into, found before any long work: nothing is trained or evaluated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import nn

from vsquant.errors import BackendError, CalibrationError, DataError, NonFiniteError, RecipeError, SpecError
from vsquant.kernels import choose, native
from vsquant.kernels.registry import forced_backend
from vsquant.results.inspection import Diagnosis, Finding, FindingLevel
from vsquant.spec.formats import FloatFormat, padded_length
from vsquant.spec.hints import did_you_mean
from vsquant.spec.layer import LayerSpec
from vsquant.tasks import architectures
from vsquant.tasks.base import Task
from vsquant.tasks.hub import model_folder
from vsquant.tasks.registry import TASKS
from vsquant.tasks.textfiles import read_json
from vsquant.transform.attention import attention_modules
from vsquant.transform.float_layers import float_weight
from vsquant.transform.match import Match, apply_first_last, match_layers
from vsquant.transform.plan import LayerPlan, plan_layers
from vsquant.transform.recipe import Recipe
from vsquant.workflows.probe import Probe, measure
from vsquant.workflows.requests import layers_to_observe
from vsquant.workflows.surroundings import surroundings

CALIBRATION_SAMPLES: Final = 128
PROBE_SAMPLES: Final = 4

_PADDING_WARNING: Final = 0.1
_MODEL_COPIES: Final = 3
_ACTIVATION_COPIES: Final = 4


def diagnose_task(task: Task, recipe: Recipe, spec: str) -> Diagnosis:
    """Examine a task's network; its time is measured on a few calibration samples, with random weights.

    Raises:
        DataError, MissingExtraError: the task's model or data is not there.
    """
    architecture = task.architecture()
    findings, plans = _findings(_on_meta(architecture), recipe)
    if any(finding.level == "error" for finding in findings):
        return Diagnosis(model=task.name, spec=spec, findings=_grouped(findings))
    batches = task.calibration_batches(PROBE_SAMPLES)
    model = architectures.build(architecture)
    try:
        probe = measure(model, batches, recipe, task.batchnorm_pairs(model))
    except NonFiniteError:
        text = "no estimate of time: random weights, which stand in for the trained ones, overflow"
        findings.append(Finding(level="note", layer=None, text=text))
        probe = None
    except (CalibrationError, RecipeError, SpecError) as error:
        findings.append(Finding(level="error", layer=None, text=str(error)))
        probe = None
    samples = CALIBRATION_SAMPLES if layers_to_observe(plans, recipe.first_last) else 0
    findings += [] if probe is None else _measured(probe, task, samples)
    return Diagnosis(
        model=task.name,
        spec=spec,
        findings=_grouped(findings),
        peak_memory_bytes=_memory_bytes(model, plans, probe),
        seconds=None if probe is None else _seconds(probe, task, samples),
    )


def diagnose_architecture(name: str, architecture: Mapping[str, str], recipe: Recipe, spec: str) -> Diagnosis:
    """Examine a network by its shapes alone: no weights are made, so any size will do.

    Raises:
        DataError: vsquant does not know the architecture.
    """
    model = _on_meta(architecture)
    findings, plans = _findings(model, recipe)
    text = "no estimate of time, and none of memory for activations: they need the data of a task"
    findings.append(Finding(level="note", layer=None, text=text))
    memory = _memory_bytes(model, plans, None)
    return Diagnosis(model=name, spec=spec, findings=_grouped(findings), peak_memory_bytes=memory)


def architecture_of(model: str) -> dict[str, str]:
    """The architecture of a transformers model, from the config.json of a folder or of the hub.

    Raises:
        DataError: there is no such folder or hub id, or what it has is no configuration.
    """
    try:
        folder = model_folder(model, files=["config.json"])
    except DataError as error:
        tasks = ", ".join(TASKS)
        hint = did_you_mean(model, TASKS)
        raise DataError(f"MODEL must be a task ({tasks}) or a model's folder or hub id{hint}: {error}") from error
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise DataError(f"{folder} must hold a model saved by save_pretrained, but it has no config.json")
    config = read_json(path)
    names = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise DataError(f"{path} must name the model's 'architectures', but does not")
    return {"family": "transformers", "class": names[0], "config": json.dumps(config)}


def _on_meta(architecture: Mapping[str, str]) -> nn.Module:
    """The module without memory for its weights; timm's constructors need it."""
    if architecture.get("family") == "timm":
        return architectures.build(architecture)
    with torch.device("meta"):
        return architectures.build(architecture)


def _findings(model: nn.Module, recipe: Recipe) -> tuple[list[Finding], tuple[LayerPlan, ...]]:
    findings = list(_surroundings())
    try:
        matches = match_layers(model, recipe, matmuls=tuple(attention_modules(model)))
        matches = apply_first_last(matches, [match.name for match in matches], recipe.first_last)
    except RecipeError as error:
        return [*findings, Finding(level="error", layer=None, text=str(error))], ()
    settled = [_settled(match, recipe) for match in matches]
    plans = tuple(plan for plan in settled if isinstance(plan, LayerPlan))
    for outcome in settled:
        findings += _layer_findings(outcome) if isinstance(outcome, LayerPlan) else [outcome]
    return [*findings, *_whole(model, plans, recipe)], plans


def _settled(match: Match, recipe: Recipe) -> LayerPlan | Finding:
    try:
        return plan_layers([match], recipe.fallback, "requantize")[0]
    except SpecError as error:
        return Finding(level="error", layer=match.name, text=str(error).removeprefix(f"layer {match.name!r}: "))


def _surroundings() -> Iterator[Finding]:
    here = surroundings()
    yield Finding(level="ok", layer=None, text=here.versions_text)
    yield Finding(level="note" if here.isa is None else "ok", layer=None, text=here.kernels_text)


def _layer_findings(plan: LayerPlan) -> Iterator[Finding]:
    match, spec = plan.match, plan.spec
    if spec is None:
        yield Finding(level="note", layer=match.name, text=f"stays floating point: {plan.note}")
        return
    if plan.note:
        level: FindingLevel = "warning" if "fallback" in plan.note else "note"
        text = f"{plan.note}, so {spec}" if level == "warning" else plan.note
        yield Finding(level=level, layer=match.name, text=text)
    yield from _as_integers(match, spec)
    length, padded = match.reduction_length, _padded(plan)
    if padded > length:
        yield Finding(
            level="note",
            layer=match.name,
            text=f"{length} {_what(match)} are no multiple of V = {spec.vector_size}: "
            f"zeros pad them to {padded}, {padded / length - 1:.0%} more storage and products",
        )


def _as_integers(match: Match, spec: LayerSpec) -> Iterator[Finding]:
    """What keeps a layer from native integer kernels, by the word of the registry; nothing where they run it."""
    formats = [fmt for fmt in (spec.weight, spec.activation) if isinstance(fmt, FloatFormat)]
    if formats:
        text = f"can be simulated, but not run on integers: {formats[0].name} is a comparison format"
        yield Finding(level="warning", layer=match.name, text=text)
        return
    operation = {"linear": "linear", "conv1d": "conv2d", "conv2d": "conv2d", "matmul": "matmul"}.get(match.kind)
    weight = spec.activation if operation == "matmul" else spec.weight
    if operation is None or weight is None:
        return
    groups = getattr(match.module, "groups", 1)
    depthwise = groups > 1 and match.reduction_length == 1 and not weight.has_vectors
    try:
        choice = choose(operation, weight, spec.activation, depthwise=depthwise)
    except BackendError as error:
        yield Finding(level="warning", layer=match.name, text=f"cannot run on integers here: {error}")
        return
    if choice.backend == "eager":
        expected = forced_backend() == "eager" or not native.status().available
        text = f"on integers it runs eager PyTorch, not native kernels: {choice.others['cpu']}"
        yield Finding(level="note" if expected else "warning", layer=match.name, text=text)


def _whole(model: nn.Module, plans: Sequence[LayerPlan], recipe: Recipe) -> Iterator[Finding]:
    """What is to be said of all layers together."""
    quantized = [plan for plan in plans if plan.spec is not None and plan.match.kind != "matmul"]
    weights = sum(_elements(plan) for plan in quantized)
    others = sum(parameter.numel() for parameter in model.parameters()) - weights
    text = f"{weights:,} weights in {len(quantized)} layers will be quantized, {max(others, 0):,} parameters stay float"
    yield Finding(level="ok" if quantized else "warning", layer=None, text=text)
    padding = sum(_elements(plan) * (_padded(plan) / plan.match.reduction_length - 1) for plan in quantized)
    if weights and padding > 0:
        share = padding / weights
        level: FindingLevel = "warning" if share > _PADDING_WARNING else "note"
        yield Finding(level=level, layer=None, text=f"padding makes the quantized weights {share:.1%} larger in all")
    needed = layers_to_observe(plans, recipe.first_last)
    if needed or recipe.first_last != "same":
        text = f"calibration data is needed: {len(needed)} layers have a static activation scale or may be unsigned"
        yield Finding(level="note", layer=None, text=text)
    else:
        yield Finding(level="ok", layer=None, text="no calibration data is needed")


def _measured(probe: Probe, task: Task, samples: int) -> Iterator[Finding]:
    """What the probe found; ``samples`` are those that calibration is going to observe."""
    for name, reason in probe.folded.unfolded:
        yield Finding(level="warning", layer=name, text=f"batch norm stays floating point: it {reason}")
    if probe.folded.folded:
        text = f"{len(probe.folded.folded)} batch norms will be folded into the layers before them"
        yield Finding(level="ok", layer=None, text=text)
    ratio = probe.quantized_seconds / probe.float_seconds
    calibration = f"with {samples}" if samples else "without"
    yield Finding(
        level="ok",
        layer=None,
        text=f"measured on {probe.samples} samples: {1e3 * probe.float_seconds:.1f} ms of CPU time a sample in float, "
        f"{ratio:.1f} times that quantized; estimate: "
        f"{probe.quantize_seconds(samples):.0f} s to quantize {calibration} calibration samples, "
        f"{probe.quantized_seconds * task.evaluation_samples:.0f} s to evaluate all {task.evaluation_samples:,}",
    )


def _seconds(probe: Probe, task: Task, samples: int) -> float:
    return probe.quantize_seconds(samples) + probe.quantized_seconds * task.evaluation_samples


def _memory_bytes(model: nn.Module, plans: Iterable[LayerPlan], probe: Probe | None) -> int:
    """The float model, its folded copy and the simulated one, codes and scales, and the activations of a batch."""
    tensors = [*model.parameters(), *model.buffers()]
    floats = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    stored = sum(
        _elements(plan) * _padded(plan) / plan.match.reduction_length * (1 + 2 / (plan.spec.vector_size or math.inf))
        for plan in plans
        if plan.spec is not None and plan.match.kind != "matmul"
    )
    activations = 0 if probe is None else _ACTIVATION_COPIES * probe.activation_bytes * probe.samples
    return _MODEL_COPIES * floats + int(stored) + activations


def _grouped(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """One finding where several layers have the same one."""
    layers: dict[tuple[FindingLevel, str], list[str | None]] = {}
    for finding in findings:
        layers.setdefault((finding.level, finding.text), []).append(finding.layer)
    return tuple(
        Finding(level=level, layer=names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more", text=text)
        for (level, text), names in layers.items()
    )


def _elements(plan: LayerPlan) -> int:
    return float_weight(plan.match.module).numel()


def _padded(plan: LayerPlan) -> int:
    """The reduction length with its tail padded, in whatever the weight's vectors are."""
    length = plan.match.reduction_length
    return length if plan.spec is None else padded_length(length, plan.spec.weight.vector_size)


def _what(match: Match) -> str:
    return "input channels" if match.kind in ("conv1d", "conv2d") else "elements"
