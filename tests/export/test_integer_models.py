"""The file of an integer model is that of its simulated model, and gives the integer model back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import vsquant
from vsquant.errors import CheckpointError
from vsquant.export import read_header
from vsquant.export.inspection import inspect
from vsquant.nn import IntegerEmbedding, IntegerLayer, IntegerMatmul
from vsquant.tasks.models.digits_cnn import DigitsCnn


def integer_parts(model: nn.Module) -> list[str]:
    return [
        f"{name}: {type(module).__name__}"
        for name, module in model.named_modules()
        if isinstance(module, (IntegerLayer, IntegerMatmul))
    ]


def assert_round_trip(simulated: nn.Module, base: nn.Module | None, batch: Any, folder: Path) -> nn.Module:
    """What is loaded gives the bits of what was saved, from tensors that are those of the simulated model's file."""
    integer = vsquant.to_integer(simulated)
    vsquant.save(simulated, folder / "simulated.safetensors")
    vsquant.save(integer, folder / "integer.safetensors")
    wanted, written = load_file(folder / "simulated.safetensors"), load_file(folder / "integer.safetensors")
    assert list(written) == list(wanted)
    assert all(torch.equal(written[name], tensor) for name, tensor in wanted.items())
    headers = [read_header(folder / f"{form}.safetensors") for form in ("simulated", "integer")]
    assert [header.form for header in headers] == ["simulated", "integer"]
    assert headers[1].model_copy(update={"form": "simulated"}) == headers[0]
    loaded = vsquant.load(folder / "integer.safetensors", model=base)
    assert integer_parts(loaded) == integer_parts(integer) != []
    assert vsquant.quantization_record(loaded) == vsquant.quantization_record(simulated)
    with torch.inference_mode():
        given, expected = (m(**batch) if isinstance(batch, dict) else m(batch) for m in (loaded, integer))
    if not isinstance(given, Tensor):
        given, expected = given.start_logits, expected.start_logits
    assert given.dtype == expected.dtype and torch.equal(given, expected)
    return loaded


@pytest.mark.parametrize(
    "spec",
    ["w4a4u-s4/6", "w4a4u-s4/6-p6", "w4a8-s4/x", "w4a8-s4/6-tensor", "w4a16-s4/x-top", "w3a8-s4/4-v8-full-g16", "w8a8",
     "w4a4-sfp16", "w6a8-s10/4-v32"],
)  # fmt: skip
def test_convolutions(spec: str, make_conv_net, images: Tensor, tmp_path: Path) -> None:
    quantized = vsquant.quantize(make_conv_net(), spec, calibration=[images])
    loaded = assert_round_trip(quantized, make_conv_net(), images, tmp_path)
    assert loaded.get_submodule("mix") is loaded.get_submodule("mix_again")


def test_an_unchained_model_stays_unchained(make_conv_net, images: Tensor, tmp_path: Path) -> None:
    simulated = vsquant.quantize(make_conv_net(), "w4a8-s4/6", calibration=[images])
    for chain in (True, False):
        vsquant.save(vsquant.to_integer(simulated, chain=chain), tmp_path / "m.safetensors")
        loaded = vsquant.load(tmp_path / "m.safetensors", model=make_conv_net())
        assert read_header(tmp_path / "m.safetensors").chained is chain
        assert vsquant.chain_report(loaded) == vsquant.chain_report(vsquant.to_integer(simulated, chain=chain))
        assert bool(vsquant.chain_report(loaded).layers) is chain


def test_a_header_that_does_not_say_whether_it_is_chained_is(make_conv_net, images: Tensor, tmp_path: Path) -> None:
    simulated = vsquant.quantize(make_conv_net(), "w4a8-s4/6", calibration=[images])
    vsquant.save(vsquant.to_integer(simulated), tmp_path / "m.safetensors")
    header = read_header(tmp_path / "m.safetensors")
    text = header.model_dump_json(exclude={"chained"})
    assert "chained" not in text and type(header).parse(text, "m").chained


def test_a_model_that_the_header_describes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.rand(5, 1, 8, 8)
    quantized = vsquant.quantize(DigitsCnn((4, 8), 1).eval(), "w4a4u-s4/6", calibration=[images])
    architecture = {"family": "digits-cnn", "widths": "4,8", "blocks": "1"}
    integer = vsquant.to_integer(quantized)
    vsquant.save(integer, tmp_path / "m.safetensors", architecture=architecture)
    with torch.inference_mode():
        assert torch.equal(vsquant.load(tmp_path / "m.safetensors")(images), integer(images))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bert_with_embeddings_and_attention_products(dtype: torch.dtype, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **sizes)
    model = transformers.BertForQuestionAnswering(config).to(dtype).eval()
    batch = {"input_ids": torch.randint(0, 50, (3, 10)), "attention_mask": torch.ones(3, 10, dtype=torch.long)}
    rules = [
        {"type": "matmul", "spec": "w8a8-s4/6"},
        {"type": "embedding", "spec": "w4a16-s4/x"},
        {"spec": "w4a8-s4/6"},
    ]
    quantized = vsquant.quantize(model, vsquant.Recipe.from_mapping({"rules": rules}), calibration=[batch])
    loaded = assert_round_trip(quantized, None, batch, tmp_path)
    kinds = {type(module) for module in loaded.modules()}
    assert {IntegerMatmul, IntegerEmbedding} <= kinds


def test_saving_what_was_loaded_gives_the_same_file(make_conv_net, images: Tensor, tmp_path: Path) -> None:
    quantized = vsquant.quantize(make_conv_net(), "w4a8-s4/6", calibration=[images])
    vsquant.save(vsquant.to_integer(quantized), tmp_path / "a.safetensors")
    vsquant.save(vsquant.load(tmp_path / "a.safetensors", model=make_conv_net()), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_an_inspection_says_which_form_it_is(make_mlp, tmp_path: Path) -> None:
    quantized = vsquant.quantize(make_mlp(), "w4a16-s4/x")
    for form, model in (("simulated", quantized), ("integer", vsquant.to_integer(quantized))):
        vsquant.save(model, tmp_path / "m.safetensors")
        assert inspect(tmp_path / "m.safetensors").form == form


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("nvfp4", "must have quantized layers of integer formats, not nvfp4, which is simulated only"),
        (None, "must have quantized layers of integer formats, not none"),
    ],
)
def test_a_header_that_cannot_be_an_integer_models_is_refused(
    spec: str | None, problem: str, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    vsquant.save(vsquant.quantize(make_mlp(), spec or "w4a16-s4/x"), path)
    header, tensors = read_contents(path)
    header |= {"form": "integer"} | ({} if spec else {"layers": []})
    forge_checkpoint(path, header, tensors)
    with pytest.raises(CheckpointError, match=problem):
        vsquant.load(path, model=make_mlp())
