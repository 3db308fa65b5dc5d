"""What ``--allocate`` of ``vsquant quantize`` asks for, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vsquant.errors import AllocationError

if TYPE_CHECKING:
    from torch import nn

    from vsquant.progress import Progress
    from vsquant.spec import LayerSpec, ScaleMode
    from vsquant.tasks.base import Task
    from vsquant.transform.recipe import FirstLast
    from vsquant.workflows.allocate import Allocation


@dataclass(frozen=True, kw_only=True)
class AllocationRequest:
    """A budget, the specs to choose from, and where the recipe is written: beside the checkpoint."""

    budget: str
    candidates: tuple[LayerSpec, ...]
    path: Path

    def run(
        self,
        task: Task,
        network: nn.Module,
        *,
        samples: int,
        scale_mode: ScaleMode,
        first_last: FirstLast | None,
        progress: Progress,
    ) -> Allocation:
        """Measure the network on the task's calibration data, choose, and write the recipe."""
        from vsquant.workflows.allocate import allocate

        allocation = allocate(
            network,
            self.budget,
            candidates=self.candidates,
            calibration=task.calibration_batches(samples),
            logits=task.logits,
            scale_mode=scale_mode,
            first_last=first_last or "same",
            batchnorm_pairs=task.batchnorm_pairs(network),
            name=task.name,
            progress=progress,
        )
        allocation.write(self.path)
        return allocation


def checked_request(budget: str | None, candidates: str | None, spec: str, output: Path) -> AllocationRequest | None:
    """The request that the options make; None without a budget.

    Raises:
        AllocationError: the budget is malformed, candidates come without one, or ``spec`` is a recipe.
        SpecError: a candidate is no spec.
    """
    from vsquant.spec import LayerSpec
    from vsquant.workflows.allocate import weight_candidates
    from vsquant.workflows.budget import Budget

    if budget is None:
        if candidates is not None:
            raise AllocationError("--candidates must come with --allocate BUDGET, such as --allocate '4.25 bits'")
        return None
    Budget.parse(budget)
    if spec.endswith((".yaml", ".yml")):
        raise AllocationError(f"--allocate must start from a spec such as w4a8-s4/8, not from the recipe {spec}")
    texts: Sequence[str] = [] if candidates is None else candidates.split(",")
    chosen = tuple(LayerSpec.parse(text.strip()) for text in texts) if texts else weight_candidates(spec)
    return AllocationRequest(budget=budget, candidates=chosen, path=output.with_suffix(".recipe.yaml"))
