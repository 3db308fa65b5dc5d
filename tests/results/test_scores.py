"""Metrics, standard errors and paired differences of per-sample scores."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from vsquant.errors import ShapeError, StoreError
from vsquant.results import Aggregate, Scores


def make(
    values: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
    aggregate: Aggregate = "mean",
    metric: str = "F1",
) -> Scores:
    array = np.asarray(values, dtype=np.float64)
    return Scores(
        metric=metric,
        unit="%",
        higher_is_better=aggregate == "mean",
        values=array,
        groups=np.arange(array.size) if groups is None else np.asarray(groups),
        weights=np.ones(array.shape) if weights is None else np.asarray(weights, dtype=np.float64),
        aggregate=aggregate,
    )


def test_value_is_the_weighted_mean() -> None:
    assert make([0, 100, 100, 0]).value() == 50.0
    assert make([1.0, 4.0], weights=[3, 1]).value() == pytest.approx(7 / 4)


def test_value_of_exp_mean_is_perplexity_weighted_by_tokens() -> None:
    scores = make([1.0, 3.0], weights=[10, 30], aggregate="exp_mean")
    assert scores.value() == pytest.approx(math.exp(100 / 40))


def test_standard_error_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(50, 20, size=1000)
    expected = float(values.std(ddof=1)) / math.sqrt(values.size)
    assert make(values).standard_error() == pytest.approx(expected, rel=0.06)


def test_groups_are_resampled_whole() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(100), 10)
    values = rng.normal(0, 1, size=100)[groups]
    alone, together = make(values).standard_error(), make(values, groups=groups).standard_error()
    assert together == pytest.approx(alone * math.sqrt(10), rel=0.1)


def test_group_names_do_not_matter() -> None:
    values = np.random.default_rng(3).normal(size=60)
    groups = np.repeat(np.arange(20), 3)
    assert make(values, groups).standard_error() == make(values, groups * 7 - 5).standard_error()


def test_standard_error_is_the_same_every_time() -> None:
    values = np.random.default_rng(4).normal(size=300)
    assert make(values).standard_error() == make(values).standard_error()


def test_resampling_in_blocks_gives_a_sensible_error_for_many_groups() -> None:
    values = np.random.default_rng(5).normal(size=5000)
    assert make(values).standard_error() == pytest.approx(float(values.std()) / math.sqrt(5000), rel=0.06)


def test_one_group_has_no_standard_error() -> None:
    scores = make([1.0, 2.0, 3.0], groups=[4, 4, 4])
    assert math.isnan(scores.standard_error())
    assert math.isnan(scores.difference(scores).standard_error)
    assert scores.group_count == 1


def test_difference_is_paired() -> None:
    rng = np.random.default_rng(6)
    baseline = rng.normal(50, 30, size=500)
    change = rng.normal(-1, 0.5, size=500)
    difference = make(baseline + change).difference(make(baseline))
    assert difference.value == pytest.approx(change.mean())
    assert difference.standard_error == pytest.approx(change.std(ddof=1) / math.sqrt(500), rel=0.06)
    assert difference.standard_error < make(baseline).standard_error() / 10


def test_difference_to_itself_is_exactly_zero() -> None:
    scores = make(np.random.default_rng(7).normal(size=50))
    assert scores.difference(scores).value == 0.0
    assert scores.difference(scores).standard_error == 0.0


def test_difference_of_perplexities_is_in_perplexity() -> None:
    rng = np.random.default_rng(8)
    weights = rng.integers(5, 50, size=200)
    losses = rng.normal(2, 0.3, size=200)
    float_network = make(losses, weights=weights, aggregate="exp_mean")
    quantized = make(losses + 0.1, weights=weights, aggregate="exp_mean")
    difference = quantized.difference(float_network)
    assert difference.value == pytest.approx(float_network.value() * math.expm1(0.1))
    assert difference.standard_error == pytest.approx(float_network.standard_error() * math.expm1(0.1), rel=1e-9)


def test_a_diverged_perplexity_is_infinite_without_a_warning() -> None:
    diverged = make([2000.0, 1.0, 3000.0], aggregate="exp_mean")
    assert diverged.value() == math.inf
    assert not math.isfinite(diverged.difference(make([1.0, 1.0, 1.0], aggregate="exp_mean")).standard_error)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (make([1.0, 2.0]), "must be on the same samples, not on 3 and 2; evaluate both with the same limit"),
        (make([1.0, 2.0, 3.0], groups=[0, 0, 1]), "not on samples of other groups or weights"),
        (make([1.0, 2.0, 3.0], weights=[1, 1, 2]), "not on samples of other groups or weights"),
        (make([1.0, 2.0, 3.0], metric="EM"), "must be of one metric, not of 'F1' .mean. and 'EM' .mean."),
    ],
)
def test_unpaired_differences_are_refused(baseline: Scores, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        make([1.0, 2.0, 3.0]).difference(baseline)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([1.0, 2.0], [0], None), "one-dimensional and equally long"),
        (([], None, None), "at least one sample, not none"),
        (([1.0, 2.0], None, [1.0, 0.0]), "weights must be positive, not 0.0"),
        (([1.0, 2.0], None, [1.0, math.nan]), "weights must be positive, not nan"),
    ],
)
def test_malformed_scores_are_refused(
    arrays: tuple[list[float], list[int] | None, list[float] | None], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        make(*arrays)


def test_arrays_are_copied_and_read_only() -> None:
    values = np.array([1.0, 2.0])
    scores = make(values)
    values[0] = 99.0
    assert scores.value() == 1.5
    with pytest.raises(ValueError, match="read-only"):
        scores.values[0] = 3.0


def test_bytes_round_trip_is_exact() -> None:
    rng = np.random.default_rng(9)
    scores = make(rng.normal(size=77) / 3, rng.integers(0, 9, 77), rng.integers(1, 9, 77), aggregate="exp_mean")
    again = Scores.from_bytes(scores.to_bytes())
    assert again == scores
    assert hash(again) == hash(scores)
    assert again.standard_error() == scores.standard_error()
    assert again != make([1.0])


@pytest.mark.parametrize("cut", [0, 3, 30, -1])
def test_damaged_bytes_are_refused(cut: int) -> None:
    with pytest.raises(StoreError, match=r"must be what Scores\.to_bytes wrote"):
        Scores.from_bytes(make([1.0, 2.0, 3.0]).to_bytes()[:cut])
