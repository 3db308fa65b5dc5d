"""Orders of channels against the definition of their cost and against every order there is."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from vsquant.errors import ShapeError
from vsquant.optimize.channel_swaps import Arrangement
from vsquant.optimize.permutation import Profile, best_order, order_cost


def profile(rows: int, channels: int, seed: int) -> Profile:
    generator = torch.Generator().manual_seed(seed)
    magnitudes = torch.randn(rows, channels, generator=generator).abs() * torch.rand(channels, generator=generator)
    return Profile(magnitudes=magnitudes, importance=torch.rand(channels, generator=generator))


def plain_cost(profiles: list[Profile], order: list[int], size: int) -> float:
    total = 0.0
    for start in range(0, len(order), size):
        vector = order[start : start + size]
        for found in profiles:
            peaks = sum(max(float(row[c]) for c in vector) ** 2 for row in found.magnitudes)
            total += sum(float(found.importance[c]) for c in vector) * peaks
    return total


@pytest.mark.parametrize("channels", [8, 7, 5])
def test_the_cost_is_the_definition(channels: int) -> None:
    profiles = [profile(3, channels, 0), profile(5, channels, 1)]
    order = torch.randperm(channels, generator=torch.Generator().manual_seed(2))
    assert order_cost(profiles, order, 4) == pytest.approx(plain_cost(profiles, order.tolist(), 4), rel=1e-6)


@pytest.mark.parametrize(("channels", "size"), [(12, 4), (11, 4), (5, 3), (6, 1), (7, 2)])
def test_what_each_swap_costs_is_the_definition(channels: int, size: int) -> None:
    """Of all swaps with every vector, also after some were made; positions beyond the channels take no part."""
    found = profile(6, channels, 0)
    order = torch.randperm(channels, generator=torch.Generator().manual_seed(1))
    arrangement = Arrangement(found.magnitudes, found.importance, order, size)
    for vector, (here, there) in enumerate([(0, channels - 1), (size, 0)]):
        arrangement.watch(vector)
        for _ in range(2):
            check_swaps(arrangement, found, order, vector, size)
            arrangement.swap(here, there)
            order[[here, there]] = order[[there, here]]


def check_swaps(arrangement: Arrangement, found: Profile, order: Tensor, vector: int, size: int) -> None:
    def vectors(given: Tensor, *which: int) -> float:
        return sum(plain_cost([found], given[j * size : (j + 1) * size].tolist(), size) for j in which)

    after = arrangement.after()
    assert arrangement.costs().tolist() == pytest.approx([vectors(order, j) for j in range(len(order.split(size)))])
    for here, there in itertools.permutations(range(len(order)), 2):
        if here // size == vector != there // size:
            swapped = order.clone()
            swapped[[here, there]] = order[[there, here]]
            expected = vectors(swapped, vector, there // size)
            assert float(after[here - vector * size, there]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_near_the_best_of_all_orders_of_six_channels(seed: int) -> None:
    profiles = [profile(4, 6, seed)]
    best = min(
        order_cost(profiles, torch.tensor(order), 3)
        for order in itertools.permutations(range(6))
        if order[0] < order[3]
    )
    found = order_cost(profiles, best_order(profiles, 3), 3)
    given = order_cost(profiles, torch.arange(6), 3)
    assert best * (1 - 1e-9) <= found <= min(given, 1.1 * best)


@pytest.mark.parametrize(
    ("channels", "size", "blocks"), [(40, 16, 1), (48, 16, 2), (48, 16, 3), (17, 16, 1), (5, 9, 1)]
)
def test_an_order_is_a_permutation_within_blocks_and_never_worse(channels: int, size: int, blocks: int) -> None:
    profiles = [profile(9, channels, 0), profile(4, channels, 1)]
    order = best_order(profiles, size, blocks=blocks)
    assert sorted(order.tolist()) == list(range(channels))
    length = channels // blocks
    assert (order // length).equal(torch.arange(channels) // length)
    assert order_cost(profiles, order, size) <= order_cost(profiles, torch.arange(channels), size)
    assert order.equal(best_order(profiles, size, blocks=blocks))


def test_channels_that_are_large_together_come_together() -> None:
    """Two kinds of channels, large in different rows: their sizes are the same."""
    generator = torch.Generator().manual_seed(0)
    kind = torch.arange(32)[torch.randperm(32, generator=generator)] % 2
    rows = torch.rand(40, 32, generator=generator) + 0.5
    rows[:20] *= 1 + 9 * (kind == 0)
    rows[20:] *= 1 + 9 * (kind == 1)
    found = [Profile(magnitudes=rows, importance=torch.ones(32))]
    order = best_order(found, 16)
    assert all(len(set(kind[vector].tolist())) == 1 for vector in order.split(16))
    assert order_cost(found, order, 16) < 0.6 * order_cost(found, torch.arange(32), 16)


def test_a_profile_has_a_column_for_each_channel() -> None:
    empty: Tensor = torch.ones(3)
    with pytest.raises(ShapeError, match=r"magnitudes \(R, C\) and importance \(C,\), not \(2, 4\) and \(3,\)"):
        Profile(magnitudes=torch.ones(2, 4), importance=empty)
