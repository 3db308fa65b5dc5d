"""What every layer's candidate formats do to its output, summed over batches of calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from vsquant.errors import CalibrationError
from vsquant.nn import QuantizedWeight, QuantLayer, quantize_weight
from vsquant.optimize.sensitivity import OutputError, drawn_log_likelihood
from vsquant.packing import packed_bytes
from vsquant.results.sensitivity import FormatSensitivity, LayerSensitivity
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.capture import LayerCall, captured_calls
from vsquant.transform.float_layers import float_weight
from vsquant.transform.plan import LayerPlan
from vsquant.transform.replace import make_layer
from vsquant.workflows.batches import call

Logits: TypeAlias = Callable[[Any, Any], Tensor]
"""From a model's output and its batch to logits (rows, classes), as `Task.logits`."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One layer in the spec that one or more candidates come to there."""

    plan: LayerPlan
    spec: LayerSpec
    activation_range: Tensor | None


class SensitivityPass:
    """Sums over batches of what every layer's options do to its output."""

    def __init__(self, model: nn.Module, options: Mapping[str, Sequence[Option]], scale_mode: ScaleMode) -> None:
        self._model, self._options, self._scale_mode = model, options, scale_mode
        self._layers = {name: found[0].plan.match.module for name, found in options.items()}
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
            shared_input=self._inputs[name],
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


def all_logits(output: Any, batch: Any) -> Tensor:
    """Every floating tensor of an output that depends on the layers, as rows over its last dimension.

    Raises:
        CalibrationError: they do not all have the same number of classes.
    """
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
