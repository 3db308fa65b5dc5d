"""Error feedback on arrays: against its definition, and against rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vsquant import ErrorFeedback, LayerSpec, kernels
from vsquant.errors import CalibrationError
from vsquant.optimize.columns import Columns
from vsquant.optimize.error_feedback import damped_cholesky, error_feedback, inverse_factor
from vsquant.optimize.error_feedback_plain import plain_error_feedback
from vsquant.spec.formats import IntegerFormat

FORMATS = (
    "w4a16-s4/x",
    "w3a16-s6/x",
    "w4a16-s4/x-v4",
    "w2a16-s3/x-v5-full",
    "w3a16-s4/x-v8-full-top-g16",
    "w4a16-sfp32/x-v8",
    "w4a16-sfp16/x-v8",
    "w4a16",
    "w3a16-full",
    "w8a16-s10/x-v8",
)
METHODS = (
    ErrorFeedback(),
    ErrorFeedback(order="none"),
    ErrorFeedback(order="none", scales="requantize", damping=0.1),
)


def weight_format(text: str) -> IntegerFormat:
    fmt = LayerSpec.parse(text).weight
    assert isinstance(fmt, IntegerFormat)
    return fmt


def correlated(rows: int, length: int, *, seed: int, exponent: float = 1.0) -> Tensor:
    """Inputs whose covariance has random directions and eigenvalues i^-exponent."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(length, length, generator=generator)).Q
    spread = torch.arange(1, length + 1) ** (-exponent / 2)
    return (torch.randn(rows, length, generator=generator) * spread) @ directions.T


def hessian_of(x: Tensor) -> Tensor:
    return (2 / len(x) * x.double().T @ x.double()).unsqueeze(0)


def poster_weights(outputs: int, vectors: int, *, seed: int) -> Tensor:
    """w = z * exp(0.5 u), z per element and u per vector of 16 standard normal; (outputs, 1, length)."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(outputs, vectors, 16, generator=generator)
    u = torch.randn(outputs, vectors, 1, generator=generator)
    return (z * torch.exp(0.5 * u)).reshape(outputs, 1, -1)


def coarse(weight: Tensor, fmt: IntegerFormat) -> Tensor | None:
    scale = kernels.quantize(weight, fmt).coarse_scale
    return None if scale is None else scale.reshape(-1)


def output_snr(weight: Tensor, quantized: kernels.QuantizedTensor, x: Tensor) -> float:
    lost = weight - kernels.dequantize(quantized, weight.shape[2])
    return float(10 * torch.log10((x @ weight[:, 0].T).square().sum() / (x @ lost[:, 0].T).square().sum()))


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_equals_the_definition_bit_for_bit(text: str, method: ErrorFeedback) -> None:
    """Two kernel positions of 11 channels, so that every vector size leaves a tail, in two groups."""
    fmt = weight_format(text)
    columns = Columns(positions=2, channels=11, vector_size=fmt.vector_size)
    weight = torch.randn(6, 2, 11, generator=torch.Generator().manual_seed(1))
    hessian = torch.cat([hessian_of(correlated(64, 22, seed=seed)) for seed in (2, 3)])
    gamma = coarse(weight, fmt)
    settled = error_feedback(weight, hessian, fmt, method, gamma)
    priority = hessian.diagonal(dim1=1, dim2=2).mean(dim=0) if method.order == "activation" else None
    units = [unit.numpy() for unit in columns.units(priority)]
    for group, rows in enumerate((slice(0, 3), slice(3, 6))):
        scale = None if gamma is None else gamma[rows].numpy()
        plain = plain_error_feedback(weight[rows].flatten(1).numpy(), hessian[group].numpy(), units, fmt, method, scale)
        np.testing.assert_array_equal(by_column(settled.weight.codes[rows], columns), plain.codes)
        np.testing.assert_allclose(settled.loss[rows].numpy(), plain.loss, rtol=1e-9)
        if settled.weight.vector_scale is not None:
            scales = settled.weight.vector_scale[rows].unsqueeze(-1).expand(-1, -1, -1, fmt.vector_size)
            np.testing.assert_array_equal(by_column(scales, columns), plain.scales)


def by_column(values: Tensor, columns: Columns) -> np.ndarray:
    """(rows, positions, vectors, V) as (rows, length), without the padding of tails."""
    return values.flatten(2)[..., : columns.channels].flatten(1).numpy()


@pytest.mark.parametrize("text", FORMATS)
def test_loss_is_the_quadratic_form(text: str) -> None:
    fmt = weight_format(text)
    weight, hessian = poster_weights(8, 3, seed=4), hessian_of(correlated(100, 48, seed=5))
    settled = error_feedback(weight, hessian, fmt, ErrorFeedback(), coarse(weight, fmt))
    lost = (weight - kernels.dequantize(settled.weight, 48))[:, 0].double()
    damped = hessian[0] + 0.01 * hessian[0].diagonal().mean() * torch.eye(48)
    torch.testing.assert_close(settled.loss, ((lost @ damped) * lost).sum(dim=1), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("text", [text for text in FORMATS if "fp16" not in text])
def test_without_correlation_requantize_is_rounding(text: str) -> None:
    """Nothing is fed back under a diagonal Hessian: the codes and scales are those of eqs. (1)-(5)."""
    fmt = weight_format(text)
    weight = poster_weights(5, 3, seed=6)
    hessian = torch.diag_embed(torch.rand(1, 48, generator=torch.Generator().manual_seed(7), dtype=torch.float64))
    rounded = kernels.quantize(weight, fmt)
    settled = error_feedback(weight, hessian, fmt, ErrorFeedback(scales="requantize"), coarse(weight, fmt))
    assert torch.equal(settled.weight.codes, rounded.codes)
    assert (settled.weight.vector_scale is None) == (rounded.vector_scale is None)
    if settled.weight.vector_scale is not None and rounded.vector_scale is not None:
        assert torch.equal(settled.weight.vector_scale, rounded.vector_scale)


@pytest.mark.parametrize(("text", "paper", "expected"), [("w4a16-s4/x", 19.5, 25.0), ("w3a16-s6/x", 13.9, 18.6)])
def test_gain_over_paper_on_correlated_inputs(text: str, paper: float, expected: float) -> None:
    """The figures of the docs: 128 outputs, input eigenvalues 1/i, 4096 rows to settle and 4096 others to measure."""
    fmt = weight_format(text)
    weight, x = poster_weights(128, 64, seed=0), correlated(8192, 1024, seed=1)
    rounded = kernels.quantize(weight, fmt, scale_mode="paper")
    assert output_snr(weight, rounded, x[4096:]) == pytest.approx(paper, abs=0.5)
    settled = error_feedback(weight, hessian_of(x[:4096]), fmt, ErrorFeedback(), coarse(weight, fmt))
    assert output_snr(weight, settled.weight, x[4096:]) > expected


def test_search_costs_less_than_requantize() -> None:
    weight, hessian = poster_weights(32, 8, seed=8), hessian_of(correlated(500, 128, seed=9))
    for text in ("w4a16-s4/x", "w3a16-s6/x", "w4a16-sfp32/x"):
        fmt = weight_format(text)
        loss = {
            scales: error_feedback(weight, hessian, fmt, ErrorFeedback(scales=scales), coarse(weight, fmt)).loss.sum()
            for scales in ("search", "requantize")
        }
        assert loss["search"] < loss["requantize"]


@pytest.mark.parametrize("text", FORMATS)
def test_result_stays_in_the_format(text: str) -> None:
    fmt = weight_format(text)
    weight = poster_weights(6, 2, seed=10)[:, :, :21]
    weight[0] = 0
    weight[1, :, :16] = 0
    settled = error_feedback(weight, hessian_of(correlated(30, 21, seed=11)), fmt, ErrorFeedback(), coarse(weight, fmt))
    codes, scale, _ = settled.weight
    assert fmt.qmin <= int(codes.min()) and int(codes.max()) <= fmt.qmax
    assert not codes[0].any()
    assert not codes.flatten(2)[..., 21:].any()
    if fmt.two_level:
        assert scale is not None and scale.dtype == torch.int16
        assert fmt.scale_min <= int(scale.min()) and int(scale.max()) <= fmt.scale_top
        assert torch.all((scale > 0) | (codes == 0).all(dim=3))
    if fmt.scale == "fp16":
        assert scale is not None and torch.equal(scale, scale.half().float())


def test_dead_columns_are_rounded_and_change_nothing() -> None:
    fmt = weight_format("w4a16-s4/x-v8")
    weight, x = poster_weights(16, 4, seed=12), correlated(200, 64, seed=13)
    x[:, 8:16] = 0
    settled = error_feedback(
        weight, hessian_of(x), fmt, ErrorFeedback(order="none", scales="requantize"), coarse(weight, fmt)
    )
    rounded = kernels.quantize(weight, fmt)
    assert torch.equal(settled.weight.codes[:, :, 1], rounded.codes[:, :, 1])
    assert not torch.equal(settled.weight.codes[:, :, 2], rounded.codes[:, :, 2])
    silent = error_feedback(weight, torch.zeros(1, 64, 64).double(), fmt, ErrorFeedback(), coarse(weight, fmt))
    assert bool(torch.isfinite(silent.loss).all())


def test_inverse_factor() -> None:
    hessian = torch.cat([hessian_of(correlated(50, 20, seed=seed)) for seed in (14, 15)])
    upper = inverse_factor(hessian, 0.01)
    lower = damped_cholesky(hessian, 0.01)
    assert torch.equal(upper, upper.triu())
    product = upper.transpose(1, 2) @ upper @ lower @ lower.transpose(1, 2)
    torch.testing.assert_close(product, torch.eye(20).double().expand(2, -1, -1), rtol=0, atol=1e-9)


def test_indefinite_hessian_says_what_to_do() -> None:
    with pytest.raises(CalibrationError, match=r"damping=0\.01 it is not; use a larger one"):
        inverse_factor(torch.tensor([[[1.0, 3.0], [3.0, 1.0]]], dtype=torch.float64), 0.01)


def test_units_keep_vectors_whole() -> None:
    columns = Columns(positions=2, channels=5, vector_size=3)
    assert [unit.tolist() for unit in columns.units(None)] == [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9]]
    priority = torch.tensor([0.0, 0, 0, 5, 5, 9, 0, 0, 1, 1])
    ordered = columns.units(priority)
    assert [unit.tolist() for unit in ordered] == [[3, 4], [5, 6, 7], [8, 9], [0, 1, 2]]
    assert [columns.vector_of(unit) for unit in ordered] == [1, 2, 3, 0]
    free = Columns(positions=1, channels=4, vector_size=None)
    assert torch.cat(free.units(torch.tensor([1.0, 3.0, 2.0, 3.0]))).tolist() == [1, 3, 2, 0]
