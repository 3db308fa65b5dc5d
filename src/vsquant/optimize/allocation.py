"""One option for every layer at the least total error within a budget: an exact integer programme.

With x_lc = 1 where layer l takes option c, e_lc its error and b_lc its cost:

    (1) minimise Σ e_lc x_lc   subject to   Σ_c x_lc = 1 for all l,   Σ b_lc x_lc <= budget,
        and Σ_{c of label t} x_lc equal for all tied layers l, for every label t
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, sparse

from vsquant.errors import AllocationError

_SCALE: Final = 1e6


@dataclass(frozen=True, kw_only=True)
class Tie:
    """Layers that must choose options of one label: all options have labels of their own where they share everything.

    ``layers`` are rows of the problem, ``labels`` has one label per option (column).
    """

    layers: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class AllocationProblem:
    """Eq. (1): errors and costs (layers, options), not negative and finite, a budget, and which layers are tied."""

    errors: NDArray[np.float64]
    costs: NDArray[np.float64]
    budget: float
    ties: tuple[Tie, ...] = ()

    def __post_init__(self) -> None:
        if self.errors.ndim != 2 or 0 in self.errors.shape or self.costs.shape != self.errors.shape:
            raise AllocationError(
                f"errors and costs must have one shape (layers, options), not {self.errors.shape} and "
                f"{self.costs.shape}"
            )
        for name, values in (("errors", self.errors), ("costs", self.costs)):
            if not np.isfinite(values).all() or (values < 0).any():
                raise AllocationError(f"{name} must be finite and not negative in every layer and option")


def allocate(problem: AllocationProblem) -> tuple[int, ...]:
    """The option of every layer by eq. (1); of equal solutions the solver's choice, the same at every call.

    Raises:
        AllocationError: no choice is within the budget; the message says the least that one costs.
    """
    least = least_cost(problem)
    if least > problem.budget:
        raise AllocationError(f"the budget must be at least {least:g}, the least that any choice costs")
    first = _solve(problem, problem.errors, problem.errors > -1)
    incumbent = _total(problem.errors, first)
    if incumbent == 0.0:
        return first
    # No option that alone errs more than a whole solution is part of a better one; without them, errors can be scaled
    # so far up that the solver's absolute tolerance is nothing.
    return _solve(problem, problem.errors * (_SCALE / incumbent), problem.errors <= incumbent)


def least_cost(problem: AllocationProblem) -> float:
    """The least that any choice of eq. (1) costs, its ties kept and its budget aside."""
    unlimited = AllocationProblem(
        errors=problem.costs, costs=np.zeros_like(problem.costs), budget=0.0, ties=problem.ties
    )
    largest = float(problem.costs.max())
    scaled = problem.costs * (_SCALE / largest if largest else 1.0)
    return _total(problem.costs, _solve(unlimited, scaled, problem.costs > -1))


def _solve(problem: AllocationProblem, objective: NDArray[np.float64], allowed: NDArray[np.bool_]) -> tuple[int, ...]:
    """Eq. (1) with ``objective`` for its errors, over the ``allowed`` options, with the budget kept exactly.

    The solver keeps constraints to a tolerance; a choice that goes beyond the budget within it is cut off.
    """
    refused: list[tuple[int, ...]] = []
    while True:
        choice = _solve_without(refused, problem, objective, allowed)
        if _total(problem.costs, choice) <= problem.budget:
            return choice
        refused.append(choice)


def _solve_without(
    refused: Sequence[tuple[int, ...]],
    problem: AllocationProblem,
    objective: NDArray[np.float64],
    allowed: NDArray[np.bool_],
) -> tuple[int, ...]:
    layers, options = objective.shape
    unit = float(problem.costs.max()) or 1.0
    constraints = [
        optimize.LinearConstraint(_one_option_each(objective.shape), 1, 1),
        optimize.LinearConstraint(
            sparse.csr_array(problem.costs.reshape(1, -1) / unit), -np.inf, problem.budget / unit
        ),
        *(optimize.LinearConstraint(rows, 0, 0) for rows in _tied(problem)),
        *(optimize.LinearConstraint(np.eye(options)[list(choice)].reshape(1, -1), 0, layers - 1) for choice in refused),
    ]
    result = optimize.milp(
        objective.reshape(-1),
        constraints=constraints,
        integrality=np.ones(objective.size),
        bounds=optimize.Bounds(0, allowed.reshape(-1).astype(np.float64)),
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:
        raise AllocationError(f"no choice keeps the budget and the ties: {result.message}")
    return tuple(int(option) for option in result.x.reshape(objective.shape).argmax(axis=1))


def _one_option_each(shape: tuple[int, ...]) -> sparse.csr_array:
    layers, options = shape
    return sparse.csr_array(sparse.kron(sparse.eye_array(layers), np.ones((1, options))))


def _tied(problem: AllocationProblem) -> Iterator[sparse.csr_array]:
    """For every tie the rows that say: as many options of each label in each layer as in the tie's first."""
    layers, options = problem.errors.shape
    for tie in problem.ties:
        first, *others = tie.layers
        rows = []
        for label in sorted(set(tie.labels)):
            has_label = np.array([other == label for other in tie.labels], dtype=np.float64)
            for layer in others:
                row = np.zeros((layers, options))
                row[first], row[layer] = has_label, -has_label
                rows.append(row.reshape(-1))
        if rows:
            yield sparse.csr_array(np.stack(rows))


def _total(values: NDArray[np.float64], choice: tuple[int, ...]) -> float:
    return float(values[np.arange(len(choice)), list(choice)].sum())
