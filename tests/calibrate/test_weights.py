from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vsquant.calibrate import range_scale, weight_range
from vsquant.calibrate.weights import CLIP_RATIOS
from vsquant.errors import CalibrationError, NonFiniteError, ShapeError
from vsquant.spec.formats import IntegerFormat

FORMATS = [
    IntegerFormat(bits=bits, scale=None, vector_size=None, full_range=full) for bits in (2, 3, 4, 8) for full in (0, 1)
]


def weights(rows: int = 6, columns: int = 100, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def errors(rows: Tensor, ranges: Tensor, fmt: IntegerFormat) -> Tensor:
    scale = range_scale(rows, ranges, fmt)[:, None]
    quantized = (rows / scale).round().clamp(fmt.qmin, fmt.qmax) * scale
    return (quantized.double() - rows.double()).square().sum(dim=1)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_mse_is_the_best_of_its_candidates_row_by_row(fmt: IntegerFormat) -> None:
    rows = weights()
    rows[0, 0] = 30.0
    full = weight_range(rows, fmt)
    best = errors(rows, weight_range(rows, fmt, "mse"), fmt)
    candidates = torch.stack([errors(rows, full * ratio, fmt) for ratio in CLIP_RATIOS])
    torch.testing.assert_close(best, candidates.min(dim=0).values, rtol=1e-5, atol=0)
    assert (best <= errors(rows, full, fmt) * (1 + 1e-6)).all()


def test_low_bits_clip_an_outlier() -> None:
    rows = weights(rows=1, columns=1000)
    rows[0, 0] = 10.0
    fmt = IntegerFormat(bits=4, scale=None, vector_size=None)
    assert weight_range(rows, fmt)[0] == 10.0
    assert weight_range(rows, fmt, "mse")[0] < 5.0


def test_there_are_enough_candidates() -> None:
    assert len(CLIP_RATIOS) >= 60
    assert min(CLIP_RATIOS) == 0.2
    assert max(CLIP_RATIOS) == 1.0


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, fmt = weights(rows=50), FORMATS[4]
    whole = weight_range(rows, fmt, "mse")
    monkeypatch.setattr("vsquant.calibrate.weights._CHUNK_ELEMENTS", 300)
    assert torch.equal(weight_range(rows, fmt, "mse"), whole)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.sampled_from(FORMATS))
@settings(max_examples=200, deadline=None)
def test_max_scale_is_eq_2(values: list[float], fmt: IntegerFormat) -> None:
    x = np.array([values], dtype=np.float32)
    rows = torch.from_numpy(x)
    high, low = np.float32(max(x.max(), 0)), np.float32(max(-x.min(), 0))
    plain = max(high, low) / np.float32(fmt.qmax)
    full = max(high / np.float32(fmt.qmax), low / np.float32(2 ** (fmt.bits - 1)))
    assert range_scale(rows, weight_range(rows, fmt), fmt)[0].item() == (full if fmt.full_range else plain)


def test_full_range_scale_of_clamped_values() -> None:
    fmt = IntegerFormat(bits=3, scale=None, vector_size=None, full_range=True)
    rows = torch.tensor([[-8.0, 3.0], [-8.0, 7.5], [1.0, 2.0]])
    assert range_scale(rows, torch.tensor([4.0, 6.0, 2.0]), fmt).tolist() == [1.0, 2.0, pytest.approx(2 / 3)]


@pytest.mark.parametrize("method", ["max", "mse"])
def test_zeros_and_empty_rows(method: str) -> None:
    fmt = FORMATS[2]
    assert weight_range(torch.zeros(3, 5), fmt, method).tolist() == [0.0, 0.0, 0.0]  # type: ignore[arg-type]
    assert weight_range(torch.zeros(3, 0), fmt, method).tolist() == [0.0, 0.0, 0.0]  # type: ignore[arg-type]
    assert weight_range(torch.zeros(0, 5), fmt, method).shape == (0,)  # type: ignore[arg-type]


def test_low_precision_weights_are_ranged_in_float32() -> None:
    rows = weights().to(torch.bfloat16)
    assert weight_range(rows, FORMATS[4], "mse").dtype == torch.float32
    assert torch.equal(weight_range(rows, FORMATS[4], "mse"), weight_range(rows.float(), FORMATS[4], "mse"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_weights_name_the_channel(bad: float) -> None:
    rows = weights()
    rows[4, 7] = bad
    with pytest.raises(NonFiniteError, match="not NaN or Inf in output channel 4"):
        weight_range(rows, FORMATS[0])


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"weights must have shape \(channels, elements\), not \(2, 3, 4\)"):
        weight_range(torch.zeros(2, 3, 4), FORMATS[0])
    with pytest.raises(CalibrationError, match="must be 'max' or 'mse', not 'kl'"):
        weight_range(torch.zeros(2, 3), FORMATS[0], "kl")  # type: ignore[arg-type]
