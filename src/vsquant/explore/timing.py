"""Measured time of one sample: the integer network beside the float one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from vsquant.errors import VsquantError
from vsquant.results.points import Latency
from vsquant.results.records import Provenance
from vsquant.tasks.base import Batch, run
from vsquant.transform.integer import to_integer

ROUNDS: Final = 9


def measure_latency(float_model: nn.Module, model: nn.Module, batch: Batch, *, rounds: int = ROUNDS) -> Latency | str:
    """Medians of ``rounds`` interleaved calls of both on the first sample of ``batch``, or why the model has none."""
    try:
        integer = to_integer(model)
    except VsquantError as error:
        return str(error)
    sample = _first(batch)
    seconds, float_seconds = _medians((integer, float_model), sample, rounds)
    return Latency(
        seconds=seconds,
        float_seconds=float_seconds,
        batch=1,
        threads=torch.get_num_threads(),
        backend="cpu",
        machine=Provenance.here(vsquant="", torch="").machine,
    )


def _first(batch: Batch) -> Batch:
    return batch[:1] if isinstance(batch, torch.Tensor) else {name: tensor[:1] for name, tensor in batch.items()}


def _medians(models: Sequence[nn.Module], sample: Batch, rounds: int) -> list[float]:
    with torch.inference_mode():
        for model in models:
            run(model, sample)
        timings = [[_seconds(model, sample) for model in models] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*timings, strict=True)]


def _seconds(model: nn.Module, sample: Batch) -> float:
    start = time.perf_counter()
    run(model, sample)
    return time.perf_counter() - start
