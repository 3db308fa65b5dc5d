"""Quantized layers are ordinary modules: dtypes, state, copies, gradients, graphs; and their errors name them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from vsquant.errors import CalibrationError, NonFiniteError, ScaleRangeError, ShapeError, SpecError
from vsquant.nn import QuantLayer, needs_range, quantize_weight
from vsquant.spec import LayerSpec
from vsquant.spec.formats import IntegerFormat

LAYERS = {
    "linear": (lambda: nn.Linear(20, 5), (3, 20)),
    "conv1d": (lambda: nn.Conv1d(6, 5, 3), (2, 6, 7)),
    "conv2d": (lambda: nn.Conv2d(6, 5, 3, padding=1), (2, 6, 5, 5)),
}
SPECS = {
    "w4a4-s4/6-v4": 1.0,
    "w4a4-s4/6-v4-p6": 1.0,
    "w4a8-s4/8-tensor": None,
    "w8a8": 2.0,
    "mxfp4": None,
    "w4a16-s4/x": None,
}
every_layer = pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS)
every_spec = pytest.mark.parametrize(("text", "limit"), SPECS.items())


def state(layer: QuantLayer) -> dict[str, bytes]:
    return {name: value.detach().numpy().tobytes() for name, value in layer.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@every_spec
@every_layer
def test_outputs_follow_the_model_and_the_state_stays_float32(quantize, make, shape, text, limit, dtype):
    layer, x = quantize(make(), text, limit=limit), torch.randn(shape).to(dtype)
    expected, before = layer(x.float()), state(layer)
    y = layer.to(dtype)(x)
    assert y.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    assert state(layer) == before
    assert layer.weight.dtype == torch.float32
    assert layer(x.float()).dtype == dtype, "models that cast their input to weight.dtype get their own dtype back"


@pytest.mark.parametrize("move", [nn.Module.half, nn.Module.bfloat16, nn.Module.double, nn.Module.float, nn.Module.cpu])
def test_the_other_ways_to_move_a_model(quantize, move):
    model = nn.Sequential(nn.LayerNorm(20), quantize(nn.Linear(20, 5), "w4a4-s4/6", limit=1.0))
    before = state(model[1])
    assert move(model) is model
    assert state(model[1]) == before
    assert model(torch.ones(2, 20, dtype=model[0].weight.dtype)).dtype == model[0].weight.dtype


def test_an_embedding_gives_the_dtype_of_the_model(quantize):
    layer = quantize(nn.Embedding(10, 20), "w4a16-s4/x")
    values = layer(torch.tensor([1, 2]))
    assert values.dtype == torch.float32
    assert torch.equal(layer.to(torch.bfloat16)(torch.tensor([1, 2])), values.bfloat16())
    assert torch.equal(layer.float()(torch.tensor([1, 2])), values)
    assert quantize(nn.Embedding(10, 20).half(), "w4a16-s4/x")(torch.tensor([1])).dtype == torch.float16


@every_spec
@every_layer
def test_a_state_dict_carries_everything_to_another_layer(quantize, make, shape, text, limit):
    source, target = quantize(make(), text, limit=limit), quantize(make(), text, limit=limit and limit * 3)
    x = torch.randn(shape)
    assert not torch.equal(source(x), target(x))
    assert "weight" not in source.state_dict()
    target.load_state_dict(source.state_dict())
    assert torch.equal(source.weight, target.weight)
    assert torch.equal(source(x), target(x))


@every_layer
def test_a_state_dict_of_another_shape_is_refused(quantize, make, shape):
    source, target = quantize(make(), "w4a4-s4/6-v4-tensor"), quantize(make(), "w4a4-s4/6-v2-tensor")
    with pytest.raises(RuntimeError, match="size mismatch for weight_codes"):
        target.load_state_dict(source.state_dict())


@every_spec
@every_layer
def test_copies_are_independent_and_equal(quantize, make, shape, text, limit):
    layer, x = quantize(make(), text, limit=limit), torch.randn(shape)
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))
    other = quantize(make(), text, limit=limit)
    twin.load_state_dict(other.state_dict())
    assert torch.equal(twin(x), other(x))
    assert not torch.equal(layer(x), twin(x))


@every_layer
def test_train_and_eval_are_the_same(quantize, make, shape):
    layer, x = quantize(make(), "w4a4-s4/6-v4", limit=1.0), torch.randn(shape)
    assert torch.equal(layer.train()(x), layer.eval()(x))
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("text", "limit"), [("w4a4-s4/6-v4", 1.0), ("w4a4-s4/6-v4-p6", 1.0), ("w4a4-s4/6-v4-tensor", None), ("w8a8", 1.0)]
)
@every_layer
def test_a_sample_does_not_depend_on_its_batch(quantize, quantized_inputs, make, shape, text, limit):
    layer, x = quantize(make(), text, limit=limit), torch.randn(5, *shape[1:])
    x[2] *= 100
    together = layer(x)
    for n in range(5):
        alone = layer(x[n : n + 1])
        if layer.spec.product_bits is None:
            assert torch.equal(quantized_inputs[-1][0], quantized_inputs[0][n])
        else:
            assert torch.equal(alone[0], together[n])


@pytest.mark.parametrize("text", ["w4a8-s4/8-token", "w8a8-token", "w4a8-s4/fp32"])
def test_a_token_does_not_depend_on_its_sequence(quantize, quantized_inputs, text):
    layer, x = quantize(nn.Linear(20, 5), text), torch.randn(2, 6, 20)
    x[:, 3] *= 100
    layer(x)
    for n, t in np.ndindex(2, 6):
        layer(x[n, t])
        assert torch.equal(quantized_inputs[-1][0, 0], quantized_inputs[0][n, t])


@pytest.mark.parametrize(
    ("text", "limit"), [("w4a4-s4/6-v4", 0.5), ("w4a4-s4/6-v4-p6", 0.5), ("w8a8-tensor", None), ("mxfp4", None)]
)
@every_layer
def test_the_gradient_is_that_of_the_float_layer_with_the_quantized_weight(quantize, make, shape, text, limit):
    layer, plain = quantize(make(), text, limit=limit), make()
    with torch.no_grad():
        plain.weight.copy_(layer.weight)
    x = torch.randn(shape, requires_grad=True)
    gradient = torch.randn_like(layer(x))
    (ours,) = torch.autograd.grad(layer(x), x, gradient)
    (theirs,) = torch.autograd.grad(plain(x), x, gradient)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(layer(x), layer(x.detach()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@every_spec
@every_layer
def test_bad_inputs_name_the_layer(quantize, make, shape, text, limit, value):
    layer, x = quantize(make(), text, limit=limit), torch.ones(shape)
    x[(-1,) * len(shape)] = value
    kind = "NaN" if value != value else "Inf"
    if layer.spec.activation is None:
        assert not layer(x).isfinite().all()
        return
    message = f"^input of layer 'block.layer': a tensor must be finite to be quantized, but it holds {kind}$"
    with pytest.raises(NonFiniteError, match=message):
        layer(x)


@pytest.mark.parametrize("text", ["w4a8-s4/8-tensor", "w8a8-tensor", "mxfp4", "nvfp4", "w4a8-sfp16/8-tensor"])
@every_layer
def test_bad_weights_name_the_layer(quantize, make, shape, text):
    layer = make()
    with torch.no_grad():
        layer.weight[(-1,) * layer.weight.dim()] = torch.nan
    message = "^weight of layer 'block.layer': a tensor must be finite to be quantized, but it holds NaN$"
    with pytest.raises(NonFiniteError, match=message):
        quantize(layer, text)


def test_weight_scales_outside_fp16_name_layer_and_channel():
    weight = torch.ones(4, 16)
    weight[2] = 1e-7
    fmt = IntegerFormat(bits=4, scale="fp16")
    with pytest.raises(ScaleRangeError, match=r"^weight of layer 'head': a scale kept as fp16 .* \(channel 2\)"):
        quantize_weight(weight, fmt, name="head")


def test_input_scales_outside_fp16_name_the_layer(quantize):
    layer = quantize(nn.Linear(20, 5), "w4a8-s4/fp16")
    with pytest.raises(ScaleRangeError, match=r"^input of layer 'block.layer': a scale kept as fp16"):
        layer(torch.full((1, 20), 1e-6))


@pytest.mark.parametrize("text", ["w4a4-s4/6-v4-tensor", "w4a4-s4/6-v4-p6-tensor"])
@every_layer
def test_wrong_channels_are_refused(quantize, make, shape, text):
    layer, axis = make(), 1
    channels = shape[axis]
    with pytest.raises(ShapeError, match=f"^input of layer 'block.layer' must have {channels} channels, not 3$"):
        quantize(layer, text)(torch.ones(shape[0], 3, *shape[2:]))


def test_wrong_dimensions_are_refused(quantize):
    layer = quantize(nn.Conv2d(6, 5, 3), "w4a4-s4/6-v4-tensor")
    for wrong in ((6, 5), (1, 2, 6, 5, 5)):
        message = rf"^input of layer 'block.layer' must have 4 dimensions \(N, C, 2 spatial\), not {len(wrong)}$"
        with pytest.raises(ShapeError, match=message):
            layer(torch.ones(wrong))


@every_layer
def test_a_static_scale_must_be_calibrated(quantize, make, shape):
    message = r"^layer 'block.layer' has a static activation scale \(w4a4-s4/6-v4\), so it must be calibrated: give"
    with pytest.raises(CalibrationError, match=message):
        quantize(make(), "w4a4-s4/6-v4")


@pytest.mark.parametrize("make", [lambda: nn.Conv1d(6, 5, 3), lambda: nn.Conv2d(6, 5, 3)])
def test_a_convolution_has_no_tokens(quantize, make):
    with pytest.raises(
        SpecError, match=r"^layer 'block.layer': a convolution has no tokens; use -tensor or -static, not"
    ):
        quantize(make(), "w4a4-s4/6-v4-token")


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("w4a4-s4/6", True),
        ("w8a8", True),
        ("w4a4-s4/6-tensor", False),
        ("w4a4-s4/fp32", False),
        ("w4a16-s4/x", False),
        ("mxfp4", False),
    ],
)
def test_which_specs_need_a_range(text, needed):
    assert needs_range(LayerSpec.parse(text)) == needed


def test_printing_a_model_shows_the_specs(quantize):
    assert "w4a4-s4/6-v16, weight=(5, 20)" in repr(quantize(nn.Linear(20, 5), "w4a4-s4/6", limit=1.0))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize(("text", "limit"), [("w4a4-s4/6", 1.0), ("w4a8-s4/8-token", None), ("nvfp4", None)])
def test_layers_compile_into_one_graph(quantize, text, limit, backend):
    layer, x = quantize(nn.Linear(20, 5), text, limit=limit), torch.randn(3, 4, 20)
    torch._dynamo.reset()
    assert torch.equal(torch.compile(layer, fullgraph=True, backend=backend)(x), layer(x))


@every_layer
def test_layers_can_be_exported(quantize, make, shape):
    layer, x = quantize(make(), "w4a4-s4/6-v4", limit=1.0), torch.randn(shape)
    exported = torch.export.export(layer, (x,))
    assert torch.equal(exported.module()(x), layer(x))
    targets = [str(node.target) for node in exported.graph.nodes]
    assert "vsquant.fake_quantize.default" in targets
