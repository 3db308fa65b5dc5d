"""Evaluating a table cell: the float network, beside which the simulated one is timed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from vsquant.bench.cases import Case, CellCase
from vsquant.bench.contender import Contender, Prepared, RefusedError
from vsquant.tasks.base import Task
from vsquant.tasks.registry import create_task


class FloatCell(Contender):
    """The float network's evaluation."""

    name = "float network"
    package = "torch"

    def runs(self, case: Case) -> bool:
        return isinstance(case, CellCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, CellCase)
        task = cell_task(case.task)
        return cell_prepared(evaluation(task, task.load_model(), case.samples))


@lru_cache(maxsize=1)
def cell_task(name: str) -> Task:
    """The task on its real data.

    Raises:
        RefusedError: VSQUANT_DATA is not set.
    """
    if not os.environ.get("VSQUANT_DATA"):
        raise RefusedError("VSQUANT_DATA must name the folder of real data")
    return create_task(name, data=Path(os.environ["VSQUANT_DATA"]))


def evaluation(task: Task, model: nn.Module, samples: int) -> Callable[[], Tensor]:
    """A call that evaluates the network and gives its metric."""

    def call() -> Tensor:
        with torch.inference_mode():
            return torch.tensor([task.evaluate(model, limit=samples).value()])

    return call


def cell_prepared(call: Callable[[], Tensor]) -> Prepared:
    """Evaluations are compared with the definition in tests, layer by layer; here only that there is a metric."""
    metric = call()
    return Prepared(start=lambda threads: call, output=lambda: metric, expected=metric, error=0.0)
