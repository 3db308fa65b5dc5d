"""What ``--allocate`` of ``vsquant quantize`` asks for, checked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vsquant.errors import AllocationError

if TYPE_CHECKING:
    from vsquant.spec import LayerSpec
    from vsquant.workflows.task_quantization import AllocationRequest


def checked_request(budget: str | None, candidates: str | None, spec: str, output: Path) -> AllocationRequest | None:
    """The request that the options make, its recipe beside the checkpoint; None without a budget.

    Raises:
        AllocationError: the budget is malformed, candidates are none or come without one, or ``spec`` is a recipe.
        SpecError: a candidate is no spec.
    """
    from vsquant.workflows.allocate import weight_candidates
    from vsquant.workflows.budget import Budget
    from vsquant.workflows.task_quantization import AllocationRequest

    if budget is None:
        if candidates is not None:
            raise AllocationError("--candidates must come with --allocate BUDGET, such as --allocate '4.25 bits'")
        return None
    Budget.parse(budget)
    if spec.endswith((".yaml", ".yml")):
        raise AllocationError(f"--allocate must start from a spec such as w4a8-s4/8, not from the recipe {spec}")
    chosen = weight_candidates(spec) if candidates is None else _specs(candidates)
    return AllocationRequest(budget=budget, candidates=chosen, path=output.with_suffix(".recipe.yaml"))


def _specs(candidates: str) -> tuple[LayerSpec, ...]:
    from vsquant.spec import LayerSpec

    texts = [text.strip() for text in candidates.split(",") if text.strip()]
    if not texts:
        raise AllocationError(f"--candidates must be specs such as w3a8-s4/8,w4a8-s4/8, not {candidates!r}")
    return tuple(LayerSpec.parse(text) for text in texts)
