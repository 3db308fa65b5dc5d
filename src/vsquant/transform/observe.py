"""One pass over calibration data: the range of every layer's input, and the order in which layers run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vsquant.calibrate import RangeObserver, RangeStatistics
from vsquant.errors import CalibrationError
from vsquant.progress import Progress, silent


@dataclass(frozen=True, kw_only=True)
class Observations:
    """What calibration saw: input statistics by layer name, names in the order of their first call, and the samples.

    A layer that no batch reached is in ``order`` and ``statistics`` neither.
    """

    statistics: Mapping[str, RangeStatistics]
    order: tuple[str, ...]
    samples: int


def observe(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Any],
    run: Callable[[nn.Module, Any], Any],
    progress: Progress = silent,
    *,
    measured: Collection[str] | None = None,
) -> Observations:
    """Run ``batches`` through ``model`` and observe the first input of every one of ``layers`` (by name).

    Nothing of the activations is kept but their histograms. ``run`` calls the model on one batch. The order is that of
    all ``layers``; statistics are of those in ``measured``, if that is given.

    Raises:
        CalibrationError: there are no batches.
        NonFiniteError: a layer's input holds NaN or Inf; the message names the layer.
    """
    observers: dict[str, RangeObserver] = {}
    samples, count = 0, len(batches) if isinstance(batches, Sequence) else 0
    with ExitStack() as hooks, torch.inference_mode():
        for name, layer in layers.items():
            handle = layer.register_forward_pre_hook(
                _observing(observers, name, measured is None or name in measured), with_kwargs=True
            )
            hooks.callback(handle.remove)
        progress("calibrating", 0, count)
        for done, batch in enumerate(batches, start=1):
            run(model, batch)
            samples += _samples(batch)
            progress("calibrating", done, max(count, done))
    if samples == 0:
        raise CalibrationError("calibration data must hold at least one batch, not none; pass an iterable of batches")
    seen = {name: observer.statistics() for name, observer in observers.items()}
    return Observations(
        statistics={name: statistics for name, statistics in seen.items() if statistics.total},
        order=tuple(observers),
        samples=samples,
    )


def _observing(
    observers: dict[str, RangeObserver], name: str, measured: bool
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        observer = observers.setdefault(name, RangeObserver(name))
        if measured and isinstance(x, Tensor) and x.is_floating_point():
            observer.update(x)

    return hook


def _samples(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.dim() else 1
    if isinstance(batch, Mapping):
        return max((_samples(value) for value in batch.values()), default=0)
    return max((_samples(value) for value in batch), default=0) if isinstance(batch, (tuple, list)) else 1
