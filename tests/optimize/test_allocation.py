"""The integer programme against every choice there is."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from vsquant.errors import AllocationError
from vsquant.optimize.allocation import AllocationProblem, Tie, allocate, least_cost


def total(values: np.ndarray, choice: tuple[int, ...]) -> float:
    return float(sum(values[layer, option] for layer, option in enumerate(choice)))


def keeps(choice: tuple[int, ...], tie: Tie) -> bool:
    return len({tie.labels[choice[layer]] for layer in tie.layers}) == 1


def every_choice(problem: AllocationProblem) -> list[tuple[int, ...]]:
    layers, options = problem.errors.shape
    choices = itertools.product(range(options), repeat=layers)
    return [choice for choice in choices if all(keeps(choice, tie) for tie in problem.ties)]


def random_problem(seed: int, ties: tuple[Tie, ...] = ()) -> AllocationProblem:
    """Errors over eight decades; costs that are bytes of layers of very different size."""
    generator = np.random.default_rng(seed)
    layers, options = 5, 4
    errors = 10.0 ** generator.uniform(-8, 0, (layers, options))
    costs = np.floor(10.0 ** generator.uniform(1, 6, (layers, 1)) * np.array([2.0, 3.25, 4.25, 8.0]))
    budget = float(generator.uniform(costs.min(axis=1).sum(), costs.max(axis=1).sum()))
    return AllocationProblem(errors=errors, costs=costs, budget=budget, ties=ties)


@pytest.mark.parametrize("seed", range(40))
def test_no_choice_within_the_budget_is_better(seed: int) -> None:
    problem = random_problem(seed)
    choice = allocate(problem)
    within = [other for other in every_choice(problem) if total(problem.costs, other) <= problem.budget]
    assert total(problem.costs, choice) <= problem.budget
    assert total(problem.errors, choice) == pytest.approx(
        min(total(problem.errors, other) for other in within), rel=1e-12
    )


@pytest.mark.parametrize("seed", range(20))
def test_ties_are_kept_at_the_least_error(seed: int) -> None:
    ties = (Tie(layers=(0, 2), labels=(0, 1, 2, 3)), Tie(layers=(1, 3, 4), labels=(0, 0, 1, 1)))
    problem = random_problem(seed, ties)
    choices = [choice for choice in every_choice(problem) if total(problem.costs, choice) <= problem.budget]
    if not choices:
        with pytest.raises(AllocationError, match="the budget must be at least"):
            allocate(problem)
        return
    choice = allocate(problem)
    assert all(keeps(choice, tie) for tie in ties)
    assert total(problem.errors, choice) == pytest.approx(
        min(total(problem.errors, other) for other in choices), rel=1e-12
    )


def test_a_budget_of_exactly_one_choice_is_enough_and_less_is_refused() -> None:
    problem = random_problem(1)
    cheapest = float(problem.costs.min(axis=1).sum())
    exact = AllocationProblem(errors=problem.errors, costs=problem.costs, budget=cheapest)
    assert total(exact.costs, allocate(exact)) == cheapest == least_cost(exact)
    short = AllocationProblem(errors=problem.errors, costs=problem.costs, budget=cheapest - 1)
    with pytest.raises(AllocationError, match=re.escape(f"must be at least {cheapest:g}, the least that")):
        allocate(short)


def test_a_choice_beyond_the_budget_by_less_than_the_solvers_tolerance_is_refused() -> None:
    costs = np.array([[1.0, 1e9], [1.0, 2.0]])
    errors = np.array([[5.0, 0.0], [1.0, 0.0]])
    problem = AllocationProblem(errors=errors, costs=costs, budget=1e9 + 1)
    assert allocate(problem) == (1, 0)


def test_an_allocation_is_repeatable_and_free_of_error_where_that_fits() -> None:
    errors = np.array([[1.0, 0.0], [2.0, 0.0]])
    costs = np.array([[1.0, 3.0], [1.0, 3.0]])
    assert allocate(AllocationProblem(errors=errors, costs=costs, budget=6.0)) == (1, 1)
    assert allocate(AllocationProblem(errors=errors, costs=costs, budget=5.9)) == (0, 1)
    problem = random_problem(3)
    assert allocate(problem) == allocate(problem)


def test_a_large_problem_is_no_worse_than_its_relaxation_by_more_than_one_layer() -> None:
    """200 layers, 12 options: the optimum is at most one layer's largest step above the Lagrangian bound."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(1_000, 1_000_000, (200, 1)).astype(np.float64)
    bits = np.linspace(2.25, 8.25, 12)
    errors = generator.uniform(0.1, 10, (200, 1)) * 4.0 ** -np.arange(12)
    problem = AllocationProblem(errors=errors, costs=sizes * bits, budget=float(sizes.sum() * 4.25))
    choice = allocate(problem)
    multipliers = np.geomspace(1e-12, 1e-4, 400)
    bound = max(
        float((errors + multiplier * problem.costs).min(axis=1).sum() - multiplier * problem.budget)
        for multiplier in multipliers
    )
    assert bound <= total(errors, choice) <= bound * 1.05


@pytest.mark.parametrize(
    ("errors", "costs", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 3)), "one shape"),
        (np.ones((0, 2)), np.ones((0, 2)), "one shape"),
        (np.array([[1.0, np.nan]]), np.ones((1, 2)), "errors must be finite"),
        (np.ones((1, 2)), np.array([[1.0, -1.0]]), "costs must be finite and not negative"),
    ],
)
def test_malformed_problems_are_named(errors: np.ndarray, costs: np.ndarray, message: str) -> None:
    with pytest.raises(AllocationError, match=message):
        AllocationProblem(errors=errors, costs=costs, budget=1.0)
