from __future__ import annotations

import pytest
import torch
from torch import nn

import vsquant
from vsquant import Recipe, Rule
from vsquant.errors import CalibrationError, SpecError
from vsquant.nn import QuantEmbedding, QuantLinear, QuantMatmul
from vsquant.results.layers import LayerReport
from vsquant.transform.attention import attention_entries, attention_modules

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MATMUL = Rule(type="matmul", spec="w8a8-s4/8")


def bert() -> nn.Module:
    return transformers.BertForQuestionAnswering(transformers.BertConfig(**SIZES))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2))


def resnet() -> nn.Module:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], num_labels=5)
    return transformers.ResNetForImageClassification(config)


def vit() -> nn.Module:
    """Casts its input to the dtype of its first layer's weight."""
    sizes = {name: size for name, size in SIZES.items() if name != "vocab_size"}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, image_size=32, patch_size=8))


def mobilenet() -> nn.Module:
    """Reads the geometry of its convolutions in its own padding."""
    return transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(depth_multiplier=0.25))


def made(build) -> nn.Module:
    torch.manual_seed(0)
    model = build().eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.normal_(norm.running_mean)
    return model


def batch(model: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator)}
    mask = (torch.arange(20) < torch.tensor([20, 12]).unsqueeze(1)).long()
    return {"input_ids": torch.randint(3, 50, (2, 20), generator=generator), "attention_mask": mask}


def outputs(model: nn.Module) -> torch.Tensor:
    inputs = batch(model)
    with torch.no_grad():
        y = model(**inputs)[0]
    return y[inputs["attention_mask"].bool()] if "attention_mask" in inputs else y


def reports(model: nn.Module) -> dict[str, LayerReport]:
    return {layer.name: layer for layer in vsquant.quantization_record(model).layers}


def error(model: nn.Module, quantized: nn.Module) -> float:
    expected = outputs(model)
    return float((outputs(quantized) - expected).norm() / expected.norm())


@pytest.mark.parametrize("build", [bert, gpt2, llama, resnet])
@pytest.mark.parametrize(("spec", "bound"), [("w8a8-s8/8", 0.03), ("w6a6u-s6/6-p10-tensor", 0.15), ("nvfp4", 0.5)])
def test_real_structures_stay_near_the_float_model_and_leave_it_alone(build, spec: str, bound: float) -> None:
    model = made(build)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    expected = outputs(model)
    attends = bool(attention_modules(model))
    recipe = Recipe(rules=(Rule(spec=spec), *([Rule(type="matmul", spec=spec)] if attends else [])))
    quantized = vsquant.quantize(model, recipe, calibration=[batch(model)])
    assert 0 < error(model, quantized) < bound
    assert attends == any(isinstance(module, QuantMatmul) for module in quantized.modules())
    assert torch.equal(outputs(model), expected)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_resnets_fold_all_their_batch_norms() -> None:
    model = made(resnet)
    quantized = vsquant.quantize(model, "w8a8-s8/8", calibration=[batch(model)])
    record = vsquant.quantization_record(quantized)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert sorted(norm for _, norm in record.folded) == sorted(norms)
    assert record.unfolded == ()


def test_attention_is_quantized_only_where_asked() -> None:
    model = made(bert)
    plain = vsquant.quantize(model, "w8a8-s4/8", calibration=[batch(model)])
    assert attention_entries(plain) == ()
    assert reports(plain)["bert.encoder.layer.0.attention.self"].note == "give it a rule with type: matmul"
    asked = Recipe(rules=(Rule(match="*.layer.1.*", type="matmul", spec="w8a8-s4/8"), Rule(spec="w8a8-s4/8")))
    quantized = vsquant.quantize(model, asked, calibration=[batch(model)])
    (entry,) = attention_entries(quantized)
    assert entry.name == "bert.encoder.layer.1.attention.self"
    assert [len(x) for x in entry.ranges] == [4, 4, 4, 4]
    report = reports(quantized)[entry.name]
    assert (report.kind, report.spec, report.requested) == ("matmul", "w8a8-s4/8-v16", "w8a8-s4/8-v16")
    assert (report.weights, report.padding) == (0, 0.0)
    assert all(0 < x <= 1 for x in entry.ranges.probabilities.tolist())


def test_matmul_ranges_are_the_largest_magnitudes_of_each_head() -> None:
    model = made(gpt2)
    seen = {}
    attention = model.transformer.h[0].attn
    attention.c_attn.register_forward_hook(lambda module, args, out: seen.update(qkv=out))
    inputs = batch(model)
    with torch.no_grad():
        model(**inputs)
    real = seen["qkv"][inputs["attention_mask"].bool()].view(-1, 3, 4, 8)
    quantized = vsquant.quantize(model, Recipe(rules=(MATMUL,)), calibration=[inputs])
    ranges = attention_entries(quantized)[0].ranges
    for operand, position in (("query", 0), ("key", 1), ("value", 2)):
        assert torch.equal(getattr(ranges, operand), real[:, position].abs().amax(dim=(0, 2)))


def test_matmuls_with_static_scales_need_calibration_data() -> None:
    message = r"layer 'bert\.encoder\.layer\.0\.attention\.self' with w8a8-s4/8-v16 needs its input observed"
    with pytest.raises(CalibrationError, match=message):
        vsquant.quantize(made(bert), Recipe(rules=(MATMUL,)))
    dynamic = Recipe(rules=(Rule(type="matmul", spec="w8a8-s4/8-token"),))
    assert attention_entries(vsquant.quantize(made(bert), dynamic))[0].ranges is None
    with pytest.raises(SpecError, match="both operands are activations"):
        vsquant.quantize(made(bert), Recipe(rules=(Rule(type="matmul", spec="w4a16-s4/x"),)))


def test_attention_that_calibration_does_not_reach_is_named() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = made(bert), made(bert)

        def forward(self, **inputs: torch.Tensor) -> object:
            return self.used(**inputs)

    model = Pair()
    recipe = Recipe(rules=(Rule(match="unused.*", type="matmul", spec="w8a8-s4/8"),))
    with pytest.raises(CalibrationError, match=r"matmul 'unused\S+' with w8a8-s4/8-v16 needs calibration data that"):
        vsquant.quantize(model, recipe, calibration=[batch(model.used)])


def test_tied_embeddings_are_quantized_apart_and_noted() -> None:
    model = made(gpt2)
    recipe = Recipe(rules=(Rule(spec="w4a8-s4/8"), Rule(match="*.wte", type="embedding", spec="w4a8-s4/8")))
    quantized = vsquant.quantize(model, recipe, calibration=[batch(model)])
    wte, head = quantized.transformer.wte, quantized.lm_head
    assert isinstance(wte, QuantEmbedding) and isinstance(head, QuantLinear)
    assert torch.equal(wte.weight_codes, head.weight_codes)
    assert reports(quantized)["lm_head"].note == "weight tied to transformer.wte.weight"
    assert reports(quantized)["transformer.wte"].spec == "w4a16-s4/x-v16"
    head_only = vsquant.quantize(model, "w4a8-s4/8", calibration=[batch(model)])
    assert head_only.transformer.wte.weight.equal(model.transformer.wte.weight)
    assert not head_only.lm_head.weight.equal(model.lm_head.weight)


def test_gpt2_keeps_the_shapes_of_its_transposed_layers() -> None:
    model = made(gpt2)
    quantized = vsquant.quantize(model, "w8a8-s8/8", calibration=[batch(model)])
    layer = quantized.transformer.h[0].attn.c_attn
    assert (layer.in_features, layer.out_features) == (32, 96)
    torch.testing.assert_close(layer.weight, model.transformer.h[0].attn.c_attn.weight.detach().t(), atol=1e-2, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("build", [bert, gpt2, llama, resnet, vit])
def test_half_precision_models_run_and_keep_their_dtype(build, dtype: torch.dtype) -> None:
    model = made(build).to(dtype)
    inputs = {name: x.to(dtype) if x.is_floating_point() else x for name, x in batch(model).items()}
    rules = (Rule(spec="w8a8-s8/8"), *([MATMUL] if attention_modules(model) else []))
    quantized = vsquant.quantize(model, Recipe(rules=rules), calibration=[inputs])
    with torch.no_grad():
        given, expected = quantized(**inputs)[0], model(**inputs)[0]
    assert given.dtype == dtype
    assert (given - expected).float().norm() < 0.1 * expected.float().norm()


def test_a_model_that_pads_by_the_geometry_of_its_convolutions() -> None:
    model = made(mobilenet)
    quantized = vsquant.quantize(model, "w8a8-s8/8-v8", calibration=[batch(model)])
    assert any("fallback" in report.note for report in reports(quantized).values())
    torch.testing.assert_close(outputs(quantized), outputs(model), rtol=0, atol=0.1 * float(outputs(model).abs().max()))
