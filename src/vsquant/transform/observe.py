"""One pass over calibration data: the range of every layer's input, and the order in which layers run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vsquant.calibrate import RangeObserver, RangeStatistics, RowSample, SecondMoment
from vsquant.errors import CalibrationError, ShapeError
from vsquant.progress import Progress, silent
from vsquant.transform.attention import observed_attention
from vsquant.transform.float_layers import float_weight


@dataclass(frozen=True, kw_only=True)
class Observations:
    """What calibration saw: input statistics by layer name, names in the order of their first call, and the samples.

    ``matmuls`` has the statistics of an attention module's operands, per head; ``rows`` has sampled rows (rows, C) of
    the inputs that were to be sampled, ``second_moments`` E[x²] of each input channel, (channels,) float64, of the
    layers for which it was asked. A layer that no batch reached is in none of them.
    """

    statistics: Mapping[str, RangeStatistics]
    matmuls: Mapping[str, Mapping[str, RangeStatistics]]
    order: tuple[str, ...]
    samples: int
    rows: Mapping[str, Tensor] = field(default_factory=dict)
    second_moments: Mapping[str, Tensor] = field(default_factory=dict)


def observe(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Any],
    run: Callable[[nn.Module, Any], Any],
    progress: Progress = silent,
    *,
    count: int = 0,
    measured: Collection[str] | None = None,
    sampled: Collection[str] = (),
    matmuls: Sequence[str] = (),
    moments: Collection[str] = (),
) -> Observations:
    """Run ``batches`` through ``model`` and observe the first input of every one of ``layers`` (by name).

    Nothing of the activations is kept but their histograms and, of the layers in ``sampled``, some rows. ``run`` calls
    the model on one batch; ``count`` is how many there are, for ``progress`` (0: not known). The order is that of all
    ``layers``; statistics are of those in ``measured``, if that is given. ``matmuls`` names the attention modules whose
    operands are observed, ``moments`` the layers whose second moments are. The model is left as it was.

    Raises:
        CalibrationError: there are no batches, or one is not what the model takes.
        NonFiniteError: a layer's input holds NaN or Inf; the message names the layer.
        ShapeError: a layer's input does not have its channels; the message names the layer.
    """
    observers: dict[str, RangeObserver] = {}
    rows: dict[str, RowSample] = {}
    squares = {name: SecondMoment(name, _spatial(layers[name])) for name in moments}
    samples = 0
    with ExitStack() as undo, torch.inference_mode():
        cores = undo.enter_context(observed_attention(model, matmuls))
        for name, layer in layers.items():
            hook = _observing(observers, squares.get(name), name, measured is None or name in measured)
            undo.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            if name in sampled:
                undo.callback(layer.register_forward_pre_hook(_sampling(rows, name), with_kwargs=True).remove)
        progress("calibrating", 0, count)
        for done, batch in enumerate(batches, start=1):
            _run_one(model, batch, done, run)
            samples += _samples(batch)
            progress("calibrating", done, max(count, done))
        seen_by_matmuls = {name: core.statistics for name, core in cores.items()}
    if samples == 0:
        raise CalibrationError("calibration data must hold at least one batch, not none; pass an iterable of batches")
    seen = {name: observer.statistics() for name, observer in observers.items()}
    return Observations(
        statistics={name: statistics for name, statistics in seen.items() if statistics.total},
        matmuls={name: statistics for name, statistics in seen_by_matmuls.items() if statistics},
        order=tuple(observers),
        samples=samples,
        rows={name: sample.rows for name, sample in rows.items()},
        second_moments={name: mean for name, each in squares.items() if (mean := each.mean()) is not None},
    )


def _run_one(model: nn.Module, batch: Any, number: int, run: Callable[[nn.Module, Any], Any]) -> None:
    try:
        run(model, batch)
    except TypeError as error:
        raise CalibrationError(
            f"calibration batch {number} must be what the model takes (a tensor, a tuple of arguments or a mapping of "
            f"keyword arguments), not this {type(batch).__name__}: {error}"
        ) from error


def _observing(
    observers: dict[str, RangeObserver], squares: SecondMoment | None, name: str, measured: bool
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = _first_argument(args, kwargs)
        observer = observers.setdefault(name, RangeObserver(name))
        if isinstance(x, Tensor) and x.is_floating_point():
            _check_channels(name, module, x)
            if measured:
                observer.update(x)
            if squares is not None:
                squares.update(x)

    return hook


def _sampling(samples: dict[str, RowSample], name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = _first_argument(args, kwargs)
        if isinstance(x, Tensor) and x.is_floating_point():
            rows = input_rows(module, x)
            samples.setdefault(name, RowSample(rows.shape[1])).add(rows)

    return hook


def input_rows(module: nn.Module, x: Tensor) -> Tensor:
    """A float layer's input as (rows, C): one row a position, of one group's channels."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        return x.movedim(-1 - len(module.kernel_size), -1).reshape(-1, module.in_channels // module.groups)
    return x.reshape(-1, x.shape[-1])


def _first_argument(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[0] if args else next(iter(kwargs.values()))


def _check_channels(name: str, module: nn.Module, x: Tensor) -> None:
    """PyTorch's own message about a wrong shape does not say which layer it is about."""
    spatial = _spatial(module)
    expected = module.in_channels if isinstance(module, (nn.Conv1d, nn.Conv2d)) else float_weight(module).shape[1]
    given = x.shape[-1 - spatial] if x.dim() > spatial else f"an input of shape {tuple(x.shape)}"
    if given != expected:
        raise ShapeError(f"input of layer {name!r} must have {expected} channels, not {given}")


def _spatial(module: nn.Module) -> int:
    return len(module.kernel_size) if isinstance(module, (nn.Conv1d, nn.Conv2d)) else 0


def _samples(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.dim() else 1
    if isinstance(batch, Mapping):
        return max((_samples(value) for value in batch.values()), default=0)
    return max((_samples(value) for value in batch), default=0) if isinstance(batch, (tuple, list)) else 1
