"""Scale mode best-of-three as operators: the codes and scales of the definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vsquant import kernels, reference
from vsquant.kernels.format_text import format_text
from vsquant.spec.formats import IntegerFormat

FORMATS = [
    IntegerFormat(bits=bits, scale=scale, vector_size=size, signed=signed)
    for bits, scale, size in ((2, 2, 2), (4, 4, 16), (4, 6, 5), (8, 3, 16), (6, 10, 64))
    for signed in (False, True)
]
every_format = pytest.mark.parametrize("fmt", FORMATS, ids=format_text)


def activations(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * torch.randn(*shape[:2], 1, generator=generator).exp()


@pytest.mark.parametrize("share", ["group", "row"])
@pytest.mark.parametrize("length", [1, 48, 67])
@every_format
def test_the_same_as_the_definition(fmt, length, share):
    x = activations(3, 4, length)
    x[1, 0] = 0
    x[2] *= 1e-30
    found = kernels.quantize(x, fmt, share=share, scale_mode="best-of-three")
    values = kernels.fake_quantize(x, fmt, share=share, scale_mode="best-of-three")
    for group, rows in enumerate(x):
        expected = reference.quantize(
            rows.numpy(), fmt, "tensor" if share == "group" else "row", scale_mode="best-of-three"
        )
        assert np.array_equal(found.codes[group].numpy(), expected.codes)
        assert np.array_equal(found.vector_scale[group].numpy(), expected.vector_scale)
        assert np.array_equal(found.coarse_scale[group].numpy(), expected.coarse_scale)
        assert np.array_equal(values[group].numpy(), expected.dequantize())


@every_format
def test_a_calibrated_range(fmt):
    x, range_ = activations(2, 3, 40, seed=1), torch.tensor([0.8])
    found = kernels.quantize(x, fmt, coarse_range=range_, scale_mode="best-of-three")
    for group, rows in enumerate(x):
        expected = reference.quantize(rows.numpy(), fmt, scale_mode="best-of-three", coarse_range=range_.numpy())
        assert np.array_equal(found.codes[group].numpy(), expected.codes)


@pytest.mark.parametrize("shape", [(0, 1, 16), (2, 0, 16), (2, 3, 0)])
def test_empty_tensors(shape):
    fmt = FORMATS[2]
    assert kernels.fake_quantize(torch.ones(shape), fmt, scale_mode="best-of-three").shape == shape
    codes = kernels.quantize(torch.ones(shape), fmt, scale_mode="best-of-three").codes
    assert codes.shape == (*shape[:2], shape[2] // 16, 16)


def test_results_into_given_memory_and_gradients():
    fmt, x = FORMATS[3], activations(2, 3, 32)
    expected = kernels.fake_quantize(x, fmt, scale_mode="best-of-three")
    assert torch.equal(kernels.fake_quantize(x, fmt, scale_mode="best-of-three", out=torch.empty_like(x)), expected)
    quantized = kernels.quantize(x, fmt, scale_mode="best-of-three")
    out = kernels.QuantizedTensor(*(torch.empty_like(part) for part in quantized))
    kernels.quantize(x, fmt, scale_mode="best-of-three", out=out)
    assert all(torch.equal(a, b) for a, b in zip(out, quantized, strict=True))
    learned = x.clone().requires_grad_()
    kernels.fake_quantize(learned, fmt, scale_mode="best-of-three").sum().backward()
    assert torch.equal(learned.grad, torch.ones_like(x))


def test_without_integer_scales_it_is_requantize():
    x = activations(2, 3, 32)
    for fmt in (
        IntegerFormat(bits=4, vector_size=None, scale=None),
        IntegerFormat(bits=4, scale="fp32", vector_size=16),
    ):
        both = [kernels.fake_quantize(x, fmt, scale_mode=mode) for mode in ("requantize", "best-of-three")]
        assert torch.equal(*both)


def test_pytorch_accepts_the_operators():
    x, text = activations(2, 3, 20), format_text(FORMATS[2])
    for range_ in (None, torch.tensor([1.0])):
        torch.library.opcheck(torch.ops.vsquant.fake_quantize_best_of_three.default, (x, range_, text, "row"))
        torch.library.opcheck(torch.ops.vsquant.quantize_best_of_three.default, (x, range_, text, "row"))
