"""How long a model takes and how much its layers pass on, measured on a few samples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from vsquant.tasks.base import Batch, run
from vsquant.transform.fold import FoldReport
from vsquant.transform.recipe import Recipe
from vsquant.workflows.ptq import prepare, quantize_prepared

_RUNS: Final = 5

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Probe:
    """CPU seconds per sample of the float and the quantized model, and of observing it; seconds of the rest, once."""

    samples: int
    float_seconds: float
    quantized_seconds: float
    calibration_seconds: float
    fixed_seconds: float
    activation_bytes: int
    """Of the layer that takes and gives most, for one sample, in float32."""
    folded: FoldReport

    def quantize_seconds(self, samples: int) -> float:
        """Quantizing with ``samples`` calibration samples."""
        return self.fixed_seconds + samples * self.calibration_seconds


def measure(
    model: nn.Module, batches: Sequence[Batch], recipe: Recipe, batchnorm_pairs: Sequence[tuple[str, str]] | None
) -> Probe:
    """Time the float model on ``batches``, quantize it with them, and time what came out; weights do not matter.

    Raises:
        VsquantError: whatever quantizing the model raises.
    """
    samples = sum(_samples(batch) for batch in batches)
    activation_bytes = _largest_activation_bytes(model, batches)
    float_seconds = _median_seconds(lambda: _run_all(model, batches))
    folded, fold_seconds = _timed(lambda: prepare(model, batches[:1], layers=(), batchnorm_pairs=batchnorm_pairs))
    prepared, observe_seconds = _timed(lambda: prepare(folded.model, batches))
    quantized, weight_seconds = _timed(lambda: quantize_prepared(prepared, recipe))
    quantized_seconds = _median_seconds(lambda: _run_all(quantized, batches))
    return Probe(
        samples=samples,
        float_seconds=float_seconds / samples,
        quantized_seconds=quantized_seconds / samples,
        calibration_seconds=observe_seconds / samples,
        fixed_seconds=fold_seconds + weight_seconds,
        activation_bytes=activation_bytes // samples,
        folded=folded.folded,
    )


def _timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    """The result, and the process's CPU seconds: other processes do not count."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def _median_seconds(work: Callable[[], object]) -> float:
    """The median CPU seconds of several runs, after one that warms up."""
    work()
    return statistics.median(_timed(work)[1] for _ in range(_RUNS))


def _run_all(model: nn.Module, batches: Sequence[Batch]) -> None:
    with torch.inference_mode():
        for batch in batches:
            run(model, batch)


def _largest_activation_bytes(model: nn.Module, batches: Sequence[Batch]) -> int:
    """The most that one module without children takes and gives in all batches together."""
    passed: dict[str, int] = {}

    def count(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensors = [value for value in (*args, output) if isinstance(value, Tensor)]
            passed[name] = passed.get(name, 0) + sum(tensor.numel() for tensor in tensors)

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if not any(module.children()):
                hooks.callback(module.register_forward_hook(count(name)).remove)
        _run_all(model, batches)
    return 4 * max(passed.values(), default=0)


def _samples(batch: Batch) -> int:
    tensor = batch if isinstance(batch, Tensor) else next(iter(batch.values()))
    return tensor.shape[0]
