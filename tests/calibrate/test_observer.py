from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vsquant.calibrate import RangeObserver, RangeStatistics
from vsquant.errors import CalibrationError, NonFiniteError, ShapeError

float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)
batches = st.lists(st.lists(float32s, max_size=12), min_size=1, max_size=6)


def observe(batch_list: list[torch.Tensor], *, groups: int = 1, bins: int = 64) -> RangeStatistics:
    observer = RangeObserver("layer", groups=groups, bins=bins)
    for batch in batch_list:
        observer.update(batch)
    return observer.statistics()


def tensors(values: list[list[float]]) -> list[torch.Tensor]:
    return [torch.tensor(part, dtype=torch.float32) for part in values]


def one_shot(values: NDArray[np.float32], width: float, bins: int) -> NDArray[np.int64]:
    edges = np.arange(bins + 1, dtype=np.float64) * width
    return np.histogram(np.abs(values.astype(np.float64)), bins=edges)[0]


@settings(max_examples=300, deadline=None)
@given(batches)
def test_streaming_histogram_is_the_histogram_of_everything_at_once(values: list[list[float]]) -> None:
    statistics = observe(tensors(values))
    flat = np.array([v for part in values for v in part], dtype=np.float32)
    assert statistics.total == len(flat)
    if len(flat) == 0:
        assert not statistics.is_non_negative
        return
    assert statistics.minimum[0] == flat.min()
    assert statistics.maximum[0] == flat.max()
    assert statistics.largest_magnitude[0] == np.abs(flat).max()
    assert statistics.is_non_negative == bool((flat >= 0).all())
    width = float(statistics.bin_width[0])
    if width == 0.0:
        assert not flat.any()
        assert statistics.counts[0].tolist() == [len(flat)] + [0] * 63
        return
    np.testing.assert_array_equal(statistics.counts[0], one_shot(flat, width, 64))
    np.testing.assert_array_equal(statistics.positive_counts[0], one_shot(np.maximum(flat, 0), width, 64))


@settings(max_examples=200, deadline=None)
@given(batches)
def test_neither_order_nor_batches_matter(values: list[list[float]]) -> None:
    flat = [v for part in values for v in part]
    shuffled = torch.tensor(sorted(flat), dtype=torch.float32)
    assert observe(tensors(values)).fingerprint() == observe([shuffled]).fingerprint()
    assert observe(tensors(values)).fingerprint() == observe(tensors(values)[::-1]).fingerprint()


def test_bin_width_is_the_smallest_power_of_two_that_fits() -> None:
    assert observe([torch.tensor([64.0])]).bin_width[0] == 2.0
    assert observe([torch.tensor([63.99])]).bin_width[0] == 1.0
    assert observe([torch.tensor([1e-3]), torch.tensor([63.99])]).bin_width[0] == 1.0


def test_extremes_of_float32_have_bins() -> None:
    largest = float(np.finfo(np.float32).max)
    statistics = observe([torch.tensor([math.ldexp(1.0, -149), -largest])])
    assert statistics.counts[0, 0] == 1
    assert statistics.counts[0, -1] == 1
    subnormal = observe([torch.full((3,), math.ldexp(1.0, -149))])
    assert subnormal.counts[0, 0] == 3
    assert subnormal.largest_magnitude[0] == np.float32(math.ldexp(1.0, -149))


def test_a_large_tensor_is_binned_whole() -> None:
    x = torch.randn(3, 100_001, generator=torch.Generator().manual_seed(0))
    statistics = observe([x], bins=8192)
    np.testing.assert_array_equal(
        statistics.counts[0], one_shot(x.numpy().ravel(), float(statistics.bin_width[0]), 8192)
    )


def test_each_group_is_observed_alone() -> None:
    x = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1.0], [100.0], [0.0]])
    statistics = observe([x[:, :300], x[:, 300:]], groups=3)
    assert statistics.groups == 3
    for group in range(3):
        alone = observe([x[group]])
        np.testing.assert_array_equal(statistics.counts[group], alone.counts[0])
        assert statistics.bin_width[group] == alone.bin_width[0]
        assert statistics.minimum[group] == alone.minimum[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_observed_as_float32(dtype: torch.dtype) -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert observe([x]).fingerprint() == observe([x.to(torch.float32)]).fingerprint()


def test_non_contiguous_and_requires_grad_inputs_are_observed() -> None:
    x = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    assert observe([x.T.clone().T.requires_grad_()]).fingerprint() == observe([x]).fingerprint()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_input_names_the_layer_and_changes_nothing(bad: float) -> None:
    observer = RangeObserver("encoder.0.query")
    observer.update(torch.ones(4))
    before = observer.statistics().fingerprint()
    with pytest.raises(NonFiniteError, match=r"the input of 'encoder\.0\.query' must be finite, not NaN or Inf"):
        observer.update(torch.tensor([1.0, bad, 2.0]))
    assert observer.statistics().fingerprint() == before


def test_wrong_shapes_are_refused() -> None:
    observer = RangeObserver("scores", groups=4)
    with pytest.raises(ShapeError, match=r"'scores' must have shape \(4, n\), not \(3, 5\)"):
        observer.update(torch.ones(3, 5))
    with pytest.raises(ShapeError, match="groups of the observer of 'a' must be at least 1, not 0"):
        RangeObserver("a", groups=0)
    with pytest.raises(ShapeError, match="must be an even number of at least 2, not 7"):
        RangeObserver("a", bins=7)


def test_statistics_are_a_snapshot() -> None:
    observer = RangeObserver("a")
    observer.update(torch.ones(4))
    statistics = observer.statistics()
    observer.update(torch.full((4,), -9.0))
    assert statistics.total == 4
    assert statistics.is_non_negative


def test_statistics_round_trip_through_arrays() -> None:
    statistics = observe([torch.randn(500, generator=torch.Generator().manual_seed(0))])
    again = RangeStatistics.from_arrays("layer", statistics.to_arrays())
    assert again.fingerprint() == statistics.fingerprint()
    assert RangeStatistics.from_arrays("other", statistics.to_arrays()).fingerprint() != statistics.fingerprint()


def test_damaged_statistics_are_refused() -> None:
    arrays = observe([torch.ones(5)]).to_arrays()
    with pytest.raises(CalibrationError, match="stored statistics of 'layer' must hold"):
        RangeStatistics.from_arrays("layer", {"counts": arrays["counts"]})
    with pytest.raises(CalibrationError, match=r"minimum of the statistics of 'layer' must have shape \(1,\)"):
        RangeStatistics.from_arrays("layer", {**arrays, "minimum": np.zeros(2, dtype=np.float32)})
    with pytest.raises(CalibrationError, match="counts of the statistics of 'layer' must be int64, not float32"):
        RangeStatistics.from_arrays("layer", {**arrays, "counts": arrays["counts"].astype(np.float32)})
