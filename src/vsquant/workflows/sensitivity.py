"""Which layer hurts: every layer in every candidate format, alone, in one pass over calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn

from vsquant.errors import CalibrationError
from vsquant.nn import QuantizedWeight, QuantLayer, quantize_weight
from vsquant.optimize.sensitivity import OutputError, drawn_log_likelihood
from vsquant.packing import packed_bytes
from vsquant.progress import Progress, silent
from vsquant.results.sensitivity import FormatSensitivity, LayerSensitivity, Sensitivity
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.capture import LayerCall, captured_calls
from vsquant.transform.float_layers import float_weight
from vsquant.transform.plan import LayerPlan
from vsquant.transform.recipe import DEFAULT_KINDS, FirstLast, Recipe
from vsquant.transform.replace import make_layer
from vsquant.workflows.batches import call, repeatable
from vsquant.workflows.prepare import PreparedModel, plan, prepare
from vsquant.workflows.ranges import activation_ranges

Logits: TypeAlias = Callable[[Any, Any], Tensor]
"""From a model's output and its batch to logits (rows, classes), as `Task.logits`."""

DRAWS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Option:
    """One layer in the spec that one or more candidates come to there."""

    plan: LayerPlan
    spec: LayerSpec
    activation_range: Tensor | None


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
    prepared = prepare(model, repeatable(calibration), batchnorm_pairs=batchnorm_pairs, progress=progress)
    return measure(
        prepared,
        specs,
        calibration,
        logits=logits,
        scale_mode=scale_mode,
        first_last=first_last,
        draws=draws,
        seed=seed,
        name=name,
        progress=progress,
    )


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
    *,
    logits: Logits | None,
    scale_mode: ScaleMode,
    first_last: FirstLast,
    draws: int,
    seed: int,
    name: str,
    progress: Progress = silent,
) -> Sensitivity:
    """`sensitivity` of a prepared model. Memory: the activations of one batch, and every weight's codes by format."""
    options = _options(prepared, candidates, first_last, scale_mode)
    layers = {layer: by_spec[0].plan.match.module for layer, by_spec in options.items()}
    pass_ = _Pass(prepared.model, layers, options, scale_mode)
    generator = torch.Generator().manual_seed(seed)
    total, rows, done = len(batches) if isinstance(batches, Sequence) else 0, 0, 0
    progress("measuring sensitivity", 0, total)
    for done, batch in enumerate(batches, start=1):
        rows += pass_.add(batch, logits or _all_logits, draws, generator)
        progress("measuring sensitivity", done, max(total, done))
    return Sensitivity(
        model=name or type(prepared.model).__name__,
        candidates=tuple(str(spec) for spec in candidates),
        layers=tuple(pass_.layer(layer, candidates, rows * draws) for layer in options),
        samples=prepared.observations.samples,
        rows=rows,
        draws=draws,
        seed=seed,
        scale_mode=scale_mode,
    )


class _Pass:
    """Sums over batches of what every layer's options do to its output."""

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, nn.Module],
        options: Mapping[str, Sequence[Option]],
        scale_mode: ScaleMode,
    ) -> None:
        self._model, self._layers, self._options, self._scale_mode = model, layers, options, scale_mode
        self._errors = {(name, str(o.spec)): OutputError() for name, found in options.items() for o in found}
        self._weights: dict[tuple[str, str], QuantizedWeight] = {}
        self._inputs: dict[str, int] = {}

    def add(self, batch: Any, logits: Logits, draws: int, generator: torch.Generator) -> int:
        """One batch; returns its rows of logits."""
        with torch.enable_grad(), captured_calls(self._model, self._layers) as calls:
            given = logits(call(self._model, batch), batch)
            outputs = [captured.output for captured in calls]
            gradients = [
                torch.autograd.grad(
                    drawn_log_likelihood(given, generator), outputs, retain_graph=draw < draws - 1, allow_unused=True
                )
                for draw in range(draws)
            ]
        self._note_inputs(calls)
        with torch.no_grad():
            for place, captured in enumerate(calls):
                self._add_call(captured, [drawn[place] for drawn in gradients])
        return given.shape[0]

    def layer(self, name: str, candidates: Sequence[LayerSpec], draws: int) -> LayerSensitivity:
        """The record of one layer; ``draws`` is how many labels were drawn in all."""
        match = self._options[name][0].plan.match
        shape = tuple(float_weight(match.module).shape)
        return LayerSensitivity(
            name=name,
            kind=match.kind,
            shape=shape,
            elements=float_weight(match.module).numel(),
            shared_input=self._input_of(name),
            formats=tuple(
                self._format(name, str(candidate), option, shape, draws)
                for candidate, option in zip(candidates, self._options[name], strict=True)
            ),
            note=self._options[name][0].plan.note,
        )

    def _format(
        self, name: str, candidate: str, option: Option, shape: tuple[int, ...], draws: int
    ) -> FormatSensitivity:
        error = self._errors[name, str(option.spec)]
        return FormatSensitivity(
            requested=candidate,
            spec=str(option.spec),
            mean_squared_error=error.mean_squared_error,
            relative_error=error.relative_error,
            divergence=error.divergence(draws),
            weight_bits=option.spec.weight.bits_per_element,
            stored_bytes=packed_bytes(shape, option.spec.weight),
        )

    def _add_call(self, captured: LayerCall, gradients: Sequence[Tensor | None]) -> None:
        output = captured.output.detach()
        for option in {str(option.spec): option for option in self._options[captured.name]}.values():
            error = self._errors[captured.name, str(option.spec)]
            error.add(output, self._quantized(captured.name, option)(captured.input), gradients)

    def _quantized(self, name: str, option: Option) -> QuantLayer:
        module, key = option.plan.match.module, (name, str(option.spec.weight))
        if key not in self._weights:
            self._weights[key] = quantize_weight(
                float_weight(module), option.spec.weight, name=name, scale_mode=self._scale_mode
            )
        return make_layer(
            module,
            name,
            option.spec,
            scale_mode=self._scale_mode,
            weight=self._weights[key],
            activation_range=option.activation_range,
        )

    def _note_inputs(self, calls: Sequence[LayerCall]) -> None:
        """The number of the tensor that each layer read first: equal for layers that share it."""
        numbers: dict[tuple[int, ...], int] = {}
        for captured in calls:
            number = numbers.setdefault(captured.input_identity, len(numbers))
            self._inputs.setdefault(captured.name, number)

    def _input_of(self, name: str) -> int:
        if name not in self._inputs:
            raise CalibrationError(
                f"layer {name!r} must be reached by the calibration data, but was not; give such data, or skip it"
            )
        return self._inputs[name]


def _options(
    prepared: PreparedModel, candidates: Sequence[LayerSpec], first_last: FirstLast, scale_mode: ScaleMode
) -> dict[str, list[Option]]:
    """By layer, one option per candidate; layers that stay float have none."""
    options: dict[str, list[Option]] = {}
    for candidate in candidates:
        recipe = Recipe.from_spec(candidate, first_last)
        plans = plan(prepared.model, prepared.observations, recipe, scale_mode)
        ranges = activation_ranges(plans, prepared.observations, "max")
        for layer in plans:
            if layer.spec is not None and layer.match.kind in DEFAULT_KINDS:
                name = layer.match.name
                option = Option(plan=layer, spec=layer.spec, activation_range=ranges.get(name))
                options.setdefault(name, []).append(option)
    return options


def _all_logits(output: Any, batch: Any) -> Tensor:
    """Every floating tensor of an output that depends on the layers, as rows over its last dimension."""
    tensors = [tensor for tensor in _tensors(output) if tensor.requires_grad]
    widths = {tensor.shape[-1] if tensor.dim() else 0 for tensor in tensors}
    if len(widths) != 1:
        raise CalibrationError(
            f"the model's output must hold logits of one number of classes, not {sorted(widths)}; "
            "say with logits=... which they are"
        )
    return torch.cat([tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors])


def _tensors(output: Any) -> Iterable[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
