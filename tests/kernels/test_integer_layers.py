"""Integer layers against the reference: the same sums, and the same floats to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant import LayerSpec, kernels, reference
from vsquant.kernels import Epilogue, Walk
from vsquant.nn import quantize_weight
from vsquant.spec.formats import IntegerFormat

SPECS = [
    "w4a8-s4/x-token",
    "w4a8-s4/x-tensor",
    "w4a4-s4/4-tensor",
    "w4a4u-s4/6",
    "w4a8-s4/8-token",
    "w8a8-s10/10-tensor",
    "w8a8-tensor",
    "w8a8u",
    "w3a5-s5/x-full-top",
    "w4a8-s4/x-top",
    "w6a4-sx/4-v32-token",
    "w5a6-s8/3-v64-tensor",
    "w4a4-s4/4-v8-tensor",
    "w2a2-s2/2-v48",
    "w4a4-s4/6-p4-tensor",
    "w4a8-s4/6-v8-p6",
    "w8a4-s9/10-p3-top-token",
]
FLOAT_SCALE_SPECS = ["w4a4-sfp32/fp32", "w4a8-s6/fp16-full", "w4a6-sfp16/4-tensor", "w8a8-sfp32/x-token"]


def packed(weight: Tensor, fmt: IntegerFormat, groups: int = 1) -> kernels.PackedWeight:
    q = quantize_weight(weight, fmt, name="layer")
    return kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, fmt, tuple(weight.shape), groups=groups)


def normal(*shape: int, unsigned: bool = False) -> Tensor:
    x = torch.randn(*shape) * torch.randn(shape[-1]).exp()
    return x.abs() if unsigned else x


def static_range(spec: LayerSpec) -> Tensor | None:
    return torch.tensor([3.7]) if spec.gamma == "static" and spec.activation.has_coarse_scale else None


def bias_of(outputs: int) -> Tensor:
    return torch.linspace(-2, 2, outputs)


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (2, 3, 40, 37), (1, 5, 130, 7), (3, 1, 384, 48)])
@pytest.mark.parametrize("text", SPECS)
def test_linear_layers_give_the_references_floats(text: str, shape: tuple[int, ...]) -> None:
    spec = LayerSpec.parse(text)
    samples, rows, channels, outputs = shape
    x, weight = normal(samples, rows, channels, unsigned=not spec.activation.signed), normal(outputs, channels)
    limit, bias = static_range(spec), bias_of(outputs)
    y = kernels.layer_outputs(
        x, packed(weight, spec.weight), spec, activation_range=limit, epilogue=Epilogue(bias=bias), backend="eager"
    )
    for sample, ours in zip(x, y, strict=True):
        theirs = reference.linear(
            sample.numpy(),
            weight.numpy(),
            spec,
            bias=bias.numpy(),
            activation_range=None if limit is None else float(limit),
        )
        np.testing.assert_array_equal(ours.numpy(), theirs.y)


@pytest.mark.parametrize("text", FLOAT_SCALE_SPECS)
def test_floating_point_vector_scales_agree_with_the_dequantized_product(text: str) -> None:
    spec = LayerSpec.parse(text)
    x, weight = normal(2, 3, 40), normal(7, 40)
    limit = static_range(spec)
    y = kernels.layer_outputs(x, packed(weight, spec.weight), spec, activation_range=limit, backend="eager")
    values = quantize_weight(weight, spec.weight, name="").dequantize(weight.shape)
    share = "row" if spec.gamma == "token" else "group"
    dequantized = kernels.fake_quantize(x, spec.activation, share=share, coarse_range=limit)
    expected = F.linear(dequantized.double(), values.double())
    # Every term was rounded at most four times (eq. 6 on both sides) and the sum three times.
    bound = 7 * 2.0**-24 * F.linear(dequantized.double().abs(), values.double().abs())
    assert bool(((y - expected).abs() <= bound).all())


@pytest.mark.parametrize("text", ["w4a16-s4/x", "w8a16", "w3a16-s6/x-v32-full", "w4a16-sfp16/x"])
def test_weight_only_layers_multiply_floats(text: str) -> None:
    spec = LayerSpec.parse(text)
    x, weight = normal(2, 3, 40), normal(7, 40)
    values = quantize_weight(weight, spec.weight, name="").dequantize(weight.shape)
    y = kernels.layer_outputs(x, packed(weight, spec.weight), spec, backend="eager")
    torch.testing.assert_close(y, F.linear(x, values))


@pytest.mark.parametrize("function", kernels.FUNCTIONS)
def test_epilogues_are_float_operations_in_a_fixed_order(function: kernels.Function) -> None:
    spec = LayerSpec.parse("w4a8-s4/x-tensor")
    x, weight = normal(2, 3, 40), packed(normal(9, 40), spec.weight)
    bias, residual = bias_of(9), torch.randn(2, 3, 9)
    plain = kernels.layer_outputs(x, weight, spec, backend="eager")
    y = kernels.layer_outputs(
        x, weight, spec, epilogue=Epilogue(bias=bias, residual=residual, function=function), backend="eager"
    )
    assert torch.equal(y, kernels.apply_function((plain + bias) + residual, function))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    spec = LayerSpec.parse("w4a8-s4/8-token")
    x, weight = torch.randn(2, 3, 40).to(dtype), packed(normal(9, 40), spec.weight)
    y = kernels.layer_outputs(x, weight, spec, backend="eager")
    assert torch.equal(y, kernels.layer_outputs(x.float(), weight, spec, backend="eager").to(dtype))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


WALKS = [
    (Walk(), 40, 24),
    (Walk(kernel=(3, 3), padding=(1, 1, 1, 1)), 20, 17),
    (Walk(kernel=(3, 2), stride=(2, 1), padding=(0, 1, 2, 0), dilation=(2, 3)), 33, 8),
    (Walk(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1), groups=2), 40, 6),
    (Walk(kernel=(1, 5), padding=(0, 0, 2, 2), groups=3), 48, 51),
    (Walk(kernel=(3, 3), padding=(1, 1, 1, 1), groups=20), 20, 20),
    (Walk(kernel=(5, 5), padding=(2, 2, 2, 2), stride=(2, 2), groups=10), 10, 30),
]


def reference_conv(x: np.ndarray, weight: np.ndarray, spec: LayerSpec, walk: Walk, limit: float | None) -> np.ndarray:
    """Eq. (7) of one sample (H, W, C), window by window, on the reference's codes: (H', W', K)."""
    groups, outputs = walk.groups, len(weight)
    (height, width), size = x.shape[:2], weight.shape[1]
    vectors = spec.activation.has_vectors
    rows = x.reshape(height * width * (groups if vectors else 1), -1)
    qx = reference.quantize(rows, spec.activation, "tensor", coarse_range=limit)
    qw = reference.quantize(reference.conv_weight_rows(weight, spec.weight.vector_size), spec.weight)
    step_x = 1 if qx.vector_scale is None else qx.vector_scale[..., None].astype(np.int64)
    step_w = 1 if qw.vector_scale is None else qw.vector_scale[..., None].astype(np.int64)
    folded_x = (qx.codes * step_x).reshape(height, width, groups, -1)[..., :size]
    folded_w = (qw.codes * step_w).reshape(outputs, *walk.kernel, -1)[..., :size]
    top, bottom, left, right = walk.padding
    padded = np.pad(folded_x, ((top, bottom), (left, right), (0, 0), (0, 0)))
    sums = np.zeros((*walk.output_size(height, width), outputs), dtype=np.int64)
    for i, j, k in np.ndindex(sums.shape):
        rows_, columns = (
            slice(n * s, n * s + (r - 1) * d + 1, d)
            for n, s, r, d in zip((i, j), walk.stride, walk.kernel, walk.dilation, strict=True)
        )
        sums[i, j, k] = (padded[rows_, columns, k * groups // outputs] * folded_w[k]).sum()
    return (qx.coarse_scale * qw.coarse_scale) * sums.astype(np.float32)


@pytest.mark.parametrize(("walk", "channels", "outputs"), WALKS)
@pytest.mark.parametrize(
    "text", ["w4a4-s4/4-tensor", "w8a8u", "w4a8-s4/x-tensor", "w8a6-sx/8-v32-tensor", "w6a4-s6/6-v8-tensor"]
)
def test_convolutions_give_the_references_floats(text: str, walk: Walk, channels: int, outputs: int) -> None:
    spec = LayerSpec.parse(text)
    x = normal(2, 7, 8, channels, unsigned=not spec.activation.signed)
    weight, limit = normal(outputs, channels // walk.groups, *walk.kernel), static_range(spec)
    y = kernels.layer_outputs(
        x, packed(weight, spec.weight, walk.groups), spec, activation_range=limit, walk=walk, backend="eager"
    )
    for sample, ours in zip(x.numpy(), y, strict=True):
        theirs = reference_conv(sample, weight.numpy(), spec, walk, None if limit is None else float(limit))
        np.testing.assert_array_equal(ours.numpy(), theirs)


@pytest.mark.parametrize("shape", [(3, 5, 20, 7), (1, 1, 16, 1), (2, 4, 64, 33)])
@pytest.mark.parametrize("text", [text for text in SPECS if "-top" not in text and "-full" not in text])
def test_products_of_activations_give_the_references_floats(text: str, shape: tuple[int, ...]) -> None:
    spec = LayerSpec.parse(text)
    groups, rows, length, columns = shape
    left_format = spec.activation
    right_format = IntegerFormat(
        bits=left_format.bits, signed=True, scale=left_format.scale, vector_size=left_format.vector_size
    )
    both = LayerSpec(
        weight=right_format,
        activation=left_format,
        gamma="token" if spec.gamma == "token" else "tensor",
        product_bits=spec.product_bits if left_format.two_level else None,
    )
    left, right = normal(groups, rows, length, unsigned=not left_format.signed), normal(groups, columns, length)
    share = "row" if spec.gamma == "token" else "group"
    y = kernels.matmul(
        left, right, left_format, right_format, share=share, product_bits=both.product_bits, backend="eager"
    )
    for a, b, ours in zip(left.numpy(), right.numpy(), y, strict=True):
        qa = reference.quantize(a, left_format, "row" if share == "row" else "tensor")
        qb = reference.quantize(b, right_format, "row" if share == "row" else "tensor")
        sums = reference.integer_sum(qa, qb, both.product_bits).astype(np.float32)
        scale = qa.coarse_scale[:, None] * qb.coarse_scale[None, :]
        np.testing.assert_array_equal(ours.numpy(), scale * sums * np.float32(2.0**both.product_shift))
