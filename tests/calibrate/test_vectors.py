"""Ranges of activations with vector scales by squared error, and the sampling they are chosen on."""

import numpy as np
import pytest
import torch

from vsquant import reference
from vsquant.calibrate import RowSample, vector_range
from vsquant.calibrate.vectors import RANGE_RATIOS
from vsquant.errors import CalibrationError, ShapeError
from vsquant.spec import LayerSpec


@pytest.mark.parametrize("sizes", [[1000], [1] * 1000, [333, 0, 600, 67]])
def test_sampled_rows_do_not_depend_on_batches(sizes):
    rows = torch.arange(3000.0).view(1000, 3)
    sample = RowSample(3, elements=300)
    for part in rows.split(sizes):
        sample.add(part)
    assert torch.equal(sample.rows, rows[::27])


def test_a_sample_keeps_everything_that_fits_and_at_least_one_row():
    sample = RowSample(4, elements=40)
    sample.add(torch.ones(10, 4))
    assert len(sample.rows) == 10
    long = RowSample(4, elements=1)
    long.add(torch.ones(10, 4))
    assert len(long.rows) == 1


def test_rows_of_another_length_are_refused():
    with pytest.raises(ShapeError, match=r"rows must be \(rows, 4\), not of shape \(2, 3\)"):
        RowSample(4).add(torch.zeros(2, 3))


@pytest.mark.parametrize("spec", ["w4a3u-s4/2", "w4a4-s4/2", "w4a4-s4/4"])
def test_the_range_is_the_best_of_all_candidates_by_the_definition(spec):
    fmt = LayerSpec.parse(spec).activation
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(200, 32, generator=generator) * torch.randn(200, 1, generator=generator).exp()
    largest = float(rows.max() if not fmt.signed else rows.abs().max())
    chosen = vector_range(rows, fmt, largest, "layer")
    ranges = [np.float32(ratio * largest) for ratio in RANGE_RATIOS]
    errors = [
        float(
            ((reference.quantize(rows.numpy(), fmt, "tensor", coarse_range=a).dequantize() - rows.numpy()) ** 2).sum()
        )
        for a in ranges
    ]
    assert chosen.dtype == np.float32
    assert chosen.shape == (1,)
    assert errors[ranges.index(chosen[0])] == pytest.approx(min(errors), rel=1e-6)


def test_one_vector_far_beyond_the_others_is_clipped():
    fmt = LayerSpec.parse("w4a4-s4/2").activation
    rows = torch.randn(5000, 16, generator=torch.Generator().manual_seed(2))
    rows[0] *= 2
    largest = float(rows.abs().max())
    assert vector_range(rows, fmt, largest, "layer")[0] < 0.7 * largest


def test_without_rows_there_is_no_range():
    with pytest.raises(CalibrationError, match="layer 'fc' must have sampled rows to choose a range from, not none"):
        vector_range(torch.zeros(0, 16), LayerSpec.parse("w4a4-s4/4").activation, 1.0, "fc")
