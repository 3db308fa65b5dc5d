"""Where an integer model's time goes: each layer beside the float layer in its place, and the model as a whole."""

from __future__ import annotations

import inspect
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from vsquant.errors import DataError, VsquantError
from vsquant.kernels import native
from vsquant.nn import IntegerActivation, IntegerConv2d, IntegerEmbedding, IntegerLayer, IntegerLinear, IntegerMatmul
from vsquant.progress import Progress, silent
from vsquant.results.profile import IntegerProfile, LayerProfile
from vsquant.tasks.base import Batch, Task
from vsquant.transform.float_layers import require_module
from vsquant.transform.integer import to_integer
from vsquant.transform.recipe import Recipe
from vsquant.workflows.batches import call
from vsquant.workflows.float_calls import float_call
from vsquant.workflows.ptq import quantize

_ROUNDS: Final = 9
_TIMING_SECONDS: Final = 5e-4
"""What one timing takes at least: shorter calls are repeated within it."""
_MOST_REPEATS: Final = 200

_Layer: TypeAlias = IntegerLayer | IntegerMatmul


class _Key(NamedTuple):
    """Calls that are one line of a profile."""

    name: str
    takes_codes: bool
    gives_codes: bool


class _Call(NamedTuple):
    rows: int
    shape: tuple[int, ...]
    float_seconds: float
    integer_seconds: float


def profile_integer(model: nn.Module, *inputs: Any, rounds: int = _ROUNDS) -> IntegerProfile:
    """Time every layer of an integer model beside the float layer that it stands for.

    The model runs once, and each layer is timed where it is called, on the input that it is given there: floats, or
    the codes of the layer before. The float layer gets the same input and weight, dequantized, and adds the residual
    and function that the integer layer takes in. Both are timed in turn, CPU time of the process, after a warm-up;
    medians of ``rounds``. Then the whole model is timed. Repeated calls find weights in the caches.

    Args:
        model: what `vsquant.to_integer` returned, on the CPU; it is left as it was.
        inputs: what the model is called with; a single mapping stands for keyword arguments.
        rounds: timings of each, at least 1.

    Raises:
        VsquantError: the model is no integer model, is not on the CPU, or calls none of its layers; or ``rounds`` is
            below 1.
    """
    layers = _checked_layers(model, rounds)
    batch = inputs[0] if len(inputs) == 1 else inputs
    calls: dict[_Key, list[_Call]] = {}
    with torch.inference_mode():
        with ExitStack() as hooks:
            for name, layer in layers.items():
                hook = _timing(calls, name, rounds)
                hooks.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            call(model, batch)
        if not calls:
            raise VsquantError("the model must call at least one of its integer layers with these inputs, not none")
        [model_seconds] = median_seconds([lambda: call(model, batch)], rounds)
    return IntegerProfile(
        layers=tuple(_profiled(key, layers[key.name], each) for key, each in calls.items()),
        model_seconds=model_seconds,
        threads=torch.get_num_threads(),
        isa=native.status().isa,
    )


def profile_task(
    task: Task, recipe: Recipe, *, calibration_samples: int, batch: int = 1, progress: Progress = silent
) -> IntegerProfile:
    """The profile of a task's network, quantized by ``recipe``, on its first ``batch`` calibration samples.

    Raises:
        VsquantError: as `vsquant.quantize` and `vsquant.to_integer`; the task has fewer samples in one of its batches.
    """
    task.prepare(progress)
    network = task.load_model()
    given = task.calibration_batches(batch)
    if len(given) > 1:
        raise DataError(
            f"batch must be at most {_samples(given[0])}, the samples in a batch of {task.name}, not {batch}"
        )
    simulated = quantize(
        network,
        recipe,
        calibration=task.calibration_batches(calibration_samples),
        batchnorm_pairs=task.batchnorm_pairs(network),
        progress=progress,
    )
    return profile_integer(to_integer(simulated), given[0])


def median_seconds(contenders: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The median CPU seconds of one call of each, timed in turn after a warm-up."""
    repeats = [_repeats(contender) for contender in contenders]
    timings = [
        [_cpu_seconds(contender, count) for contender, count in zip(contenders, repeats, strict=True)]
        for _ in range(rounds)
    ]
    return [statistics.median(column) for column in zip(*timings, strict=True)]


def _samples(batch: Batch) -> int:
    tensor = batch if isinstance(batch, Tensor) else next(iter(batch.values()))
    return tensor.shape[0]


def _checked_layers(model: nn.Module, rounds: int) -> dict[str, _Layer]:
    require_module(model)
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, (IntegerLayer, IntegerMatmul))
    }
    if not layers:
        raise VsquantError(
            "the model must be an integer one, but has no integer layer; call vsquant.to_integer on what "
            "vsquant.quantize or vsquant.load returned"
        )
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} - {"cpu"}
    if devices:
        raise VsquantError(
            f"the model must be on the CPU, whose time is measured, not on {devices.pop()}; use model.cpu()"
        )
    if rounds < 1:
        raise VsquantError(f"rounds must be at least 1, not {rounds}")
    return layers


def _timing(calls: dict[_Key, list[_Call]], name: str, rounds: int) -> Callable[..., None]:
    """Times a layer on each input that it is about to be called with."""

    def hook(layer: _Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        arguments = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
        in_float = float_call(layer, arguments)
        y = in_float()
        shape = _shape(layer, arguments)
        seconds = median_seconds([in_float, lambda: layer.forward(*args, **kwargs)], rounds)
        takes = isinstance(arguments.get("x"), IntegerActivation)
        key = _Key(name=name, takes_codes=takes, gives_codes=arguments.get("output_format") is not None)
        channels = shape[1] if isinstance(layer, IntegerEmbedding) else shape[0]
        calls.setdefault(key, []).append(_Call(y.numel() // max(channels, 1), shape, *seconds))

    return hook


def _shape(layer: _Layer, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    if isinstance(layer, IntegerLayer):
        return tuple(layer.weight_shape)
    b: Tensor = arguments["b"]
    return (b.shape[-1], b.shape[-2])


def _profiled(key: _Key, layer: _Layer, calls: Iterable[_Call]) -> LayerProfile:
    calls = tuple(calls)
    backend, reason = _backend(key, layer)
    return LayerProfile(
        name=key.name,
        kind=_kind(layer),
        spec=str(layer.spec),
        shape=calls[0].shape,
        rows=sum(each.rows for each in calls),
        calls=len(calls),
        takes_codes=key.takes_codes,
        gives_codes=key.gives_codes,
        backend=backend,
        reason=reason,
        float_seconds=sum(each.float_seconds for each in calls),
        integer_seconds=sum(each.integer_seconds for each in calls),
    )


def _backend(key: _Key, layer: _Layer) -> tuple[str, str]:
    """What runs the layer's calls, and why native code does not; `vsquant.kernels.registry` knows."""
    if isinstance(layer, IntegerEmbedding):
        return "eager", "rows of an embedding are unpacked by plain PyTorch"
    operations = tuple(layer.choices)
    operation = operations[2] if key.gives_codes else operations[1] if key.takes_codes else operations[0]
    choice = layer.choices[operation]
    return choice.backend, "" if choice.backend == "cpu" else choice.others["cpu"]


def _kind(layer: _Layer) -> str:
    if isinstance(layer, IntegerConv2d):
        return f"conv{layer.spatial}d"
    if isinstance(layer, IntegerMatmul):
        return "matmul"
    return "linear" if isinstance(layer, IntegerLinear) else "embedding"


def _repeats(work: Callable[[], object]) -> int:
    """How many calls one timing needs; the first call here warms up."""
    work()
    return min(max(math.ceil(_TIMING_SECONDS / max(_cpu_seconds(work, 1), 1e-7)), 1), _MOST_REPEATS)


def _cpu_seconds(work: Callable[[], object], count: int) -> float:
    """CPU seconds of the process for one of ``count`` calls: other processes do not count."""
    start = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - start) / count
