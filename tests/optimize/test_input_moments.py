"""Moments of a layer's input: streamed in parts they are those of all rows, and a convolution's rows are its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vsquant.errors import CalibrationError, NonFiniteError, ShapeError
from vsquant.optimize import input_moments
from vsquant.optimize.input_moments import InputMoments, conv_rows, linear_rows, samples_at_once


@pytest.mark.parametrize("centred", [False, True])
def test_streamed_moments_are_those_of_all_rows(monkeypatch: pytest.MonkeyPatch, centred: bool) -> None:
    monkeypatch.setattr(input_moments, "CHUNK_ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 100, 7, generator=generator) + 1
    floats = rows + 0.1 * torch.randn(2, 100, 7, generator=generator) + 0.2
    moments = InputMoments("layer", groups=2, length=7)
    for part, wanted in zip(rows.split(33, dim=1), floats.split(33, dim=1), strict=True):
        moments.add(part, wanted)
    moments.add(rows[:, :0])
    x, d = rows.double(), (floats - rows).double()
    torch.testing.assert_close(moments.mean(), x.mean(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(moments.mean_deviation(), d.mean(1), rtol=0, atol=1e-6)
    shift = x.mean(1, keepdim=True) if centred else 0
    expected = 2 / 100 * (x - shift).transpose(1, 2) @ (x - shift)
    torch.testing.assert_close(moments.hessian(centred=centred), expected, rtol=0, atol=1e-5)
    expected = 2 / 100 * d.transpose(1, 2) @ (x - shift)
    torch.testing.assert_close(moments.deviation(centred=centred), expected, rtol=0, atol=1e-5)


def test_error_of_float32_products_is_bounded() -> None:
    x = torch.randn(1, 3 * input_moments.CHUNK_ROWS, 5, generator=torch.Generator().manual_seed(1)) * 100
    moments = InputMoments("layer", groups=1, length=5)
    moments.add(x)
    exact = x.double().transpose(1, 2) @ x.double() * 2 / x.shape[1]
    magnitude = x.double().abs().transpose(1, 2) @ x.double().abs() * 2 / x.shape[1]
    bound = input_moments.CHUNK_ROWS * 2.0**-23 * magnitude
    assert torch.all((moments.hessian(centred=False) - exact).abs() <= bound)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "dilation", "groups"),
    [
        ((2, 6, 7, 5), (3, 2), (2, 1), (1, 2), 1),
        ((3, 6, 5, 5), (3, 3), (1, 1), (1, 1), 3),
        ((2, 4, 9), (3,), (2,), (1,), 2),
    ],
)
def test_conv_rows_times_the_weight_is_the_convolution(
    shape: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(6, shape[1] // groups, *kernel, generator=generator)
    rows = conv_rows(x, kernel=kernel, stride=stride, dilation=dilation, groups=groups)
    flat = weight.flatten(2).transpose(1, 2).reshape(groups, 6 // groups, -1)
    y = (rows @ flat.transpose(1, 2)).movedim(1, 2).reshape(6, shape[0], -1).transpose(0, 1)
    convolve = F.conv2d if len(kernel) == 2 else F.conv1d
    expected = convolve(x, weight, None, stride, 0, dilation, groups)
    torch.testing.assert_close(y.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_linear_rows_and_samples_at_once() -> None:
    assert linear_rows(torch.zeros(2, 3, 4)).shape == (1, 6, 4)
    assert samples_at_once(1 << 12, 1 << 10) == 4
    assert samples_at_once(1 << 20, 1 << 10) == 1


def test_refusals_name_the_layer() -> None:
    moments = InputMoments("encoder.0", groups=1, length=3)
    with pytest.raises(CalibrationError, match=r"must reach layer 'encoder\.0'"):
        moments.hessian(centred=True)
    with pytest.raises(NonFiniteError, match=r"input of layer 'encoder\.0' must be finite"):
        moments.add(torch.tensor([[[1.0, float("nan"), 0.0]]]))
    with pytest.raises(ShapeError, match=r"\(groups=1, rows, columns=3\), not of shape \(1, 2, 4\)"):
        moments.add(torch.zeros(1, 2, 4))
    with pytest.raises(ShapeError, match=r"rows=2, columns=3\), not of shape \(1, 5, 3\)"):
        moments.add(torch.zeros(1, 2, 3), torch.zeros(1, 5, 3))
    assert moments.rows == 0
