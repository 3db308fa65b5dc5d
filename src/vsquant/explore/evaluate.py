"""From a point to its record, in whichever process: `evaluate_job` is the work that executors are given."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from functools import lru_cache

import torch

import vsquant
from vsquant.errors import VsquantError
from vsquant.explore.cells import MemoryCells
from vsquant.explore.executors.base import Failure, Job, Outcome, Settings
from vsquant.explore.layers import describe_layers, model_bytes, weight_bytes
from vsquant.explore.point import FLOAT, cell_request, table_request
from vsquant.explore.pricing import Pricing
from vsquant.explore.timing import measure_latency
from vsquant.progress import silent
from vsquant.results.points import Latency, PointCost, PointRecord, PointSpec
from vsquant.results.records import CellRecord, Provenance
from vsquant.tasks.base import Task
from vsquant.tasks.registry import create_task
from vsquant.workflows.table import QuantizedCell, TableRunner

_UNTIMED = "several workers ran at once, or timing was not asked for"


def evaluate_job(settings: Settings, job: Job) -> Outcome:
    """Evaluate one job; whatever it raises is its outcome, for the driver to judge.

    A process keeps what its jobs share: tasks, calibrated networks, quantized weights, costs.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    try:
        return _evaluator(settings).evaluate(job)
    except VsquantError as error:
        return Outcome(job=job, failure=Failure(reason=str(error), traceback=traceback.format_exc(), final=True))
    except Exception as error:  # noqa: BLE001 - a poisoned point must not end the sweep
        reason = f"{type(error).__name__}: {error}"
        return Outcome(job=job, failure=Failure(reason=reason, traceback=traceback.format_exc()))


@lru_cache(maxsize=1)
def _evaluator(settings: Settings) -> Evaluator:
    return Evaluator(settings=settings)


@dataclass(kw_only=True)
class Evaluator:
    """Evaluates points one after the other. Those of one network, V, γ and treatment of its ends share a runner, which
    calibrates once and keeps the quantized weights of the last weight format.
    """

    settings: Settings
    cells: MemoryCells = field(default_factory=MemoryCells)
    pricing: Pricing = field(default_factory=Pricing)
    _tasks: dict[str, Task] = field(default_factory=dict)
    _runners: dict[tuple[object, ...], TableRunner] = field(default_factory=dict)

    def evaluate(self, job: Job) -> Outcome:
        """The outcome of a job that nothing goes wrong with.

        Raises:
            VsquantError: the network cannot be run in the point's format, or its data is missing.
        """
        record = self._float_record(job) if job.point.spec == FLOAT else self._record(job)
        return Outcome(job=job, record=record, cells=self.cells.take_new())

    def _float_record(self, job: Job) -> PointRecord:
        runner, task = self.runner(job.point), self.task(job.point.network)
        if job.cell is not None:
            self.cells.know(runner.float_inputs(), job.cell)
        cell = runner.baseline()
        model = task.load_model()
        size = sum(part.numel() * part.element_size() for part in (*model.parameters(), *model.buffers()))
        return PointRecord(
            point=job.point,
            title=task.title,
            scores=cell.scores,
            weight_bytes=size,
            model_bytes=size,
            layers=(),
            quantize_seconds=0.0,
            evaluate_seconds=cell.seconds,
            provenance=self._provenance(),
            unpriced="floating point has no lanes of integers",
            untimed="the float network is timed beside each other point",
        )

    def _record(self, job: Job) -> PointRecord:
        point, runner = job.point, self.runner(job.point)
        request = cell_request(point)
        if job.cell is not None:
            self.cells.know(runner.cell_inputs(request), job.cell)
        prepared = runner.float_network
        start = time.perf_counter()
        quantized = runner.quantized(request)
        seconds = time.perf_counter() - start
        cell = runner.evaluated(request, quantized)
        cost, latency = self.pricing(point, quantized.model), self._latency(point, quantized)
        return PointRecord(
            point=point,
            title=self.task(point.network).title,
            scores=cell.scores,
            weight_bytes=weight_bytes(quantized.model),
            model_bytes=model_bytes(quantized.model),
            layers=describe_layers(prepared.model, quantized.model),
            quantize_seconds=seconds,
            evaluate_seconds=cell.seconds,
            provenance=self._provenance(),
            latency=latency if isinstance(latency, Latency) else None,
            untimed=latency if isinstance(latency, str) else "",
            cost=cost if isinstance(cost, PointCost) else None,
            unpriced=cost if isinstance(cost, str) else "",
            calibration_samples=self.settings.calibration_samples,
            details=_details(cell),
        )

    def _latency(self, point: PointSpec, quantized: QuantizedCell) -> Latency | str:
        if not self.settings.latency:
            return _UNTIMED
        (batch, *_) = self.task(point.network).calibration_batches(1)
        return measure_latency(self.task(point.network).load_model(), quantized.model, batch)

    def task(self, name: str) -> Task:
        """The task of a network, made once.

        Raises:
            DataError: its data or model is missing.
        """
        if name not in self._tasks:
            self._tasks[name] = create_task(name, data=self.settings.data, model=self.settings.model)
        return self._tasks[name]

    def runner(self, point: PointSpec) -> TableRunner:
        """What evaluates the cells of points that are observed and calibrated alike."""
        settings = self.settings
        request = table_request(point, limit=settings.limit, calibration_samples=settings.calibration_samples)
        key = (point.network, request)
        if key not in self._runners:
            task = self.task(point.network)
            self._runners[key] = TableRunner(task, request, self.cells, silent, commit=settings.commit)
        return self._runners[key]

    def _provenance(self) -> Provenance:
        return Provenance.here(vsquant=vsquant.__version__, torch=torch.__version__, commit=self.settings.commit)


def _details(cell: CellRecord) -> dict[str, str]:
    """How the accuracy was measured, for whoever reads the record."""
    chosen = {"activation_calibrator": cell.activation_calibrator, "weight_calibrator": cell.weight_calibrator}
    return {"evaluated": "simulated", **{name: value for name, value in chosen.items() if value is not None}}
