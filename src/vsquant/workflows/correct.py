"""Bias correction and batch-norm re-estimation of a simulated model, layer by layer through its quantized prefix."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vsquant.errors import CalibrationError
from vsquant.kernels.numerics import to_fp16
from vsquant.nn import QuantEmbedding, QuantizedWeight, QuantLayer, QuantLinear
from vsquant.optimize.corrections import (
    ChannelCorrection,
    ChannelMoments,
    mean_correction,
    moment_correction,
    with_scale,
)
from vsquant.progress import Progress, silent
from vsquant.spec.formats import IntegerFormat
from vsquant.transform.blocks import find_blocks, output_tensor
from vsquant.workflows.batches import call
from vsquant.workflows.block_walk import BlockData, walk_blocks
from vsquant.workflows.captured import ModuleCall, TensorCache, captured_calls, run_module


@dataclass(frozen=True, kw_only=True)
class Corrections:
    """What is corrected once weights are settled.

    ``bias``: layers get the mean of the float layer's outputs. ``folded``: those named here (layers that a batch norm
    was folded into) get its variance too, and batch norms left in the model are estimated anew; None for neither.
    """

    bias: bool
    folded: Sequence[str] | None

    @property
    def text(self) -> str:
        """What a record says of them after the method; empty where there are none."""
        named = (("bias correction", self.bias), ("batch-norm re-estimation", self.folded is not None))
        return "".join(f" + {name}" for name, done in named if done)


def correct(
    float_model: nn.Module,
    model: nn.Module,
    batches: Iterable[Any] | None,
    corrections: Corrections,
    *,
    progress: Progress = silent,
) -> None:
    """Correct the output channels of a simulated model's layers, in ``model`` itself, in the order of execution.

    A variance is set by the layer's own scales, so codes and formats stay what they are.

    Args:
        float_model: the float model that ``model`` was made of, batch norms folded.
        model: the simulated model.
        batches: calibration batches.
        corrections: which.
        progress: told the blocks done.

    Raises:
        CalibrationError: there is something to correct and there are no batches.
    """
    if not corrections.text:
        return
    if batches is None:
        raise CalibrationError("calibration must be given to prepare(): corrections compare outputs on it")
    every = tuple(batches)
    _correct_layers(float_model, model, every, corrections.bias, corrections.folded or (), progress)
    if corrections.folded is not None:
        reestimate_batchnorms(float_model, model, every)


def _correct_layers(
    float_model: nn.Module,
    model: nn.Module,
    batches: Sequence[Any],
    bias: bool,
    normalized: Collection[str],
    progress: Progress,
) -> None:
    layers = [name for name, module in model.named_modules() if _is_corrected(module)]
    wanted = layers if bias else [name for name in layers if name in normalized]
    blocks = find_blocks(model, layers, batches[0], call)
    for done, data in enumerate(walk_blocks(float_model, model, blocks, batches)):
        progress("correcting outputs", done, len(blocks))
        names = [name for name in data.block.layers if name in wanted]
        targets = _float_moments(float_model, data, names)
        for name in names:
            _correct_layer(model, name, data, targets[name], normalized=name in normalized)
    progress("correcting outputs", len(blocks), len(blocks))


def reestimate_batchnorms(float_model: nn.Module, model: nn.Module, batches: Sequence[Any]) -> None:
    """Move the statistics of the batch norms left in ``model`` as far as quantization moved their input's moments.

    In the order of ``named_modules()``, each through those before it. One that no batch reaches stays as it is.
    """
    for name, norm in model.named_modules():
        if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.running_var is None:
            continue
        wanted, given = (_input_moments(each, name, norm.num_features, batches) for each in (float_model, model))
        if wanted is None or given is None:
            continue
        correction = moment_correction(wanted, given)
        norm.running_mean += (given.mean - wanted.mean).to(norm.running_mean)
        norm.running_var /= correction.scale.square().to(norm.running_var)


def _is_corrected(module: nn.Module) -> bool:
    return isinstance(module, QuantLayer) and not isinstance(module, QuantEmbedding)


def _correct_layer(model: nn.Module, name: str, data: BlockData, wanted: ChannelMoments, *, normalized: bool) -> None:
    layer = model.get_submodule(name)
    assert isinstance(layer, QuantLayer)
    given = ChannelMoments(layer.weight_shape[0])
    _watch(model.get_submodule(data.block.name), data.calls, {name: layer}, {name: given})
    correction = moment_correction(wanted, given) if normalized else mean_correction(wanted, given)
    if normalized:
        weight, scale = _scaled(layer.quantized_weight, layer.spec.weight, correction.scale)
        layer.set_weight(weight)
        correction = with_scale(scale, wanted, given)
    _set_bias(layer, correction)


def _set_bias(layer: QuantLayer, correction: ChannelCorrection) -> None:
    old = torch.zeros(layer.weight_shape[0]) if layer.bias is None else layer.bias
    bias = old.double() * correction.scale + correction.shift
    layer.bias = nn.Parameter(bias.to(torch.float32), requires_grad=False)


def _scaled(weight: QuantizedWeight, fmt: Any, scale: Tensor) -> tuple[QuantizedWeight, Tensor]:
    """The weight with its channels scaled through gamma (through s without one), and the scales that rounding left.

    Weights in comparison formats, and in formats whose only scales are fp16 vector scales, stay as they are.
    """
    if not isinstance(fmt, IntegerFormat) or fmt.scale == "fp16":
        return weight, torch.ones_like(scale)
    if weight.coarse_scale is None:
        assert weight.vector_scale is not None
        per_channel = scale.to(torch.float32).view(-1, *[1] * (weight.vector_scale.dim() - 1))
        return replace(weight, vector_scale=weight.vector_scale * per_channel), per_channel.flatten().double()
    old = weight.coarse_scale
    new = (old.double() * scale).to(torch.float32)
    new = to_fp16(new, round_up=False) if fmt.coarse_fp16 else new
    left = torch.where(old > 0, new.double() / torch.where(old > 0, old, 1.0).double(), 1.0)
    return replace(weight, coarse_scale=new), left


def _float_moments(float_model: nn.Module, data: BlockData, names: Sequence[str]) -> Mapping[str, ChannelMoments]:
    layers = {name: float_model.get_submodule(name) for name in names}
    moments: dict[str, ChannelMoments] = {}
    _watch(float_model.get_submodule(data.block.name), data.float_calls, layers, moments)
    return moments


def _watch(
    block: nn.Module,
    calls: Iterable[ModuleCall],
    layers: Mapping[str, nn.Module],
    moments: dict[str, ChannelMoments],
) -> None:
    """Add the outputs of ``layers`` over the calls of their block to ``moments``."""

    def watching(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = output_tensor(output)
            assert tensor is not None
            rows = _channel_rows(module, tensor)
            moments.setdefault(name, ChannelMoments(rows.shape[1])).add(rows)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(watching(name)).remove)
        for each in calls:
            run_module(block, replace(each, x=each.x.clone()))


def _channel_rows(layer: nn.Module, y: Tensor) -> Tensor:
    """(rows, channels) of a layer's output."""
    is_linear = isinstance(layer, (QuantLinear, nn.Linear)) or not isinstance(layer, (QuantLayer, nn.Conv1d, nn.Conv2d))
    spatial = 0 if is_linear else y.dim() - 2
    return (y if spatial == 0 else y.movedim(1, -1)).flatten(0, -2)


def _input_moments(model: nn.Module, name: str, channels: int, batches: Sequence[Any]) -> ChannelMoments | None:
    calls = captured_calls(model, name, batches, call, TensorCache())
    if not calls:
        return None
    moments = ChannelMoments(channels)
    for each in calls:
        moments.add(each.x.movedim(1, -1).flatten(0, -2))
    return moments
