"""E[x²] of a layer's input channels as the weights of a scale search."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vsquant.errors import CalibrationError
from vsquant.optimize import PLAIN_SEARCH, Method, ScaleSearch, SearchOptions, method_text
from vsquant.transform.observe import Observations
from vsquant.transform.plan import LayerPlan
from vsquant.transform.recipe import DEFAULT_KINDS


def layers_to_weigh(plans: Sequence[LayerPlan], method: Method) -> tuple[str, ...]:
    """Layers whose weights the method chooses by what their inputs are; embeddings have none."""
    if not isinstance(method, ScaleSearch) or not method.needs_inputs:
        return ()
    return tuple(
        plan.match.name
        for plan in plans
        if plan.spec is not None and plan.match.kind in DEFAULT_KINDS and method.changes(plan.spec.weight)
    )


def require_no_weighing(names: Sequence[str], method: Method) -> None:
    """Refuse to go without calibration data where inputs must be seen.

    Raises:
        CalibrationError: they must.
    """
    if names:
        raise CalibrationError(
            f"calibration must be given: method {method_text(method)} weighs the weights of layer {names[0]!r} by its "
            "input; pass calibration=batches, or use importance='none'"
        )


def require_moments(names: Sequence[str], observations: Observations) -> None:
    """Find before the long work a layer whose inputs were not seen.

    Raises:
        CalibrationError: there is one.
    """
    for name in names:
        if name not in observations.second_moments:
            raise CalibrationError(
                f"layer {name!r} needs calibration data that reaches it, for importance second-moment; give such data, "
                "skip the layer in a recipe, or use importance='none'"
            )


def searching(method: Method, weight: Tensor, moments: Tensor | None) -> SearchOptions:
    """How one weight (K, C, *kernel) is searched, from E[x²] of all input channels, the groups' one after the other."""
    if not isinstance(method, ScaleSearch):
        return PLAIN_SEARCH
    importance = None if moments is None else importance_rows(weight, moments)
    return SearchOptions(importance=importance, gamma=method.gamma)


def importance_rows(weight: Tensor, moments: Tensor) -> Tensor:
    """(1, C) for one group, else (K, C): the channels that each output reads."""
    outputs, width = weight.shape[:2]
    by_group = moments.to(weight.device).reshape(-1, width)
    return by_group if len(by_group) == 1 else by_group.repeat_interleave(outputs // len(by_group), dim=0)
