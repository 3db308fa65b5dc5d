from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from vsquant import reference
from vsquant.errors import CalibrationError, RecipeError, ShapeError, SpecError
from vsquant.nn.matmul import operand_formats
from vsquant.spec.layer import LayerSpec
from vsquant.transform.attention import (
    SLOT,
    AttentionEntry,
    attention_entries,
    attention_modules,
    observed_attention,
    place_matmuls,
    ranges_in_state,
)
from vsquant.transform.attention_core import AttentionRanges, visible_in

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
LENGTHS = [20, 12, 17]
HEADS = 4


def bert() -> nn.Module:
    return transformers.BertForQuestionAnswering(transformers.BertConfig(**SIZES))


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2))


def gemma2() -> nn.Module:
    config = transformers.Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=8, sliding_window=6)
    return transformers.Gemma2ForCausalLM(config)


def bart() -> nn.Module:
    heads = {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 1), ("ffn_dim", 64))}
    return transformers.BartModel(transformers.BartConfig(vocab_size=50, d_model=32, **heads, **sizes))


def t5() -> nn.Module:
    return transformers.T5Model(
        transformers.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    )


def made(build) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()


def batch(model: nn.Module, *, padding: int = 7) -> dict[str, torch.Tensor]:
    """Three texts of different lengths; every padding token is ``padding``."""
    mask = (torch.arange(20) < torch.tensor(LENGTHS).unsqueeze(1)).long()
    ids = torch.randint(3, 50, (3, 20), generator=torch.Generator().manual_seed(1))
    ids = torch.where(mask.bool(), ids, padding)
    decoder = {"decoder_input_ids": ids[:, :9]} if model.config.is_encoder_decoder else {}
    return {"input_ids": ids, "attention_mask": mask, **decoder}


@torch.no_grad()
def output(model: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**inputs)[0]


def real(x: torch.Tensor) -> torch.Tensor:
    """The outputs (samples, positions, ...) of real tokens."""
    return torch.cat([row[:length] for row, length in zip(x, LENGTHS, strict=True)])


def entry(name: str, text: str, ranges: AttentionRanges | None = None) -> AttentionEntry:
    return AttentionEntry(name=name, spec=LayerSpec.parse(text), scale_mode="requantize", ranges=ranges)


def with_all_matmuls(model: nn.Module, text: str) -> nn.Module:
    place_matmuls(model, [entry(name, text) for name in attention_modules(model)])
    return model


@pytest.mark.parametrize(
    ("build", "count", "first"),
    [
        (bert, 2, "bert.encoder.layer.0.attention.self"),
        (gpt2, 2, "transformer.h.0.attn"),
        (llama, 2, "model.layers.0.self_attn"),
        (t5, 3, "encoder.block.0.layer.0.SelfAttention"),
    ],
)
def test_attention_modules_are_recognized_without_a_run(build, count: int, first: str) -> None:
    found = list(attention_modules(made(build)))
    assert (len(found), found[0]) == (count, first)


def test_models_without_attention_have_no_attention_modules() -> None:
    assert attention_modules(nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2))) == {}


@pytest.mark.parametrize(
    ("build", "implementation"),
    [
        (bert, "sdpa"),
        (bert, "eager"),
        (gpt2, "sdpa"),
        (llama, "eager"),
        (gemma2, "eager"),
        (bart, "sdpa"),
        (t5, "sdpa"),
    ],
)
def test_observed_attention_computes_what_the_model_computes(build, implementation: str) -> None:
    model = made(build)
    model.set_attn_implementation(implementation)
    inputs = batch(model)
    before = output(model, inputs)
    with observed_attention(model, list(attention_modules(model))) as cores:
        during = output(model, inputs)
        assert all(len(core.statistics) == 4 for core in cores.values())
    compared = (lambda x: x) if model.config.is_encoder_decoder else real
    torch.testing.assert_close(compared(during), compared(before), rtol=1e-5, atol=2e-6)
    assert torch.equal(output(model, inputs), before)
    assert SLOT not in dict(model.named_modules()).keys() | {name.rpartition(".")[2] for name in model.state_dict()}


@pytest.mark.parametrize(("build", "pairs"), [(bert, sum(n * n for n in LENGTHS)), (llama, 20 * 21 // 2 + 78 + 153)])
def test_only_what_is_not_masked_is_observed(build, pairs: int) -> None:
    model = made(build)
    statistics = []
    for padding in (7, 41):
        with observed_attention(model, list(attention_modules(model))) as cores, torch.no_grad():
            model(**batch(model, padding=padding))
            statistics.append({name: core.statistics for name, core in cores.items()})
    for first, second in zip(statistics[0].values(), statistics[1].values(), strict=True):
        totals = {operand: seen.total for operand, seen in first.items()}
        assert totals == {"query": 49 * 8, "key": 49 * 8, "probabilities": pairs, "value": 49 * 8}
        assert {operand: seen.groups for operand, seen in first.items()} == dict.fromkeys(totals, HEADS)
        for operand, seen in first.items():
            assert seen.fingerprint() == second[operand].fingerprint()


def test_observing_ends_even_when_the_model_fails() -> None:
    model = made(bert)
    config = model.bert.encoder.layer[0].attention.self.config
    with pytest.raises(ZeroDivisionError), observed_attention(model, list(attention_modules(model))):
        raise ZeroDivisionError
    assert model.bert.encoder.layer[0].attention.self.config is config
    assert not [name for name, _ in model.named_modules() if SLOT in name]


@pytest.mark.parametrize("text", ["w8a8-s4/8-tensor", "w4a4-s4/6-p6-token", "w8a8-tensor", "nvfp4"])
@pytest.mark.parametrize("build", [bert, llama])
def test_padding_tokens_change_nothing(build, text: str) -> None:
    model = with_all_matmuls(made(build), text)
    first, second = (output(model, batch(model, padding=padding)) for padding in (7, 41))
    assert torch.equal(real(first), real(second))


@pytest.mark.parametrize("build", [bert, gpt2, llama])
def test_masks_of_both_implementations_mean_the_same(build) -> None:
    model = made(build)
    inputs = batch(model)
    outputs = []
    for implementation in ("sdpa", "eager"):
        model.set_attn_implementation(implementation)
        quantized = with_all_matmuls(copy.deepcopy(model), "w4a4-s4/6-tensor")
        outputs += [output(quantized, inputs), output(quantized, {"input_ids": inputs["input_ids"]})]
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])


def test_other_modules_and_the_model_itself_stay_as_they_were() -> None:
    model = made(bert)
    inputs = batch(model)
    quantized = copy.deepcopy(model)
    place_matmuls(quantized, [entry("bert.encoder.layer.1.attention.self", "w2a2-tensor")])
    hidden = [m.bert(**inputs, output_hidden_states=True).hidden_states for m in (model, quantized)]
    assert torch.equal(hidden[0][1], hidden[1][1])
    assert not torch.equal(hidden[0][2], hidden[1][2])
    assert quantized.config._attn_implementation == model.config._attn_implementation == "sdpa"


def captured(core: nn.Module, model: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Both operands and the result of ``core``'s products in one run."""
    seen = {}
    hooks = [
        getattr(core, name).register_forward_hook(lambda m, args, out, name=name: seen.update({name: (*args, out)}))
        for name in ("scores", "context")
    ]
    output(model, batch(model))
    for hook in hooks:
        hook.remove()
    return seen


def by_reference(x: torch.Tensor, fmt, range_: torch.Tensor | None, share: str) -> torch.Tensor:
    """``x`` (N, H, rows, length), gamma per head of one sample or per row, or from the head's range."""
    heads = [
        [
            reference.quantize(
                head.contiguous().numpy(), fmt, share, coarse_range=None if range_ is None else float(range_[h])
            ).dequantize()
            for h, head in enumerate(sample)
        ]
        for sample in x
    ]
    return torch.from_numpy(np.array(heads))


@pytest.mark.parametrize(
    ("text", "share"), [("w8a4-s4/6", "tensor"), ("w8a4-s4/6-tensor", "tensor"), ("w8a6-token", "row")]
)
@pytest.mark.parametrize("build", [bert, llama])
def test_products_are_of_the_operands_that_the_reference_gives(build, text: str, share: str) -> None:
    model = made(build)
    (name, *_) = attention_modules(model)
    spec = LayerSpec.parse(text)
    ranges = AttentionRanges(*(torch.tensor([0.1, 0.2, 0.3, 0.4]) * scale for scale in (1, 2, 1, 3)))
    place_matmuls(model, [entry(name, text, None if spec.is_dynamic else ranges)])
    core = model.get_submodule(f"{name}.{SLOT}")
    for product, (a, b, ours) in captured(core, model).items():
        formats = operand_formats(spec.activation, unsigned_a=product == "context")
        limits = (None, None) if spec.is_dynamic else ranges[:2] if product == "scores" else ranges[2:]
        left = by_reference(a, formats[0], limits[0], share)
        right = by_reference(b.transpose(-1, -2), formats[1], limits[1], share)
        torch.testing.assert_close(ours, left @ right.transpose(-1, -2), rtol=1e-5, atol=1e-6)
    assert core.context.format_a.signed is False
    assert core.context.format_a.bits == spec.activation.bits


def test_masked_operands_are_zero_and_probabilities_sum_to_one() -> None:
    model = with_all_matmuls(made(llama), "w8a8-tensor")
    (core, *_) = [module for name, module in model.named_modules() if name.endswith(SLOT)]
    seen = captured(core, model)
    padding = torch.arange(20) >= torch.tensor(LENGTHS).unsqueeze(1)
    query, key, _ = seen["scores"]
    probabilities, value, _ = seen["context"]
    for x in (query, key.transpose(-1, -2), value, probabilities):
        assert x.transpose(1, 2)[padding].abs().sum() == 0
        assert (x.transpose(1, 2)[~padding].abs().sum(-1) > 0).all()
    assert probabilities.triu(1).abs().sum() == 0
    torch.testing.assert_close(real(probabilities.sum(-1).transpose(1, 2)), torch.ones(49, HEADS))


def test_one_sample_does_not_see_the_others() -> None:
    model = with_all_matmuls(made(bert), "w4a4-s4/6-tensor")
    inputs = batch(model)
    alone = output(model, {name: x[1:2] for name, x in inputs.items()})
    torch.testing.assert_close(alone[:, :12], output(model, inputs)[1:2, :12], rtol=1e-5, atol=1e-6)


def test_entries_place_the_same_products_in_another_copy() -> None:
    model, fresh = made(llama), made(llama)
    ranges = AttentionRanges(*(torch.rand(HEADS) for _ in range(4)))
    names = list(attention_modules(model))
    place_matmuls(model, [entry(names[0], "w8a4-s4/6", ranges), entry(names[1], "w8a8-s4/8-token")])
    entries = attention_entries(model)
    assert [e.name for e in entries] == names
    assert [str(e.spec) for e in entries] == ["w8a4-s4/6-v16", "w8a8-s4/8-v16-token"]
    state = model.state_dict()
    blank = AttentionRanges(*(torch.ones(HEADS) for _ in range(4)))
    place_matmuls(fresh, [entry(names[0], "w8a4-s4/6", blank), entries[1]])
    fresh.load_state_dict(state)
    for ours, theirs in zip(ranges_in_state(names[0], fresh.state_dict()), ranges, strict=True):
        assert torch.equal(ours, theirs)
    assert ranges_in_state(names[1], state) is None
    assert torch.equal(output(fresh, batch(fresh)), output(model, batch(model)))


def test_half_of_the_ranges_is_refused() -> None:
    state = {f"attn.{SLOT}.scores.range_a": torch.ones(2), f"attn.{SLOT}.scores.range_b": torch.ones(2)}
    with pytest.raises(CalibrationError, match="attention 'attn' must have 4 ranges, not 2"):
        ranges_in_state("attn", state)


def test_quantized_attention_is_an_ordinary_module() -> None:
    model = with_all_matmuls(made(gpt2), "w8a8-s4/8-tensor")
    clone = copy.deepcopy(model)
    assert torch.equal(output(clone, batch(clone)), output(model, batch(model)))
    text = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False)
    assert text.shape == (1, 7)
    half = model.to(torch.bfloat16)
    assert output(half, batch(half)).dtype == torch.bfloat16
    model.train()
    model(**batch(model))[0].sum().backward()
    assert model.transformer.wte.weight.grad.abs().sum() > 0


def test_what_cannot_be_quantized_is_refused() -> None:
    model = made(bert)
    name = "bert.encoder.layer.0.attention.self"
    with pytest.raises(RecipeError, match=r"matmul 'bert\.pooler' must be an attention module of a transformers model"):
        place_matmuls(model, [entry("bert.pooler", "w8a8-tensor")])
    with pytest.raises(CalibrationError, match=r"matmul 'bert\S+ \(scores\)' has static activation scales"):
        place_matmuls(model, [entry(name, "w8a8")])
    with pytest.raises(SpecError, match="both operands are activations"):
        place_matmuls(model, [entry(name, "w4a16-s4/x")])
    model.bert.encoder.layer[0].attention.self.config = copy.copy(model.config)
    model.bert.encoder.layer[0].attention.self.config._attn_implementation = "flash_attention_2"
    with pytest.raises(RecipeError, match="must run as 'sdpa' or 'eager' to be quantized, not 'flash_attention_2'"):
        place_matmuls(model, [entry(name, "w8a8-tensor")])


def test_attention_sinks_are_refused() -> None:
    config = transformers.GptOssConfig(
        **SIZES, num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1
    )
    torch.manual_seed(0)
    model = with_all_matmuls(transformers.GptOssForCausalLM(config).eval(), "w8a8-tensor")
    with pytest.raises(RecipeError, match=r"attention with sinks \(s_aux\) must stay floating point"):
        output(model, batch(model))


def test_masks_of_other_shapes_are_refused() -> None:
    x = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ShapeError, match=r"attention mask must be .* not of shape \(1, 3\)"):
        visible_in(torch.ones(1, 3), x, x, causal=False, own_positions=True)


def test_a_query_that_sees_no_key_gives_zero() -> None:
    model = with_all_matmuls(made(llama), "w8a8-s4/8-tensor")
    inputs = batch(model)
    inputs["attention_mask"] = inputs["attention_mask"].flip(1)
    contexts = []
    core = next(module for name, module in model.named_modules() if name.endswith(SLOT))
    core.context.register_forward_hook(lambda module, args, out: contexts.append(out))
    assert torch.isfinite(output(model, inputs)).all()
    blind = inputs["attention_mask"] == 0
    assert contexts[0].transpose(1, 2)[blind].abs().sum() == 0
    assert (contexts[0].transpose(1, 2)[~blind].abs().sum(-1) > 0).all()
