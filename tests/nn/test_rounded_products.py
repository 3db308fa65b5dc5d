"""Layers with ``-p``: S and y are those of the reference, and of Python's integers where the reference has no layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vsquant import LayerSpec, kernels, reference

F32 = np.float32
LINEAR_SPECS = [
    "w4a4-s4/6-v4-p6-tensor",
    "w4a4u-s4/6-v4-p1-token",
    "w3a8-s3/10-v16-p20-tensor",
    "w4a4-s4/4-v4-p7-token-top",
]


@pytest.fixture
def sums(monkeypatch) -> list[torch.Tensor]:
    """Every S of eq. (7) that a layer asks for, as it comes."""
    seen: list[torch.Tensor] = []

    def spy(*args, **kwargs):
        seen.append(kernels_partial_sums(*args, **kwargs))
        return seen[-1]

    kernels_partial_sums = kernels.partial_sums
    monkeypatch.setattr(kernels, "partial_sums", spy)
    return seen


@pytest.mark.parametrize("mode", ["paper", "requantize"])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("text", LINEAR_SPECS)
def test_linear_equals_the_reference(quantize, sums, text, with_bias, mode):
    mode = "requantize" if "top" in text else mode
    layer, x = nn.Linear(22, 5, bias=with_bias), torch.randn(3, 4, 22)
    y = quantize(layer, text, mode=mode)(x)
    bias = layer.bias.detach().numpy() if with_bias else None
    (stacked,) = sums
    for sample, mine, S in zip(x, y, stacked.view(3, 4, 5), strict=True):
        theirs = reference.linear(sample.numpy(), layer.weight.detach().numpy(), LayerSpec.parse(text), mode, bias=bias)
        np.testing.assert_array_equal(S.numpy(), theirs.S)
        assert mine.numpy().tobytes() == theirs.y.tobytes()


def test_linear_with_a_static_scale_equals_the_reference(quantize):
    layer, x, text = nn.Linear(22, 5), torch.randn(3, 22), "w4a4-s4/6-v4-p6"
    y = quantize(layer, text, limit=0.7)(x)
    theirs = reference.linear(
        x.numpy(),
        layer.weight.detach().numpy(),
        LayerSpec.parse(text),
        bias=layer.bias.detach().numpy(),
        activation_range=0.7,
    )
    assert y.numpy().tobytes() == theirs.y.tobytes()


def test_one_vector_is_one_sample(quantize):
    ours, x = quantize(nn.Linear(22, 5), "w4a4-s4/6-v4-p6-tensor"), torch.randn(22)
    assert torch.equal(ours(x), ours(x[None])[0])


CONVOLUTIONS = {
    "plain": {},
    "stride and dilation": {"stride": (2, 1), "dilation": (1, 2)},
    "same": {"padding": "same"},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 6},
    "reflect": {"padding": (2, 1), "padding_mode": "reflect"},
    "replicate": {"padding": 1, "padding_mode": "replicate"},
    "circular": {"padding": 1, "padding_mode": "circular"},
}


def rho(product: int, spec: LayerSpec) -> int:
    """Eq. (8)."""
    d = max(0, spec.weight.scale_width_bits + spec.activation.scale_width_bits - spec.product_bits)
    return min((product + (1 << (d - 1))) >> d, 2**spec.product_bits - 1) if d else product


def padded_positions(size: int, pair: tuple[int, int], mode: str) -> list[int | None]:
    """The source of every padded position; None where zeros stand."""
    before, after = pair
    names = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    if mode == "zeros":
        return [None] * before + list(range(size)) + [None] * after
    return np.pad(np.arange(size), (before, after), mode=names[mode]).tolist()


def conv_by_loops(image: np.ndarray, layer: nn.Conv2d, spec: LayerSpec, pads, limit: float | None):
    """(S, y) of one sample by eqs. (1)-(8), one output at a time."""
    groups, size = layer.groups, spec.vector_size
    channels, height, width = image.shape
    rows = image.transpose(1, 2, 0).reshape(-1, channels // groups)
    qx = reference.quantize(np.ascontiguousarray(rows), spec.activation, "tensor", coarse_range=limit)
    qw = reference.quantize(reference.conv_weight_rows(layer.weight.detach().numpy(), size), spec.weight)
    qa = qx.codes.reshape(height, width, groups, -1, size).astype(int)
    sa = qx.vector_scale.reshape(height, width, groups, -1).astype(int)
    kernel = layer.kernel_size
    wq = qw.codes.reshape(layer.out_channels, *kernel, -1, size).astype(int)
    ws = qw.vector_scale.reshape(layer.out_channels, *kernel, -1).astype(int)
    ys, xs = (padded_positions(n, p, layer.padding_mode) for n, p in zip((height, width), pads, strict=True))
    out = [
        (len(at) - (k - 1) * d - 1) // s + 1
        for at, k, d, s in zip((ys, xs), kernel, layer.dilation, layer.stride, strict=True)
    ]
    S = np.zeros((layer.out_channels, *out), dtype=np.int64)
    for k, i, j in np.ndindex(*S.shape):
        group = k // (layer.out_channels // groups)
        for r, s, v in np.ndindex(*kernel, qa.shape[3]):
            row, column = (
                ys[i * layer.stride[0] + r * layer.dilation[0]],
                xs[j * layer.stride[1] + s * layer.dilation[1]],
            )
            if row is not None and column is not None:
                product = rho(int(sa[row, column, group, v] * ws[k, r, s, v]), spec)
                S[k, i, j] += product * int(qa[row, column, group, v] @ wq[k, r, s, v])
    scale = qx.coarse_scale[0] * qw.coarse_scale
    d = max(0, spec.weight.scale_width_bits + spec.activation.scale_width_bits - spec.product_bits)
    y = scale[:, None, None] * S.astype(F32) * F32(2.0**d)
    return S, y + layer.bias.detach().numpy()[:, None, None]


@pytest.mark.parametrize(("text", "limit"), [("w4a4-s4/6-v4-p6", 0.9), ("w4a4u-s4/6-v4-p3-tensor", None)])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_equals_plain_loops(quantize, sums, options, text, limit):
    layer, x = nn.Conv2d(6, 6, (3, 2), **options), torch.randn(2, 6, 5, 4)
    ours = quantize(layer, text, limit=limit)
    y, spec = ours(x), LayerSpec.parse(text)
    assert y.shape == layer(x).shape
    parts = iter(sums)
    for sample, mine in zip(x, y, strict=True):
        S, expected = conv_by_loops(sample.numpy(), layer, spec, ours.geometry.padding_for(x.shape[2:]), limit)
        seen = torch.cat([next(parts) for _ in range(layer.groups)], dim=1).T.reshape(S.shape)
        np.testing.assert_array_equal(seen.numpy(), S)
        assert mine.contiguous().numpy().tobytes() == expected.tobytes()


def test_tensorflow_padding_is_the_explicit_one(quantize):
    layer, x = nn.Conv2d(6, 4, 3, stride=2), torch.randn(2, 6, 6, 6)
    ours = quantize(layer, "w4a4-s4/6-v4-p6-tensor", tf_same=True)
    padded = quantize(layer, "w4a4-s4/6-v4-p6-tensor")(nn.functional.pad(x, [0, 1, 0, 1]))
    assert torch.equal(ours(x), padded)


def test_conv1d_equals_a_conv2d_of_height_one(quantize):
    layer, x = nn.Conv1d(6, 4, 3, padding=1, groups=2), torch.randn(3, 6, 9)
    flat = nn.Conv2d(6, 4, (1, 3), padding=(0, 1), groups=2)
    flat.load_state_dict({"weight": layer.weight.detach()[:, :, None], "bias": layer.bias.detach()})
    text = "w4a4-s4/6-v4-p6-tensor"
    assert torch.equal(quantize(layer, text)(x), quantize(flat, text)(x[:, :, None])[:, :, 0])


@pytest.mark.parametrize("text", ["w4a4-s4/6-v4-p6-tensor", "w4a4-s4/6-v4-p6-token"])
@pytest.mark.parametrize("unsigned", [True, False])
def test_matmul_equals_the_reference(make_matmul, text, unsigned):
    a, b = torch.rand(2, 3, 5, 10) if unsigned else torch.randn(2, 3, 5, 10), torch.randn(2, 3, 10, 4)
    layer = make_matmul(text, unsigned_a=unsigned)
    y = layer(a, b)
    share = "row" if "token" in text else "tensor"
    for n, h in np.ndindex(2, 3):
        left = reference.quantize(a[n, h].numpy(), layer.format_a, share)
        right = reference.quantize(np.ascontiguousarray(b[n, h].numpy().T), layer.format_b, share)
        S = reference.integer_sum(left, right, 6)
        scale = left.coarse_scale[:, None] * right.coarse_scale[None]
        expected = scale * S.astype(F32) * F32(2.0 ** (6 + 6 - 6))
        assert y[n, h].numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Linear(6, 4), (0, 6)),
        (lambda: nn.Linear(6, 4), (2, 0, 6)),
        (lambda: nn.Conv2d(6, 4, 3, padding=1), (0, 6, 5, 5)),
        (lambda: nn.Conv1d(6, 4, 3), (0, 6, 5)),
    ],
)
@pytest.mark.parametrize("limit", [None, 1.0])
def test_empty_batches(quantize, make, shape, limit):
    layer = make()
    ours = quantize(layer, "w4a4-s4/6-v4-p6" + ("" if limit else "-tensor"), limit=limit)
    assert ours(torch.ones(shape)).shape == layer(torch.ones(shape)).shape


def test_an_empty_batch_of_matmuls(make_matmul):
    layer = make_matmul("w4a4-s4/6-v4-p6-tensor")
    assert layer(torch.ones(0, 3, 5, 8), torch.ones(0, 3, 8, 4)).shape == (0, 3, 5, 4)


def test_rounding_fewer_bits_changes_the_result_and_enough_bits_do_not(quantize):
    layer, x = nn.Linear(64, 8), torch.randn(4, 64)
    exact, wide, narrow = (quantize(layer, f"w4a4-s4/6{p}-tensor")(x) for p in ("", "-p10", "-p3"))
    torch.testing.assert_close(wide, exact, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(narrow, exact, rtol=1e-3, atol=1e-3)
