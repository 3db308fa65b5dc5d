"""Loading gives the saved model: the same outputs, bit for bit, and the same record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant.nn import QuantLayer
from vsquant.tasks.models.digits_cnn import DigitsCnn

EMBEDDINGS = {"rules": [{"type": "embedding", "spec": "w4a16-s4/x"}, {"spec": "w4a8-s4/6"}]}
MATMULS = {"rules": [{"type": "matmul", "spec": "w8a8-s4/6"}, {"spec": "w4a8-s4/6"}]}


def outputs(model: nn.Module, batch: Any) -> Tensor:
    with torch.inference_mode():
        output = model(**batch) if isinstance(batch, Mapping) else model(batch)
    if isinstance(output, Tensor):
        return output
    return output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits])


def assert_same(saved: nn.Module, loaded: nn.Module, batch: Any) -> None:
    expected, given = outputs(saved, batch), outputs(loaded, batch)
    assert given.dtype == expected.dtype
    assert torch.equal(given, expected)
    assert vsquant.quantization_record(loaded) == vsquant.quantization_record(saved)
    assert [name for name, _ in vsquant.quantized_layers(loaded)] == [n for n, _ in vsquant.quantized_layers(saved)]
    assert not any(module.training for module in loaded.modules())


@pytest.mark.parametrize(
    "spec",
    ["w4a4u-s4/6", "w4a4u-s4/6-p6", "w4a8-s4/x", "w4a8-s4/6-tensor", "w4a16-s4/x-top", "w3a8-s4/4-v8-full-g16", "w8a8",
     "w4a4-sfp16", "w4a4u-sfp32", "nvfp4", "nvfp4-4over6", "mxfp4", "mxint8", "int4-g128"],
)  # fmt: skip
def test_convolutions(spec: str, make_conv_net, images: Tensor, tmp_path: Path) -> None:
    model = make_conv_net()
    quantized = vsquant.quantize(model, spec, calibration=[images])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    loaded = vsquant.load(tmp_path / "m.safetensors", model=make_conv_net())
    assert_same(quantized, loaded, images)
    assert loaded.mix is loaded.mix_again
    assert isinstance(loaded.norm, nn.Identity)


def test_shapes_are_kept(make_conv_net, images: Tensor, tmp_path: Path) -> None:
    quantized = vsquant.quantize(make_conv_net(), "w4a4u-s4/6", calibration=[images])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    shapes = vsquant.quantization_record(vsquant.load(tmp_path / "m.safetensors", model=make_conv_net())).workloads
    assert shapes == vsquant.quantization_record(quantized).workloads
    assert [(s.name, s.calls) for s in shapes] == [
        ("stem", 1), ("depthwise", 1), ("grouped", 1), ("mix", 2), ("head", 1),
    ]  # fmt: skip
    assert {s.workload.input_size for s in shapes} == {(6, 6), None} and shapes[1].workload.groups == 20


def test_the_fallback_of_a_depthwise_convolution_is_kept(make_conv_net, images: Tensor, tmp_path: Path) -> None:
    quantized = vsquant.quantize(make_conv_net(), "w4a4-s4/6", calibration=[images])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    loaded = dict(vsquant.quantized_layers(vsquant.load(tmp_path / "m.safetensors", model=make_conv_net())))
    assert str(loaded["depthwise"].spec) == "w8a8" and str(loaded["mix"].spec) == "w4a4-s4/6-v16"


@pytest.mark.parametrize("integer", [False, True])
def test_a_model_that_is_itself_one_layer(integer: bool, tmp_path: Path) -> None:
    batch = torch.randn(4, 20)
    saved = vsquant.quantize(nn.Linear(20, 6), "w4a8-s4/6", calibration=[batch])
    saved = vsquant.to_integer(saved) if integer else saved
    vsquant.save(saved, tmp_path / "m.safetensors")
    assert_same(saved, vsquant.load(tmp_path / "m.safetensors", model=nn.Linear(20, 6)), batch)


@pytest.mark.parametrize("scale_mode", ["paper", "requantize", "search"])
def test_scale_modes(scale_mode: Any, make_mlp, rows: Tensor, tmp_path: Path) -> None:
    quantized = vsquant.quantize(make_mlp(), "w3a3-s3/3", calibration=[rows], scale_mode=scale_mode)
    vsquant.save(quantized, tmp_path / "m.safetensors")
    loaded = vsquant.load(tmp_path / "m.safetensors", model=make_mlp())
    assert_same(quantized, loaded, rows)
    record = vsquant.quantization_record(loaded)
    assert record == vsquant.quantization_record(quantized)
    assert (record.scale_mode, record.method) == (scale_mode, "search" if scale_mode == "search" else "rtn")


def test_the_model_given_is_left_as_it_was_and_its_weights_do_not_matter(make_mlp, rows: Tensor, tmp_path: Path):
    quantized = vsquant.quantize(make_mlp(), "w4a8-s4/6", calibration=[rows])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    other = make_mlp()
    with torch.no_grad():
        other[0].weight.zero_()
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    assert_same(quantized, vsquant.load(tmp_path / "m.safetensors", model=other), rows)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


def test_a_non_persistent_buffer_is_the_saved_one(make_conv_net, images: Tensor, tmp_path: Path) -> None:
    quantized = vsquant.quantize(make_conv_net(), "w4a8-s4/6", calibration=[images])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    other = make_conv_net()
    other.gain.fill_(-1.0)
    assert_same(quantized, vsquant.load(tmp_path / "m.safetensors", model=other), images)


def test_an_architecture_that_is_named_is_built(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.rand(5, 1, 8, 8)
    quantized = vsquant.quantize(DigitsCnn((4, 8), 1).eval(), "w4a4u-s4/6", calibration=[images])
    architecture = {"family": "digits-cnn", "widths": "4,8", "blocks": "1"}
    vsquant.save(quantized, tmp_path / "m.safetensors", architecture=architecture)
    assert_same(quantized, vsquant.load(tmp_path / "m.safetensors"), images)


def test_saving_a_loaded_model_gives_the_same_file(make_conv_net, images: Tensor, tmp_path: Path) -> None:
    quantized = vsquant.quantize(make_conv_net(), "w4a8-s4/6", calibration=[images])
    vsquant.save(quantized, tmp_path / "a.safetensors")
    vsquant.save(vsquant.load(tmp_path / "a.safetensors", model=make_conv_net()), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_loaded_model_outlives_its_file(make_mlp, rows: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    quantized = vsquant.quantize(make_mlp(), "w4a8-s4/6", calibration=[rows])
    vsquant.save(quantized, path)
    loaded = vsquant.load(path, model=make_mlp())
    path.write_bytes(b"\0" * path.stat().st_size)
    assert_same(quantized, loaded, rows)


@pytest.fixture(scope="module")
def tokens() -> dict[str, Tensor]:
    mask = torch.ones(3, 10, dtype=torch.long)
    mask[0, 7:] = 0
    return {
        "input_ids": torch.randint(0, 50, (3, 10), generator=torch.Generator().manual_seed(2)),
        "attention_mask": mask,
    }


def bert(**options: Any) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **sizes, **options)
    return transformers.BertForQuestionAnswering(config).eval()


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=32, n_layer=1, n_head=2, **ends)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("recipe", [EMBEDDINGS, MATMULS, {"rules": [{"match": "*.query", "spec": "w4a4-s4/6-token"}]}])
def test_bert_describes_itself(recipe: dict[str, Any], tokens: dict[str, Tensor], tmp_path: Path) -> None:
    quantized = vsquant.quantize(bert(), vsquant.Recipe.from_mapping(recipe), calibration=[tokens])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    assert_same(quantized, vsquant.load(tmp_path / "m.safetensors"), tokens)
    assert_same(quantized, vsquant.load(tmp_path / "m.safetensors", model=bert()), tokens)


def test_the_attention_implementation_is_kept(tokens: dict[str, Tensor], tmp_path: Path) -> None:
    quantized = vsquant.quantize(bert(attn_implementation="eager"), "w4a8-s4/6", calibration=[tokens])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    loaded = vsquant.load(tmp_path / "m.safetensors")
    assert loaded.config._attn_implementation == "eager"
    assert_same(quantized, loaded, tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_comes_back_in_it(
    dtype: torch.dtype, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    recipe = vsquant.Recipe.from_mapping(EMBEDDINGS)
    quantized = vsquant.quantize(bert().to(dtype), recipe, calibration=[tokens])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    assert outputs(quantized, tokens).dtype == dtype
    assert_same(quantized, vsquant.load(tmp_path / "m.safetensors"), tokens)


def test_tied_weights_are_stored_once_and_tied_again(tokens: dict[str, Tensor], tmp_path: Path, read_contents) -> None:
    recipe = vsquant.Recipe.from_mapping({"rules": [{"match": "lm_head", "skip": True}, {"spec": "w4a8-s4/6"}]})
    quantized = vsquant.quantize(gpt2(), recipe, calibration=[tokens])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    header, tensors = read_contents(tmp_path / "m.safetensors")
    assert header["tied"] == {"lm_head.weight": "transformer.wte.weight"}
    assert "lm_head.weight" not in tensors
    loaded = vsquant.load(tmp_path / "m.safetensors")
    assert loaded.lm_head.weight is loaded.transformer.wte.weight
    assert_same(quantized, loaded, tokens)


def test_a_quantized_head_beside_a_float_embedding(tokens: dict[str, Tensor], tmp_path: Path) -> None:
    quantized = vsquant.quantize(gpt2(), "w4a8-s4/6-token")
    vsquant.save(quantized, tmp_path / "m.safetensors")
    assert_same(quantized, vsquant.load(tmp_path / "m.safetensors"), tokens)


@pytest.mark.parametrize("spec", ["int4-g128", "nvfp4", "w4a16-s4/x", "w4a8-s4/6-tensor"])
def test_weights_keep_their_layout_because_kernels_choose_by_it(spec: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 20, 1)).eval()
    batch = torch.randn(4, 3, 8, 8)
    quantized = vsquant.quantize(model, spec, calibration=[batch])
    vsquant.save(quantized, tmp_path / "m.safetensors")
    loaded = vsquant.load(tmp_path / "m.safetensors", model=model)
    for saved_layer, loaded_layer in zip(quantized, loaded, strict=True):
        if isinstance(saved_layer, QuantLayer):
            assert loaded_layer.weight.stride() == saved_layer.weight.stride()
    assert_same(quantized, loaded, batch)
