"""Linear layers, convolutions and embeddings against the reference's codes and a float64 product of its values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vsquant import LayerSpec, reference
from vsquant.nn import ConvGeometry

WEIGHT_SPECS = [
    "w4a8-s4/8-tensor",
    "w3a8-s3/8-v4-full-top-g16-tensor",
    "w6a16-sfp16/x-v8",
    "w8a8-tensor",
    "w4a16-sfp32/x",
]
COMPARISON = ["nvfp4", "nvfp4-4over6", "mxfp4", "mxint8", "int4-g128"]
LAYERS = {
    "linear": lambda: nn.Linear(21, 5),
    "conv1d": lambda: nn.Conv1d(6, 5, 3),
    "conv2d": lambda: nn.Conv2d(6, 4, (3, 2)),
    "grouped": lambda: nn.Conv2d(6, 4, 3, groups=2),
    "embedding": lambda: nn.Embedding(9, 21),
}
CONVOLUTIONS = {
    "plain": {},
    "stride": {"stride": (2, 3)},
    "dilation": {"dilation": (2, 1)},
    "padding": {"padding": (1, 2)},
    "same": {"padding": "same", "dilation": (1, 2)},
    "valid": {"padding": "valid"},
    "groups": {"groups": 2, "padding": 1},
    "depthwise": {"groups": 6, "padding": 1},
    "reflect": {"padding": 2, "padding_mode": "reflect"},
    "replicate": {"padding": (2, 1), "padding_mode": "replicate"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "even kernel": {"kernel_size": (2, 4), "padding": "same"},
}


def reference_weight(weight: torch.Tensor, spec: LayerSpec) -> reference.Quantized:
    """The reference on the layer's rows: padded at every kernel position where there are vectors."""
    array = weight.detach().numpy()
    array = array.reshape(*array.shape, *[1] * (4 - array.ndim))
    return reference.quantize(reference.conv_weight_rows(array, spec.weight.vector_size), spec.weight)


@pytest.mark.parametrize("text", WEIGHT_SPECS)
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_weights_have_the_codes_and_scales_of_the_reference(quantize, make, text):
    layer, spec = make(), LayerSpec.parse(text)
    ours = quantize(layer, text, limit=1.0)
    theirs = reference_weight(layer.weight, spec)
    lead = (layer.weight.shape[0], *layer.weight.shape[2:])
    size = spec.weight.vector_size or layer.weight.shape[1]
    assert ours.weight_codes.shape == (*lead, -(-layer.weight.shape[1] // size), size)
    np.testing.assert_array_equal(ours.weight_codes.flatten().numpy(), theirs.codes.ravel())
    if theirs.vector_scale is None:
        assert ours.weight_vector_scale is None
    else:
        assert ours.weight_vector_scale.shape == ours.weight_codes.shape[:-1]
        np.testing.assert_array_equal(ours.weight_vector_scale.flatten().numpy(), theirs.vector_scale.ravel())
    if theirs.coarse_scale is None:
        assert ours.weight_coarse_scale is None
    else:
        assert ours.weight_coarse_scale.numpy().tobytes() == theirs.coarse_scale.tobytes()


@pytest.mark.parametrize("text", [*WEIGHT_SPECS, *COMPARISON])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_the_float_weight_is_the_dequantized_one_in_the_layers_shape(quantize, make, text):
    layer, spec = make(), LayerSpec.parse(text)
    rows = layer.weight.detach().flatten(2) if layer.weight.dim() > 2 else layer.weight.detach().unsqueeze(2)
    ours = quantize(layer, text, limit=1.0).weight
    assert ours.shape == layer.weight.shape
    ours = ours.reshape(rows.shape).transpose(1, 2)
    rows = rows.transpose(1, 2).contiguous().numpy()
    if spec.is_comparison and spec.weight.tensor_scale:
        flat = reference.quantize(rows.reshape(-1, rows.shape[2]), spec.weight, "tensor").dequantize()
        np.testing.assert_array_equal(ours.numpy(), flat.reshape(rows.shape))
        return
    for channel, mine in zip(rows, ours, strict=True):
        np.testing.assert_array_equal(mine.numpy(), reference.quantize(channel, spec.weight, "tensor").dequantize())


def assert_close_to_float64(y: torch.Tensor, product, x: torch.Tensor, w: torch.Tensor, bias, terms: int) -> None:
    """Float32 sums of ``terms`` products, in any order, and a bias: terms + 1 roundings of the sum of magnitudes."""
    x, w, bias = x.double(), w.double(), bias.detach().double()
    exact, size = product(x, w) + bias, product(x.abs(), w.abs()) + bias.abs()
    assert ((y.double() - exact).abs() <= (terms + 2) * 2.0**-24 * size).all()


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("w4a4-s4/6-v4", 2.0),
        ("w4a4u-s4/6-v4", 0.1),
        ("w4a8-s4/8-tensor", None),
        ("w4a8-s4/8-token", None),
        ("w8a8", 1.5),
        ("w8a8-token", None),
        ("w4a4-sfp16/fp32", None),
        ("w4a16-s4/x", None),
        ("mxfp4", None),
        ("nvfp4", None),
    ],
)
@pytest.mark.parametrize("shape", [(3, 4, 20), (3, 20), (20,), (2, 3, 4, 20), (0, 20), (2, 0, 20)])
def test_linear_is_the_product_of_dequantized_values(quantize, text, limit, shape):
    layer, x, spec = nn.Linear(20, 7), torch.randn(shape), LayerSpec.parse(text)
    ours = quantize(layer, text, limit=limit)
    y = ours(x)
    assert y.shape == (*shape[:-1], 7) and y.dtype == torch.float32
    samples = x.reshape(1, 1, -1) if x.dim() == 1 else x.reshape(shape[0], int(np.prod(shape[1:-1])), 20)
    dequantized = torch.stack([dequantized_sample(rows, spec, limit) for rows in samples]) if len(samples) else samples
    assert_close_to_float64(y.view(*samples.shape[:2], 7), F.linear, dequantized, ours.weight, layer.bias, 20)


def dequantized_sample(rows: torch.Tensor, spec: LayerSpec, limit: float | None) -> torch.Tensor:
    """The reference's values of one sample's rows (rows, C)."""
    if spec.activation is None:
        return rows
    share = "row" if spec.gamma == "token" else "tensor"
    options = {} if limit is None else {"coarse_range": limit}
    return torch.from_numpy(
        reference.quantize(rows.contiguous().numpy(), spec.activation, share, **options).dequantize()
    )


def dequantized_image(image: torch.Tensor, spec: LayerSpec, limit: float | None, groups: int) -> torch.Tensor:
    """The reference's values of one sample (C, H, W): vectors within a group, one gamma for the whole sample."""
    channels, height, width = image.shape
    rows = image.permute(1, 2, 0).reshape(-1, channels // groups)
    values = dequantized_sample(rows, spec, limit)
    return values.reshape(height, width, channels).permute(2, 0, 1)


@pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel lengths")
@pytest.mark.parametrize(("text", "limit"), [("w4a4-s4/6-v4", 1.0), ("w4a8u-s4/8-v4-tensor", None), ("w8a8", 2.0)])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_conv2d_is_the_convolution_of_dequantized_values(quantize, options, text, limit):
    layer = nn.Conv2d(6, 12, **({"kernel_size": (3, 2)} | options))
    x, spec = torch.randn(2, 6, 9, 8), LayerSpec.parse(text)
    ours = quantize(layer, text, limit=limit)
    dequantized = torch.stack([dequantized_image(image, spec, limit, layer.groups) for image in x])
    plain = nn.Conv2d(6, 12, **({"kernel_size": (3, 2)} | options), bias=False).double()

    def convolve(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(plain, {"weight": weight}, (values,))

    y = ours(x)
    assert y.shape == layer(x).shape
    bias = layer.bias[:, None, None]
    assert_close_to_float64(y, convolve, dequantized, ours.weight, bias, layer.weight[0].numel())


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 2, "dilation": 2}, {"padding": "same"}, {"groups": 2}]
)
def test_conv1d_is_the_convolution_of_dequantized_values(quantize, options):
    layer, x = nn.Conv1d(6, 4, 3, **options), torch.randn(2, 6, 11)
    ours = quantize(layer, "w4a4-s4/6-v4-tensor")
    spec = LayerSpec.parse("w4a4-s4/6-v4-tensor")
    dequantized = torch.stack([dequantized_image(s[:, None], spec, None, layer.groups)[:, 0] for s in x])
    plain = nn.Conv1d(6, 4, 3, **options, bias=False).double()

    def convolve(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(plain, {"weight": weight}, (values,))

    bias = layer.bias[:, None]
    assert_close_to_float64(ours(x), convolve, dequantized, ours.weight, bias, layer.weight[0].numel())


@pytest.mark.parametrize("size", [7, 8, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 5])
def test_tensorflow_same_padding(quantize, kernel, stride, size):
    layer, x = nn.Conv2d(4, 3, kernel, stride=stride), torch.randn(1, 4, size, size)
    ours = quantize(layer, "w4a16-s4/x-v4", tf_same=True)
    positions = -(-size // stride)
    total = max((positions - 1) * stride + kernel - size, 0)
    padded = F.pad(x, [total // 2, total - total // 2] * 2)
    y = ours(x)
    assert y.shape == (1, 3, positions, positions)
    torch.testing.assert_close(y, F.conv2d(padded, ours.weight, layer.bias.detach(), stride), rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_the_geometry_predicts_the_output(options):
    layer = nn.Conv2d(6, 12, **({"kernel_size": (3, 2)} | options))
    x = torch.randn(1, 6, 9, 8)
    assert ConvGeometry.of(layer).output_size(x.shape[2:]) == list(layer(x).shape[2:])


@pytest.mark.parametrize(("kind", "shape"), [(nn.Conv2d, (6, 5, 5)), (nn.Conv1d, (6, 5))])
@pytest.mark.parametrize("text", ["w4a4-s4/6-v4-tensor", "w4a4-s4/6-v4-p6-tensor"])
def test_an_image_without_a_batch(quantize, kind, shape, text):
    layer, x = kind(6, 4, 3), torch.randn(shape)
    ours = quantize(layer, text)
    assert torch.equal(ours(x), ours(x[None])[0])
    assert ours(x).shape == layer(x).shape


def test_an_embedding_looks_up_dequantized_rows(quantize):
    layer, spec = nn.Embedding(30, 20, padding_idx=3), LayerSpec.parse("w4a16-s4/x")
    rows = reference.quantize(layer.weight.detach().numpy(), spec.weight).dequantize()
    indices = torch.tensor([[1, 3, 29], [0, 0, 7]])
    ours = quantize(layer, "w4a16-s4/x")(indices)
    np.testing.assert_array_equal(ours.numpy(), rows[indices.numpy()])
