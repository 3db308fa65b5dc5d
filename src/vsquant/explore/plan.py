"""What a sweep will do, known before it does any of it: its points, what is shared, what is done, how long it takes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from vsquant.errors import SpecError
from vsquant.explore.evaluate import Evaluator
from vsquant.explore.executors.base import Job, Settings
from vsquant.explore.point import FLOAT, Impossible, Points, cell_request, enumerate_points
from vsquant.explore.space import Space
from vsquant.hardware.accelerator.configuration import load_accelerator
from vsquant.progress import Progress, silent
from vsquant.results.plans import PlanSummary
from vsquant.results.points import PointRecord, PointSpec
from vsquant.results.store import ResultsStore, content_key
from vsquant.spec.layer import LayerSpec
from vsquant.tasks.base import Task
from vsquant.transform.match import match_layers
from vsquant.transform.plan import plan_layers
from vsquant.transform.recipe import Recipe

PACE_SAMPLES: Final = 16
"""Evaluation samples that the float network is timed on for the estimate."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sweep before it runs: jobs in the order that shares most, and the records that are there already.

    ``weight_quantizations`` counts networks of quantized weights that differ, and ``evaluations`` accuracies that the
    store has not. ``float_seconds`` is the time of one whole float evaluation of each network, as far as a few samples
    tell; ``inputs`` are those of each job's record, by key.
    """

    jobs: tuple[Job, ...]
    finished: tuple[PointRecord, ...]
    inputs: Mapping[str, Mapping[str, Any]]
    impossible: tuple[Impossible, ...]
    weight_quantizations: int
    evaluations: Mapping[str, int]
    float_seconds: Mapping[str, float]

    @property
    def points(self) -> int:
        """All points, the float networks among them."""
        return len(self.jobs) + len(self.finished)

    @property
    def summary(self) -> PlanSummary:
        """What is shown before the sweep."""
        return PlanSummary(
            points=self.points,
            finished=len(self.finished),
            weight_quantizations=self.weight_quantizations,
            evaluations=sum(self.evaluations.values()),
            float_evaluations_seconds=sum(
                count * self.float_seconds[network] for network, count in self.evaluations.items()
            ),
            impossible=tuple((each.text, each.reason) for each in self.impossible),
        )


def plan_sweep(
    networks: Iterable[str], space: Space, store: ResultsStore, settings: Settings, *, progress: Progress = silent
) -> Plan:
    """Every point of ``space`` for each of ``networks``, those that the store has told apart.

    Raises:
        SpecError, AcceleratorError: the space names what there is not, or nothing of it can be run.
        DataError: a task does not exist, or lacks its data.
    """
    for accelerator in filter(None, space.accelerators):
        load_accelerator(accelerator)
    evaluator = Evaluator(settings=settings)
    impossible: list[Impossible] = []
    jobs: list[Job] = []
    finished: list[PointRecord] = []
    inputs: dict[str, Mapping[str, Any]] = {}
    for task in [evaluator.task(name) for name in dict.fromkeys(networks)]:
        task.prepare(progress)
        found = _runnable(enumerate_points(space, task), task.load_model())
        impossible += found.impossible
        for point in sorted(found.points, key=_sharing):
            cell_inputs = _cell_inputs(evaluator, point)
            wanted = point_inputs(point, cell_inputs, settings)
            key = content_key(wanted)
            if key in inputs:
                continue
            inputs[key] = wanted
            known = store.get_point(key)
            if known is not None:
                finished.append(known)
            else:
                jobs.append(Job(key=key, point=point, cell=store.get(content_key(cell_inputs))))
    missing = _missing(jobs)
    paces = {name: _float_seconds(evaluator.task(name), settings.limit) for name in missing}
    return Plan(
        jobs=tuple(jobs),
        finished=tuple(finished),
        inputs=inputs,
        impossible=tuple(impossible),
        weight_quantizations=len({_weights(job.point) for job in jobs if job.point.spec != FLOAT}),
        evaluations=missing,
        float_seconds=paces,
    )


def point_inputs(point: PointSpec, cell_inputs: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """All that the record of a point depends on: its cell's inputs, what is priced and timed, and PyTorch's version."""
    return {
        "kind": "point",
        "point": dataclasses.asdict(point),
        "cell": dict(cell_inputs),
        "latency": settings.latency,
        "torch": torch.__version__,
    }


def _cell_inputs(evaluator: Evaluator, point: PointSpec) -> Mapping[str, Any]:
    runner = evaluator.runner(point)
    return runner.float_inputs() if point.spec == FLOAT else runner.cell_inputs(cell_request(point))


def _runnable(found: Points, model: nn.Module) -> Points:
    """The points that the network's layers can have, so far as that is known without data.

    Raises:
        SpecError: it can have none.
    """
    refused: dict[PointSpec, Impossible] = {}
    for point in found.points:
        reason = _refusal(point, model)
        if reason:
            refused[point] = Impossible(text=f"{point.network} {point.spec}", reason=reason)
    left = tuple(point for point in found.points if point not in refused)
    impossible = (*found.impossible, *refused.values())
    if all(point.spec == FLOAT for point in left):
        reasons = "; ".join(f"{each.text}: {each.reason}" for each in impossible[:3]) or "it names no point"
        raise SpecError(f"the space must have a point that {found.points[0].network} can be run in ({reasons})")
    return Points(points=left, impossible=impossible)


def _refusal(point: PointSpec, model: nn.Module) -> str:
    if point.spec == FLOAT:
        return ""
    request = cell_request(point)
    recipe = Recipe.from_spec(request.spec)
    try:
        plan_layers(match_layers(model, recipe), recipe.fallback, request.scale_mode)
    except SpecError as error:
        return str(error)
    return ""


def _sharing(point: PointSpec) -> tuple[str, ...]:
    """Points next to each other share most: the float network first, then by what quantized weights depend on."""
    return ("",) if point.spec == FLOAT else (*_weights(point), point.spec, point.accelerator)


def _weights(point: PointSpec) -> tuple[str, ...]:
    weight = str(LayerSpec.parse(point.spec).weight)
    return point.network, point.first_last, weight, point.scale_mode, point.method


def _missing(jobs: Iterable[Job]) -> dict[str, int]:
    """Evaluations that there is no record of, by network: points that differ in the accelerator alone share one."""
    wanted = {dataclasses.replace(job.point, accelerator="") for job in jobs if job.cell is None}
    found: dict[str, int] = {}
    for point in wanted:
        found[point.network] = found.get(point.network, 0) + 1
    return found


def _float_seconds(task: Task, limit: int | None) -> float:
    samples = task.evaluation_samples if limit is None else limit
    timed, model = min(PACE_SAMPLES, samples), task.load_model()
    start = time.perf_counter()
    task.evaluate(model, limit=timed)
    return (time.perf_counter() - start) / timed * samples
