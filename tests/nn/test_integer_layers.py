"""Integer layers beside their simulated twins and the reference."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vsquant import LayerSpec, reference
from vsquant.errors import NonFiniteError, ShapeError, SpecError
from vsquant.nn import (
    IntegerConv2d,
    IntegerEmbedding,
    IntegerLinear,
    IntegerMatmul,
    QuantConv1d,
    QuantConv2d,
    QuantEmbedding,
    QuantLinear,
)
from vsquant.transform.integer import integer_twin

SPECS = [
    ("w4a4u-s4/6", 3.0),
    ("w4a8-s4/x-token", None),
    ("w8a8", 2.5),
    ("w3a6-s3/8-v32-tensor", None),
    ("w4a4-s4/4-v8-tensor", None),
    ("w4a8-s6/fp32-full", None),
    ("w4a4-s4/6-p6-tensor", None),
    ("w4a16-s4/x", None),
]
CONV_SPECS = [(text, limit) for text, limit in SPECS if "token" not in text]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("text", "limit"), SPECS)
@pytest.mark.parametrize("shape", [(40,), (3, 40), (2, 5, 40), (2, 3, 4, 40), (0, 5, 40)])
def test_linear_layers_compute_what_the_simulated_ones_do(quantize, text, limit, shape) -> None:
    layer = quantize(nn.Linear(40, 24), text, limit=limit)
    integer = integer_twin(layer)
    assert isinstance(integer, IntegerLinear)
    x = torch.randn(*shape)
    close(integer(x), layer(x))


@pytest.mark.parametrize(("text", "limit"), CONV_SPECS)
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(20, 24, 1),
        nn.Conv2d(20, 24, 3, stride=2, padding=1),
        nn.Conv2d(20, 24, (3, 2), padding="same", dilation=2, bias=False),
        nn.Conv2d(20, 24, 3, padding=1, groups=2, padding_mode="reflect"),
        nn.Conv2d(20, 20, 3, padding=1, groups=20),
        nn.Conv1d(20, 24, 5, padding=2, stride=2, padding_mode="circular"),
    ],
    ids=str,
)
def test_convolutions_compute_what_the_simulated_ones_do(quantize, conv, text, limit) -> None:
    layer = quantize(conv, text, limit=limit)
    integer = integer_twin(layer)
    assert isinstance(integer, IntegerConv2d)
    x = torch.randn(2, 20, *(9, 8)[: len(conv.kernel_size)])
    close(integer(x), layer(x))
    close(integer(x[0]), layer(x[0]))


def test_tensorflow_padding(quantize) -> None:
    layer = quantize(nn.Conv2d(16, 8, 3, stride=2), "w4a8-s4/4-tensor", tf_same=True)
    x = torch.randn(2, 16, 10, 7)
    close(integer_twin(layer)(x), layer(x))


@pytest.mark.parametrize(
    "text", ["w4a8-s4/x-tensor", "w8a8-sx/x-tensor", "w3a8-s9/x-v32-top-tensor", "w5a4-sfp16/4-tensor"]
)
def test_embeddings_unpack_the_same_rows(quantize, text) -> None:
    layer = quantize(nn.Embedding(37, 40, padding_idx=1), text)
    embedding = integer_twin(layer)
    assert isinstance(embedding, IntegerEmbedding)
    indices = torch.randint(0, 37, (3, 5))
    assert torch.equal(embedding(indices), layer(indices))
    for wrong in (37, -1):
        with pytest.raises(IndexError):
            embedding(torch.tensor([wrong]))


@pytest.mark.parametrize("text", ["w8a8-tensor", "w8a6-s4/8-token", "w8a4-s4/6-p6-tensor", "w8a8-sfp32/fp32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matmuls_compute_what_the_simulated_ones_do(make_matmul, text, dtype) -> None:
    product = make_matmul(text, unsigned_a=True)
    integer = integer_twin(product)
    assert isinstance(integer, IntegerMatmul)
    a, b = torch.rand(2, 3, 5, 20).to(dtype), torch.randn(2, 3, 20, 7).to(dtype)
    y = integer(a, b)
    assert y.dtype == dtype
    close(y, product(a, b)) if dtype == torch.float32 else torch.testing.assert_close(y, product(a, b))


def test_matmuls_with_a_range_for_every_head(make_matmul) -> None:
    product = make_matmul("w8a8", ranges=([1.0, 2.0, 3.0], [0.5, 1.0, 2.0]))
    a, b = torch.randn(2, 3, 5, 20), torch.randn(2, 3, 20, 7)
    close(integer_twin(product)(a, b), product(a, b))


@pytest.mark.parametrize("text", ["w4a8-s4/x-token", "w4a4-s4/4-tensor", "w8a8-tensor", "w4a6-s4/6-p5-tensor"])
def test_linear_layers_give_the_references_bits(quantize, text) -> None:
    linear = nn.Linear(72, 20)
    x = torch.randn(1, 9, 72)
    ours = integer_twin(quantize(linear, text))(x)
    arrays = (t.detach().numpy() for t in (x[0], linear.weight))
    theirs = reference.linear(*arrays, LayerSpec.parse(text), bias=linear.bias.detach().numpy())
    np.testing.assert_array_equal(ours[0].detach().numpy(), theirs.y)


@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(40, 24), lambda: nn.Conv2d(40, 24, 3), lambda: nn.Embedding(24, 40)]
)
@pytest.mark.parametrize("text", ["w4a8-s4/x-tensor", "w8a8-tensor", "w4a4-s4/4-v8-tensor", "w4a4-sfp32/fp32"])
def test_the_weight_is_the_simulated_layers(quantize, make, text) -> None:
    layer = quantize(make(), text)
    integer = integer_twin(layer)
    assert integer.spec == layer.spec
    for name in ("weight_codes", "weight_vector_scale", "weight_coarse_scale", "weight"):
        ours, theirs = getattr(integer, name), getattr(layer, name)
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


def test_a_packed_weight_is_all_that_a_layer_holds(quantize) -> None:
    integer = integer_twin(quantize(nn.Linear(1024, 512), "w4a8-s4/x-tensor"))
    held = sum(t.numel() * t.element_size() for t in (*integer.buffers(), *integer.parameters()))
    assert held == 1024 * 512 * 4.25 / 8 + 3 * 4 * 512


def test_the_state_goes_from_layer_to_layer(quantize) -> None:
    first, second = (integer_twin(quantize(nn.Linear(40, 24), "w4a8-s4/4", limit=limit)) for limit in (1.0, 2.0))
    x = torch.randn(3, 40)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))
    assert torch.equal(copy.deepcopy(first)(x), first(x))


@pytest.mark.parametrize(
    "make", [lambda: nn.Linear(40, 24), lambda: nn.Conv2d(40, 24, 3), lambda: nn.Embedding(24, 40)]
)
def test_moving_a_model_to_another_dtype_moves_outputs_only(quantize, make) -> None:
    integer = integer_twin(quantize(make(), "w4a16-s4/x")).to(torch.bfloat16)
    x = (
        torch.randint(0, 24, (3,))
        if isinstance(integer, IntegerEmbedding)
        else torch.randn(2, 40, *[40] * (integer.weight.dim() - 2))
    )
    assert integer(x).dtype == torch.bfloat16
    assert integer.packed_coarse_scale.dtype == torch.float32


def test_a_half_precision_input_is_rounded_as_by_the_simulated_layer(quantize) -> None:
    layer = quantize(nn.Linear(40, 24), "w4a8-s4/8-token")
    integer = integer_twin(layer)
    x = torch.randn(3, 40)
    integer.to(torch.bfloat16)
    assert torch.equal(integer(x.bfloat16()), integer.float()(x.bfloat16().float()).bfloat16())


@pytest.mark.parametrize(("text", "limit"), [("w4a4u-s4/6", 3.0), ("w4a8-s4/x-token", None), ("w4a16-s4/x", None)])
def test_layers_compile_into_one_graph(quantize, text, limit) -> None:
    integer = integer_twin(quantize(nn.Linear(40, 24), text, limit=limit))
    x = torch.randn(2, 3, 40)
    assert torch.equal(torch.compile(integer, fullgraph=True, backend="aot_eager")(x), integer(x))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Linear(40, 24), (2, 3, 40)),
        (lambda: nn.Conv2d(40, 24, 3, padding=1), (2, 40, 6, 5)),
        (lambda: nn.Conv1d(40, 24, 3, padding=1), (2, 40, 6)),
        (lambda: nn.Embedding(24, 40), None),
    ],
)
def test_layers_can_be_exported(quantize, make, shape) -> None:
    text = "w4a16-s4/x" if shape is None else "w4a8-s4/4"
    integer = integer_twin(quantize(make(), text, limit=2.0))
    x = torch.randint(0, 24, (3, 4)) if shape is None else torch.randn(*shape)
    exported = torch.export.export(integer, (x,))
    assert torch.equal(exported.module()(x), integer(x))


def test_errors_name_the_layer(quantize, make_matmul) -> None:
    integer = integer_twin(quantize(nn.Linear(40, 24), "w4a8-s4/4-tensor"))
    with pytest.raises(ShapeError) as error:
        integer(torch.randn(3, 41))
    assert str(error.value) == "input of layer 'block.layer' must have 40 channels, not 41"
    with pytest.raises(NonFiniteError) as error:
        integer(torch.full((3, 40), float("nan")))
    assert str(error.value).startswith("input of layer 'block.layer': a tensor must be finite to be quantized")
    conv = integer_twin(quantize(nn.Conv2d(3, 4, 3), "w4a8-s4/4-tensor"))
    with pytest.raises(ShapeError) as error:
        conv(torch.randn(3, 40))
    assert str(error.value) == ("input of layer 'block.layer' must have 4 dimensions (N, C, 2 spatial), not 2")
    product = integer_twin(make_matmul("w8a8-tensor"))
    with pytest.raises(NonFiniteError) as error:
        product(torch.full((1, 1, 2, 16), float("inf")), torch.randn(1, 1, 16, 2))
    assert str(error.value).startswith("operand of matmul 'attention.scores': ")


@pytest.mark.parametrize("text", ["nvfp4", "mxfp4", "int4-g128"])
def test_comparison_formats_are_refused_by_name(quantize, make_matmul, text) -> None:
    with pytest.raises(SpecError) as error:
        integer_twin(quantize(nn.Linear(40, 24), text))
    assert str(error.value) == (
        f"layer 'block.layer' must have an integer format to run on integers, not the comparison format {text}, "
        "which is simulated only"
    )


@pytest.mark.parametrize("kind", [QuantLinear, QuantConv1d, QuantConv2d, QuantEmbedding])
def test_every_simulated_layer_has_a_twin(quantize, kind) -> None:
    made = {
        QuantLinear: nn.Linear(16, 8),
        QuantConv1d: nn.Conv1d(16, 8, 3),
        QuantConv2d: nn.Conv2d(16, 8, 3),
        QuantEmbedding: nn.Embedding(8, 16),
    }[kind]
    layer = quantize(made, "w4a8-s4/x-tensor")
    assert type(layer) is kind
    assert integer_twin(layer).name == layer.name
