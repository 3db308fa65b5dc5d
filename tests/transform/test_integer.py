"""From simulated models to integer ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vsquant
from vsquant import Recipe, Rule
from vsquant.errors import BackendError, SpecError, VsquantError
from vsquant.nn import IntegerConv2d, IntegerEmbedding, IntegerLayer, IntegerLinear, IntegerMatmul, QuantLayer


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(20, 20, 3, groups=20),
        nn.Flatten(),
        nn.Linear(20 * 36, 10),
    ).eval()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w4a8-s4/x-tensor", "w8a8", "w4a8-s4/fp32"])
def test_the_integer_model_computes_what_the_simulated_one_does(images, spec: str) -> None:
    simulated = vsquant.quantize(network(), spec, calibration=[images])
    before = simulated(images)
    integer = vsquant.to_integer(simulated)
    torch.testing.assert_close(integer(images), before, rtol=1e-4, atol=1e-4)
    assert torch.equal(simulated(images), before)
    assert not integer.training
    kinds = [type(layer) for _, layer in vsquant.quantized_layers(integer)]
    assert kinds == [IntegerConv2d, IntegerConv2d, IntegerLinear]


def test_specs_and_weights_can_be_asked_for(images) -> None:
    simulated = vsquant.quantize(network(), "w4a4u-s4/6", calibration=[images])
    integer = vsquant.to_integer(simulated)
    pairs = zip(vsquant.quantized_layers(integer), vsquant.quantized_layers(simulated), strict=True)
    for (name, ours), (expected, theirs) in pairs:
        assert (name, ours.spec) == (expected, theirs.spec)
        assert torch.equal(ours.weight_codes, theirs.weight_codes)
        assert torch.equal(ours.weight_coarse_scale, theirs.weight_coarse_scale)
    assert vsquant.quantization_record(integer) == vsquant.quantization_record(simulated)


def test_no_float_weight_is_kept(images) -> None:
    simulated = vsquant.quantize(network(), "w4a8-s4/x-tensor")
    integer = vsquant.to_integer(simulated)
    assert not any(isinstance(module, QuantLayer) for module in integer.modules())
    assert not any(t.is_floating_point() and t.dim() > 1 for t in (*integer.buffers(), *integer.parameters()))


def test_shared_layers_stay_shared(images) -> None:
    model = network()
    model.append(model[4])
    model[4] = nn.Linear(20 * 36, 20 * 36)
    model[5] = model[4]
    integer = vsquant.to_integer(vsquant.quantize(model, "w4a8-s4/x-tensor"))
    assert integer[4] is integer[5]
    assert isinstance(integer[4], IntegerLayer)


def test_a_single_layer() -> None:
    x = torch.randn(3, 16)
    simulated = vsquant.quantize(nn.Linear(16, 8), "w4a8-s4/x-tensor")
    torch.testing.assert_close(vsquant.to_integer(simulated)(x), simulated(x))


def test_a_transformer_with_attention_and_embeddings() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes, intermediate_size=72)).eval()
    batch = {"input_ids": torch.randint(3, 50, (2, 11))}
    recipe = Recipe(
        rules=(
            Rule(type="linear", spec="w4a8-s4/8"),
            Rule(type="embedding", spec="w4a16-s4/x"),
            Rule(type="matmul", spec="w8a8-s4/6"),
        )
    )
    simulated = vsquant.quantize(model, recipe, calibration=[batch])
    integer = vsquant.to_integer(simulated)
    theirs, ours = simulated(**batch), integer(**batch)
    torch.testing.assert_close(ours.start_logits, theirs.start_logits, rtol=1e-2, atol=1e-2)
    kinds = {type(module) for module in integer.modules()}
    assert {IntegerLinear, IntegerEmbedding, IntegerMatmul} <= kinds


def test_an_integer_model_compiles_into_one_graph(images) -> None:
    integer = vsquant.to_integer(vsquant.quantize(network(), "w4a4u-s4/6", calibration=[images]))
    compiled = torch.compile(integer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(images), integer(images))


def test_an_integer_model_can_be_exported(images) -> None:
    integer = vsquant.to_integer(vsquant.quantize(network(), "w4a4u-s4/6", calibration=[images]), chain=False)
    program = torch.export.export(integer, (images,))
    assert torch.equal(program.module()(images), integer(images))
    called = [str(node.target) for node in program.graph.nodes if "vsquant" in str(node.target)]
    assert len(called) == 3


def test_a_float_model_is_refused() -> None:
    with pytest.raises(VsquantError) as error:
        vsquant.to_integer(network())
    assert str(error.value) == ("the model must come from vsquant.quantize or vsquant.load, not be a float model")


def test_an_integer_model_is_refused() -> None:
    integer = vsquant.to_integer(vsquant.quantize(network(), "w4a8-s4/x-tensor"))
    with pytest.raises(VsquantError) as error:
        vsquant.to_integer(integer)
    assert str(error.value) == (
        "the model must be a simulated one, not an integer model: that runs on integers as it is"
    )


def test_comparison_formats_are_refused() -> None:
    with pytest.raises(SpecError) as error:
        vsquant.to_integer(vsquant.quantize(nn.Sequential(nn.Linear(32, 8)), "mxfp4"))
    assert str(error.value) == (
        "layer '0' must have an integer format to run on integers, not the comparison format mxfp4, which is simulated "
        "only"
    )


def test_a_backend_that_cannot_run_a_layer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    depthwise_vectors = Recipe(rules=(Rule(spec="w4a8-s4/4-tensor"),), fallback="w8a8-sx/4-v2-tensor")
    simulated = vsquant.quantize(network(), depthwise_vectors)
    monkeypatch.setenv("VSQUANT_BACKEND", "cpu")
    with pytest.raises(BackendError, match=r"^VSQUANT_BACKEND must not be 'cpu' for conv2d: "):
        vsquant.to_integer(simulated)
