"""Native linear layers on floats: within the bound that summing in float32, in whatever order, derives."""

from __future__ import annotations

import pytest
import torch

from vsquant import LayerSpec, kernels
from vsquant.kernels import Epilogue, native
from vsquant.nn import quantize_weight

pytestmark = pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native library was not built")

UNIT = 2.0**-24
SPECS = [
    "w4a16-s4/x",
    "w4a16-s6/x-full",
    "w4a16-s10/x-v32",
    "w4a16",
    "w8a16",
    "w8a16-s8/x",
    "w2a16-s4/x-top",
    "w5a16-s4/x-v64",
]
SHAPES = [
    (1, 1, 16, 16),
    (1, 2, 40, 37),
    (2, 3, 130, 7),
    (1, 12, 64, 70),
    (3, 9, 384, 48),
    (0, 3, 16, 8),
]
ROUNDING = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("text", SPECS)
def test_linear_layers_on_floats(text: str, dtype: torch.dtype) -> None:
    spec = LayerSpec.parse(text)
    for samples, rows, channels, outputs in SHAPES:
        x, weight = torch.randn(samples, rows, channels).to(dtype), torch.randn(outputs, channels)
        q = quantize_weight(weight, spec.weight, name="layer")
        packed = kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, spec.weight, tuple(weight.shape))
        values, bias = q.dequantize(weight.shape).double(), torch.randn(outputs)
        residual = torch.randn(samples, rows, outputs)
        exact = torch.relu(x.double() @ values.T + bias + residual)
        # C products and sums, three roundings of each weight, and the three operations that follow.
        terms = x.double().abs() @ values.T.abs() + bias.abs() + residual.abs()
        bound = (channels + 8) * UNIT * terms + ROUNDING[dtype] * exact + 1e-30
        epilogue = Epilogue(bias=bias, residual=residual, function="relu")
        out = torch.full((samples, rows, outputs), float("nan"), dtype=dtype)
        for given in (None, out):
            y = kernels.layer_outputs(x, packed, spec, epilogue=epilogue, backend="cpu", out=given)
            assert y.dtype == dtype
            assert bool(((y.double() - exact).abs() <= bound).all())


def test_threads_give_the_same_bits() -> None:
    spec = LayerSpec.parse("w4a16-s4/x")
    weight, x = torch.randn(200, 112), torch.randn(2, 110, 112)
    q = quantize_weight(weight, spec.weight, name="layer")
    packed = kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, spec.weight, tuple(weight.shape))
    one = kernels.layer_outputs(x, packed, spec, backend="cpu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in range(5):
            assert torch.equal(kernels.layer_outputs(x, packed, spec, backend="cpu"), one)
    finally:
        torch.set_num_threads(before)
