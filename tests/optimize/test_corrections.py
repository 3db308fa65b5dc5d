"""Moments in a stream, and the corrections made of them."""

import pytest
import torch

from vsquant.errors import CalibrationError, ShapeError
from vsquant.optimize.corrections import ChannelMoments, mean_correction, moment_correction


def _moments(*parts):
    moments = ChannelMoments(parts[0].shape[1])
    for part in parts:
        moments.add(part)
    return moments


@pytest.mark.parametrize("sizes", [[100], [1, 99], [33, 0, 50, 17]])
def test_moments_do_not_depend_on_how_rows_come(sizes):
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(1)) * 5 + 1e4
    moments = _moments(*rows.split(sizes))
    torch.testing.assert_close(moments.mean, rows.double().mean(0))
    torch.testing.assert_close(moments.variance, rows.double().var(0, unbiased=False))


def test_bias_correction_makes_means_equal():
    generator = torch.Generator().manual_seed(2)
    wanted, given = torch.randn(50, 4, generator=generator), torch.randn(50, 4, generator=generator) * 2 + 3
    correction = mean_correction(_moments(wanted), _moments(given))
    assert torch.equal(correction.scale, torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close((given + correction.shift).mean(0), wanted.double().mean(0))


def test_reestimation_makes_means_and_variances_equal():
    generator = torch.Generator().manual_seed(3)
    wanted, given = torch.randn(50, 4, generator=generator), torch.randn(50, 4, generator=generator) * 2 + 3
    correction = moment_correction(_moments(wanted), _moments(given))
    corrected = given * correction.scale + correction.shift
    torch.testing.assert_close(corrected.mean(0), wanted.double().mean(0), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(corrected.var(0), wanted.double().var(0))


def test_reestimation_equals_a_batch_norm_estimated_anew_on_the_quantized_outputs():
    generator = torch.Generator().manual_seed(4)
    given = torch.randn(400, 4, generator=generator) * 1.3 + 0.2
    wanted = given * torch.tensor([0.5, 1.0, 2.0, 3.0]) + 0.7
    gain, offset = wanted.double().std(0, unbiased=False), wanted.double().mean(0)
    anew = (given - given.double().mean(0)) / given.double().std(0, unbiased=False) * gain + offset
    correction = moment_correction(_moments(wanted), _moments(given))
    torch.testing.assert_close(given * correction.scale + correction.shift, anew, atol=1e-6, rtol=1e-6)


def test_a_constant_channel_keeps_its_scale():
    wanted, given = torch.zeros(5, 2), torch.zeros(5, 2)
    wanted[:, 1], given[:, 0] = 2.0, torch.arange(5.0)
    correction = moment_correction(_moments(wanted), _moments(given))
    assert correction.scale.tolist() == [1.0, 1.0]
    assert correction.shift.tolist() == [-2.0, 2.0]


def test_what_moments_refuse():
    with pytest.raises(ShapeError, match=r"rows must be \(rows, 3\), not of shape \(2, 4\)"):
        ChannelMoments(3).add(torch.zeros(2, 4))
    with pytest.raises(CalibrationError, match="moments must be of at least one sample, not none"):
        _ = ChannelMoments(3).mean
