"""Native linear layers on floats: within the bound that summing in float32, in whatever order, derives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant import LayerSpec, kernels
from vsquant.kernels import Epilogue, Walk, native
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
    "w4a16-s4/x-v8",
    "w6a16-s6/x-v20",
    "w4a16-sfp16/x",
    "w8a16-sfp32/x-v24",
]
WALKS: dict[str, tuple[Walk, int, int, tuple[int, int]]] = {
    "1x1": (Walk(), 40, 24, (5, 4)),
    "1x1 on one pixel of stride 2": (Walk(stride=(2, 2)), 33, 40, (1, 1)),
    "1x1 whose padding hides it": (Walk(stride=(2, 2), padding=(1, 0, 1, 0)), 33, 40, (1, 1)),
    "3x3": (Walk(kernel=(3, 3), padding=(1, 1, 1, 1)), 36, 17, (9, 13)),
    "dilation, uneven padding": (
        Walk(kernel=(3, 2), stride=(2, 1), padding=(0, 1, 2, 0), dilation=(2, 3)),
        33,
        8,
        (9, 8),
    ),
    "2 groups": (Walk(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1), groups=2), 40, 6, (7, 7)),
    "stem": (Walk(kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3)), 3, 70, (13, 14)),
    "depthwise": (Walk(kernel=(3, 3), padding=(1, 1, 1, 1), groups=20), 20, 20, (6, 7)),
    "depthwise, three outputs a channel": (
        Walk(kernel=(5, 5), padding=(2, 2, 2, 2), stride=(2, 2), groups=30),
        30,
        90,
        (9, 6),
    ),
}
SHAPES = [
    (1, 1, 16, 16),
    (1, 2, 40, 37),
    (2, 3, 130, 7),
    (1, 12, 64, 70),
    (3, 9, 384, 48),
    (1, 101, 530, 33),
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


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("name", WALKS)
@pytest.mark.parametrize("text", SPECS)
def test_convolutions_on_floats(text: str, name: str, dtype: torch.dtype) -> None:
    spec, (walk, channels, outputs, size) = LayerSpec.parse(text), WALKS[name]
    shape = (outputs, channels // walk.groups, *walk.kernel)
    weight = torch.randn(shape)
    q = quantize_weight(weight + weight.sign() / 64, spec.weight, name="layer")  # no scale too small for fp16
    packed = kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, spec.weight, shape, groups=walk.groups)
    values, bias = q.dequantize(shape).double(), torch.randn(outputs)
    top, bottom, left, right = walk.padding
    for samples in (2, 0):
        x = torch.randn(samples, *size, channels).to(dtype)
        padded = F.pad(x.double().permute(0, 3, 1, 2), [left, right, top, bottom])

        def product(x: Tensor, weight: Tensor) -> Tensor:
            y = F.conv2d(x, weight, None, walk.stride, 0, walk.dilation, walk.groups)
            return y.permute(0, 2, 3, 1)

        exact = torch.relu(product(padded, values) + bias)
        terms = product(padded.abs(), values.abs()) + bias.abs()
        bound = (values[0].numel() + 8) * UNIT * terms + ROUNDING[dtype] * exact + 1e-30
        out = torch.full(exact.shape, float("nan"), dtype=dtype)
        for given in (None, out):
            y = kernels.layer_outputs(
                x, packed, spec, epilogue=Epilogue(bias=bias, function="relu"), walk=walk, backend="cpu", out=given
            )
            assert y.dtype == dtype
            assert y.shape == exact.shape
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
