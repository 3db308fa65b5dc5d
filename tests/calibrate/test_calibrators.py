from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vsquant.calibrate import CALIBRATORS, RangeObserver, RangeStatistics, calibrated_range
from vsquant.calibrate.calibrators import ENTROPY_SMALLEST_SHARE
from vsquant.errors import CalibrationError
from vsquant.spec.formats import IntegerFormat

FORMATS = [
    IntegerFormat(bits=bits, signed=signed, scale=None, vector_size=None)
    for bits in (2, 3, 4, 8)
    for signed in (True, False)
]
INT4 = IntegerFormat(bits=4, scale=6)
UINT4 = IntegerFormat(bits=4, signed=False, scale=6)
INT8 = IntegerFormat(bits=8, scale=None, vector_size=None)


def statistics_of(x: torch.Tensor | NDArray[np.float32], groups: int = 1, bins: int = 8192) -> RangeStatistics:
    observer = RangeObserver("conv1", groups=groups, bins=bins)
    observer.update(torch.as_tensor(x))
    return observer.statistics()


def normal(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def squared_error(x: NDArray[np.float32], fmt: IntegerFormat, limit: float) -> float:
    step = limit / fmt.qmax
    codes = np.clip(np.rint(x.astype(np.float64) / step), fmt.qmin, fmt.qmax)
    return float(((codes * step - x) ** 2).sum())


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("name", [*CALIBRATORS, "percentile-75"])
def test_every_range_is_positive_and_within_the_observed(name: str, fmt: IntegerFormat) -> None:
    x = normal(20_000)
    (limit,) = calibrated_range(statistics_of(x), fmt, name)
    assert limit.dtype == np.float32
    assert 0 < limit <= (np.abs(x).max() if fmt.signed else x.max())


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_max_is_exact(values: list[float]) -> None:
    x = np.array([*values, 1e-40], dtype=np.float32)
    assert calibrated_range(statistics_of(x), INT4)[0] == np.abs(x).max()
    assert calibrated_range(statistics_of(x), UINT4)[0] == x.max()


@pytest.mark.parametrize("percent", [50.5, 75, 99.9, 99.99, 100])
def test_percentile_is_within_one_bin_of_numpy(percent: float) -> None:
    x = normal(50_000)
    statistics = statistics_of(x)
    width = float(statistics.bin_width[0])
    (limit,) = calibrated_range(statistics, INT4, f"percentile-{percent}")
    assert abs(limit - np.percentile(np.abs(x), percent, method="inverted_cdf")) <= width
    (limit,) = calibrated_range(statistics, UINT4, f"percentile-{percent}")
    assert abs(limit - np.percentile(np.maximum(x, 0), percent, method="inverted_cdf")) <= width


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=200).filter(any),
    st.floats(50.001, 100).map(lambda p: round(p, 3)),
)
@settings(max_examples=200, deadline=None)
def test_percentile_is_within_one_bin_of_numpy_on_any_values(values: list[float], percent: float) -> None:
    x = np.array(values, dtype=np.float32)
    statistics = statistics_of(x, bins=256)
    (limit,) = calibrated_range(statistics, INT4, f"percentile-{percent}")
    exact = np.percentile(np.abs(x.astype(np.float64)), percent, method="inverted_cdf")
    assert abs(limit - exact) <= statistics.bin_width[0]


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("tail", ["normal", "heavy", "outlier", "relu"])
def test_mse_is_near_the_best_of_a_dense_search_and_never_worse_than_max(fmt: IntegerFormat, tail: str) -> None:
    x = normal(20_000)
    if tail == "heavy":
        x = np.sign(x) * np.abs(x) ** 3
    elif tail == "outlier":
        x[:3] = [200, 150, 300]
    elif tail == "relu":
        x = np.maximum(x, 0)
    x = x if fmt.signed else np.maximum(x, 0)
    (limit,) = calibrated_range(statistics_of(x), fmt, "mse")
    largest = np.abs(x).max()
    errors = [squared_error(x, fmt, r * largest) for r in np.geomspace(1e-3, 1, 600)]
    assert squared_error(x, fmt, limit) <= min(errors) * 1.02
    assert squared_error(x, fmt, limit) <= squared_error(x, fmt, largest) * 1.0001


def test_mse_of_a_gaussian_is_the_known_optimum() -> None:
    # Uniform midtread quantizer of 15 levels, unit normal: the optimal step is close to 0.35 (Max 1960, table II).
    (limit,) = calibrated_range(statistics_of(normal(2_000_000)), INT4, "mse")
    assert limit / 7 == pytest.approx(0.353, abs=0.015)


def test_entropy_keeps_a_uniform_distribution_whole() -> None:
    x = np.linspace(-1, 1, 200_000, dtype=np.float32)
    (limit,) = calibrated_range(statistics_of(x), INT8, "entropy")
    assert limit == pytest.approx(1.0, rel=0.01)


def test_entropy_clips_a_few_far_outliers() -> None:
    x = normal(100_000)
    x[:5] = 60.0
    (limit,) = calibrated_range(statistics_of(x), INT8, "entropy")
    assert 3.0 < limit < 10.0


def test_entropy_of_few_levels_does_not_collapse_onto_the_bulk() -> None:
    x = np.concatenate([normal(100_000) * 0.05, normal(20_000) * 2]).astype(np.float32)
    (limit,) = calibrated_range(statistics_of(x), INT4, "entropy")
    assert limit >= 0.99 * np.abs(x).max() / ENTROPY_SMALLEST_SHARE


def test_entropy_is_what_the_definition_gives() -> None:
    x = np.abs(normal(30_000)) ** 2
    statistics = statistics_of(x, bins=256)
    fmt = IntegerFormat(bits=4, signed=False, scale=None, vector_size=None)
    counts = statistics.counts[0].astype(np.float64)
    counts[0] = counts[1]
    used = int(np.flatnonzero(counts)[-1]) + 1
    smallest = max(fmt.qmax + 1, used // ENTROPY_SMALLEST_SHARE)
    divergences = {kept: divergence(counts, kept, fmt.qmax + 1) for kept in range(smallest, used + 1)}
    best = min(divergences.values())
    kept = max(kept for kept, value in divergences.items() if value <= best)
    (limit,) = calibrated_range(statistics, fmt, "entropy")
    assert limit == pytest.approx(min(kept * float(statistics.bin_width[0]), float(x.max())))


def divergence(counts: NDArray[np.float64], kept: int, levels: int) -> float:
    """KL of one candidate, bin by bin."""
    reference = counts[:kept].copy()
    reference[-1] += counts[kept:].sum()
    level = np.arange(kept) * levels // kept
    quantized = np.zeros(kept)
    for index in range(levels):
        members = (level == index) & (counts[:kept] > 0)
        if members.any():
            quantized[members] = counts[:kept][members].mean()
    p, q = reference / reference.sum(), quantized / quantized.sum()
    if ((p > 0) & (q == 0)).any():
        return math.inf
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@pytest.mark.parametrize("name", CALIBRATORS)
def test_groups_are_calibrated_alone(name: str) -> None:
    x = np.stack([normal(5000, seed=1), normal(5000, seed=2) * 40])
    together = calibrated_range(statistics_of(x, groups=2), INT4, name)
    alone = [calibrated_range(statistics_of(row), INT4, name)[0] for row in x]
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("fmt", [INT4, UINT4, INT8], ids=str)
def test_constant_input_is_not_clipped_much(name: str, fmt: IntegerFormat) -> None:
    (limit,) = calibrated_range(statistics_of(np.full(100, 0.3, dtype=np.float32)), fmt, name)
    assert limit == pytest.approx(0.3, rel=0.002) or name == "mse"
    assert squared_error(np.full(1, 0.3, dtype=np.float32), fmt, limit) < 1e-4


def test_unsigned_ranges_ignore_negative_values() -> None:
    x = np.concatenate([normal(10_000), [-50.0]]).astype(np.float32)
    for name in CALIBRATORS:
        (limit,) = calibrated_range(statistics_of(x), UINT4, name)
        clipped = np.concatenate([np.maximum(x, 0), [0.0]]).astype(np.float32)
        (same,) = calibrated_range(statistics_of(clipped), UINT4, name)
        assert limit == pytest.approx(same, rel=0.02), name


def test_no_observation_names_the_layer() -> None:
    with pytest.raises(CalibrationError, match="layer 'conv1' must see calibration data, not none at all"):
        calibrated_range(RangeObserver("conv1").statistics(), INT4)


def test_zeros_only_name_the_layer_and_the_group() -> None:
    with pytest.raises(CalibrationError, match="layer 'conv1' must see a non-zero value in calibration"):
        calibrated_range(statistics_of(torch.zeros(7)), INT4)
    with pytest.raises(CalibrationError, match="layer 'conv1', group 1, must see a non-zero value"):
        calibrated_range(statistics_of(torch.tensor([[1.0], [0.0]]), groups=2), INT4, "mse")
    with pytest.raises(CalibrationError, match="must see a positive value in calibration"):
        calibrated_range(statistics_of(torch.tensor([-1.0])), UINT4)


@pytest.mark.parametrize("name", ["Max", "percentile", "percentile-", "percentile-9x", "kl"])
def test_unknown_calibrators_are_refused(name: str) -> None:
    with pytest.raises(CalibrationError, match=r"calibrator must be one of max, .* or percentile-P .*, not '"):
        calibrated_range(statistics_of(torch.ones(3)), INT4, name)


@pytest.mark.parametrize("percent", ["50", "100.1", "3"])
def test_percent_out_of_range_is_refused(percent: str) -> None:
    with pytest.raises(CalibrationError, match=f"must be above 50 and at most 100, not {percent}"):
        calibrated_range(statistics_of(torch.ones(3)), INT4, f"percentile-{percent}")
