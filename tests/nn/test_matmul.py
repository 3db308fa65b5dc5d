"""Products of two activations: values of the reference, per head, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vsquant import reference
from vsquant.errors import CalibrationError, NonFiniteError, ShapeError, SpecError

RANGES = ([0.5, 1.0, 2.0], [1.0, 0.25, 3.0])


def dequantized(x: torch.Tensor, fmt, share: str, limits: list[float] | None) -> torch.Tensor:
    """The reference on every (sample, head)."""
    out = torch.empty_like(x)
    for n, h in np.ndindex(*x.shape[:2]):
        options = {} if limits is None else {"coarse_range": limits[h]}
        q = reference.quantize(x[n, h].contiguous().numpy(), fmt, share, **options)
        out[n, h] = torch.from_numpy(np.ascontiguousarray(q.dequantize()))
    return out


@pytest.mark.parametrize("unsigned", [True, False])
@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("w4a4-s4/6-v4", RANGES),
        ("w8a8", RANGES),
        ("w4a8-s4/8-tensor", None),
        ("w4a8-s4/8-v4-token", None),
        ("mxfp4", None),
    ],
)
def test_values_are_those_of_the_reference(make_matmul, text, ranges, unsigned):
    a, b = torch.rand(2, 3, 5, 18) if unsigned else torch.randn(2, 3, 5, 18), torch.randn(2, 3, 18, 4)
    layer = make_matmul(text, unsigned_a=unsigned, ranges=ranges)
    share = "row" if layer.spec.gamma == "token" else "tensor"
    left = dequantized(a, layer.format_a, share, ranges and ranges[0])
    right = dequantized(b.transpose(-1, -2), layer.format_b, share, ranges and ranges[1]).transpose(-1, -2)
    magnitude = left.abs().double() @ right.abs().double()
    error = (layer(a, b).double() - left.double() @ right.double()).abs()
    assert (error <= 20 * 2.0**-24 * magnitude).all()


def test_only_probabilities_are_unsigned(make_matmul):
    layer = make_matmul("w4a4u-s4/6-tensor", unsigned_a=True)
    assert (layer.format_a.signed, layer.format_b.signed) == (False, True)
    layer = make_matmul("w4a4u-s4/6-tensor")
    assert (layer.format_a.signed, layer.format_b.signed) == (True, True)


@pytest.mark.parametrize("text", ["w4a4-s4/6", "w4a4-s4/6-p6", "w4a4-s4/6-tensor", "w4a4-s4/6-p6-token"])
def test_a_sample_does_not_depend_on_its_batch(make_matmul, quantized_inputs, text):
    layer = make_matmul(text, ranges=RANGES)
    a, b = torch.randn(4, 3, 5, 16), torch.randn(4, 3, 16, 4)
    a[1] *= 50
    together = layer(a, b)
    for n in range(4):
        alone = layer(a[n : n + 1], b[n : n + 1])
        if layer.spec.product_bits is not None:
            assert torch.equal(alone[0], together[n])
            continue
        for whole, part in zip(quantized_inputs[:2], quantized_inputs[-2:], strict=True):
            assert torch.equal(part, whole[3 * n : 3 * n + 3])


def test_a_bfloat16_model_keeps_float32_ranges(make_matmul):
    layer = make_matmul("w4a4-s4/6", ranges=([0.3], [0.7])).to(torch.bfloat16)
    assert layer.range_a.dtype == layer.range_b.dtype == torch.float32
    assert layer.range_a.item() == float(np.float32(0.3))
    assert layer(torch.ones(1, 1, 2, 16).bfloat16(), torch.ones(1, 1, 16, 2).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("text", ["w4a8-s4/8-tensor", "w4a8-s4/8-p6-tensor"])
def test_the_gradient_reaches_both_operands(make_matmul, text):
    layer = make_matmul(text)
    a, b = torch.randn(1, 2, 3, 16, requires_grad=True), torch.randn(1, 2, 16, 3, requires_grad=True)
    layer(a, b).sum().backward()
    torch.testing.assert_close(a.grad, b.sum(-1).unsqueeze(2).expand_as(a), rtol=0.05, atol=0.5)
    assert b.grad.abs().sum() > 0


def test_bad_operands_name_the_matmul(make_matmul):
    for text in ("w4a4-s4/6", "w4a4-s4/6-p6"):
        layer = make_matmul(text, ranges=RANGES)
        with pytest.raises(NonFiniteError, match=r"^operand of matmul 'attention.scores': .* it holds NaN"):
            layer(torch.full((1, 3, 2, 16), torch.nan), torch.ones(1, 3, 16, 2))
        with pytest.raises(ShapeError, match=r"^operand of matmul 'attention.scores': coarse_range .* per group \(2\)"):
            layer(torch.ones(1, 2, 2, 16), torch.ones(1, 2, 16, 2))


def test_specs_without_activations_or_ranges_are_refused(make_matmul):
    with pytest.raises(
        SpecError, match=r"'attention.scores': both operands are activations, so the spec must quantize"
    ):
        make_matmul("w4a16-s4/x")
    with pytest.raises(
        CalibrationError, match=r"'attention.scores' has static activation scales .* must be calibrated"
    ):
        make_matmul("w4a4-s4/6")
