"""Quantizing a task's own network, or another for it: all that is asked for in one object, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from vsquant.optimize import Method, Rounding
from vsquant.progress import Progress, silent
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.tasks.base import Task
from vsquant.transform.recipe import FirstLast, Recipe
from vsquant.workflows.allocate import Allocation, allocate
from vsquant.workflows.kept import Kept
from vsquant.workflows.options import Calibrators
from vsquant.workflows.ptq import quantize


@dataclass(frozen=True, kw_only=True)
class AllocationRequest:
    """A budget, the specs to choose from, and where the recipe is written."""

    budget: str
    candidates: tuple[LayerSpec, ...]
    path: Path


@dataclass(frozen=True, kw_only=True)
class QuantizationRequest:
    """How a network is to be quantized; each option is described at `vsquant.quantize`.

    ``allocation`` chooses the recipe, and ``recipe`` is then not used.
    """

    recipe: Recipe
    scale_mode: ScaleMode = "requantize"
    method: Method = field(default_factory=Rounding)
    calibrators: Calibrators = field(default_factory=Calibrators)
    first_last: FirstLast | None = None
    permute: bool = False
    bias_correction: bool = False
    batchnorm_reestimation: bool = False
    resume: Kept | None = None
    calibration_samples: int = 128
    allocation: AllocationRequest | None = None


@dataclass(frozen=True, kw_only=True)
class QuantizedTask:
    """The simulated model, what a checkpoint says of its architecture, and the allocation if there was one."""

    model: nn.Module
    architecture: Mapping[str, str]
    allocation: Allocation | None


def quantize_task(task: Task, request: QuantizationRequest, *, progress: Progress = silent) -> QuantizedTask:
    """Quantize a task's network on its calibration data; the recipe of an allocation is written at once.

    Raises:
        VsquantError: as `vsquant.quantize`, `vsquant.allocate` and the task.
        OSError: the recipe cannot be written.
    """
    task.prepare(progress)
    network = task.load_model()
    allocation = None if request.allocation is None else _allocate(task, network, request, request.allocation, progress)
    quantized = quantize(
        network,
        request.recipe if allocation is None else allocation.recipe,
        calibration=task.calibration_batches(request.calibration_samples),
        scale_mode=request.scale_mode,
        method=request.method,
        calibrators=request.calibrators,
        first_last=request.first_last,
        batchnorm_pairs=task.batchnorm_pairs(network),
        bias_correction=request.bias_correction,
        batchnorm_reestimation=request.batchnorm_reestimation,
        resume=request.resume,
        permute=request.permute,
        progress=progress,
    )
    return QuantizedTask(model=quantized, architecture=task.architecture(), allocation=allocation)


def _allocate(
    task: Task, network: nn.Module, request: QuantizationRequest, asked: AllocationRequest, progress: Progress
) -> Allocation:
    allocation = allocate(
        network,
        asked.budget,
        candidates=asked.candidates,
        calibration=task.calibration_batches(request.calibration_samples),
        logits=task.logits,
        scale_mode=request.scale_mode,
        first_last=request.first_last or "same",
        batchnorm_pairs=task.batchnorm_pairs(network),
        name=task.name,
        progress=progress,
    )
    allocation.write(asked.path)
    return allocation
