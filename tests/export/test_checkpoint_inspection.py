"""What an inspection says, against counting by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant.errors import CheckpointError
from vsquant.export.inspection import inspect
from vsquant.packing import packed_bytes
from vsquant.results.inspection import LayerInspection
from vsquant.spec import LayerSpec


@pytest.fixture(scope="module")
def conv_checkpoint(tmp_path_factory: pytest.TempPathFactory, make_conv_net, images: Tensor) -> Path:
    path = tmp_path_factory.mktemp("inspected") / "conv.safetensors"
    recipe = vsquant.Recipe.from_mapping({"rules": [{"match": "head", "skip": True}, {"spec": "w4a4-s4/6"}]})
    vsquant.save(vsquant.quantize(make_conv_net(), recipe, calibration=[images]), path)
    return path


def by_name(path: Path, model: nn.Module | None = None) -> dict[str, LayerInspection]:
    return {layer.name: layer for layer in inspect(path, model).layers}


@pytest.mark.parametrize(
    ("spec", "shape", "expected"),
    [
        ("w4a16-s4/x", (8, 32), 8 * 32 // 2 + 8 * 2 // 2 + 8 * 4),
        ("w4a16-s4/x", (8, 20), 8 * 20 // 2 + 8 * 2 // 2 + 8 * 4),
        ("w4a16-s4/x-g16", (8, 32), 8 * 32 // 2 + 8 * 2 // 2 + 8 * 2),
        ("w3a16-s10/x-v4", (5, 3, 3, 3), 5 * math.ceil(27 * 3 / 8) + 5 * math.ceil(9 * 10 / 8) + 5 * 4),
        ("w3a16", (5, 3), 5 * math.ceil(3 * 3 / 8) + 5 * 4),
        ("w4a16-sfp16/x", (2, 16), 2 * 16 // 2 + 2 * 2),
        ("w4a16-sfp32/x", (2, 17), 2 * math.ceil(17 / 2) + 4 * 4),
        ("nvfp4", (2, 16), 2 * 16 // 2 + 2 + 4),
        ("mxfp4", (2, 33), 2 * 33 // 2 + 4),
    ],
)
def test_packed_bytes(spec: str, shape: tuple[int, ...], expected: int) -> None:
    assert packed_bytes(torch.Size(shape), LayerSpec.parse(spec).weight) == expected


def test_layers_without_a_model(conv_checkpoint: Path) -> None:
    layers = by_name(conv_checkpoint)
    assert {name: layer.shape for name, layer in layers.items()} == {
        "stem": (20, 3, 3, 3), "depthwise": (20, 1, 3, 3), "grouped": (20, 10, 1, 1), "mix": (20, 20, 1, 1),
    }  # fmt: skip
    assert layers["mix"].elements == 400 and layers["mix"].stored_bytes == 20 * 20 // 2 + 20 + 20 * 4
    assert layers["mix"].bits_per_weight == 8 * (200 + 20 + 80) / 400
    assert layers["depthwise"].spec == "w8a8" and "fallback" in layers["depthwise"].note
    assert layers["depthwise"].scale_codes_used is None
    assert layers["mix"].note == "shared with mix_again"
    assert all(layer.sqnr_db is None for layer in layers.values())


def test_totals(conv_checkpoint: Path, make_conv_net) -> None:
    inspection = inspect(conv_checkpoint)
    assert inspection.file_bytes == conv_checkpoint.stat().st_size
    assert inspection.left_float == (("head", "skipped by the recipe"),)
    biases, head, gain, ranges = 4 * 20, 20 * 5 + 5, 5, 4
    assert inspection.float_bytes == 4 * (biases + head + gain + ranges)
    assert inspection.elements == sum(layer.elements for layer in inspection.layers)
    others = biases + head + gain + ranges
    assert inspection.float32_bytes == 4 * (inspection.elements + others) == 2 * inspection.float16_bytes


def test_the_file_is_what_it_says_and_a_header(conv_checkpoint: Path) -> None:
    inspection = inspect(conv_checkpoint)
    length = int.from_bytes(conv_checkpoint.read_bytes()[:8], "little")
    assert all(layer.file_bytes == layer.stored_bytes for layer in inspection.layers)
    assert inspection.file_bytes == 8 + length + inspection.stored_bytes + inspection.float_bytes


def test_4_bits_with_4_bit_scales_are_4_25_bits_in_the_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4096, 256, bias=False)).eval()
    vsquant.save(vsquant.quantize(model, "w4a16-s4/x"), tmp_path / "m.safetensors")
    inspection = inspect(tmp_path / "m.safetensors")
    gamma_bytes = 4 * 256
    assert inspection.stored_bytes - gamma_bytes == 4096 * 256 * 4.25 / 8
    assert inspection.file_bytes < inspection.stored_bytes + 2048


def test_what_version_1_stored_in_bytes_is_told(version_1_checkpoint: Path, small_checkpoint: Path) -> None:
    old, new = inspect(version_1_checkpoint), inspect(small_checkpoint)
    assert (old.format_version, new.format_version) == (1, 2)
    assert old.stored_bytes == new.stored_bytes == new.weight_file_bytes
    assert old.layers[0].file_bytes == 6 * 32 + 6 * 2 * 2 + 6 * 4


def test_the_scale_codes_in_use_are_counted(conv_checkpoint: Path, make_conv_net) -> None:
    loaded = vsquant.load(conv_checkpoint, model=make_conv_net())
    used = {name: int(layer.weight_vector_scale.unique().numel()) for name, layer in vsquant.quantized_layers(loaded)
            if layer.spec.weight.two_level}  # fmt: skip
    layers = by_name(conv_checkpoint)
    assert {name: layers[name].scale_codes_used for name in used} == used
    assert {layers[name].scale_codes_total for name in used} == {16}


def test_sqnr_is_that_of_the_folded_weights(conv_checkpoint: Path, make_conv_net) -> None:
    model = make_conv_net()
    layers = by_name(conv_checkpoint, model)
    loaded = dict(vsquant.quantized_layers(vsquant.load(conv_checkpoint, model=model)))
    scale = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    for name, weight in {"stem": model.stem.weight * scale.view(-1, 1, 1, 1), "mix": model.mix.weight}.items():
        noise = (weight - loaded[name].weight).double().square().sum()
        expected = 10 * torch.log10(weight.double().square().sum() / noise)
        assert layers[name].sqnr_db == pytest.approx(expected.item(), rel=1e-5)
    assert isinstance(model.norm, nn.BatchNorm2d)


def test_sqnr_without_noise_or_signal(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 2, bias=False), nn.Linear(2, 2, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(-7.0, 9.0).clamp(max=7).expand(2, -1))
        model[1].weight.zero_()
    vsquant.save(vsquant.quantize(model, "w4a16"), tmp_path / "m.safetensors")
    layers = by_name(tmp_path / "m.safetensors", model)
    assert layers["0"].sqnr_db == math.inf and layers["1"].sqnr_db is None


def test_comparison_formats_and_matmuls(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(vocab_size=30, **sizes)).eval()
    recipe = vsquant.Recipe.from_mapping(
        {"rules": [{"type": "matmul", "spec": "w8a8-s4/6-tensor"}, {"match": "*.query", "spec": "nvfp4"}]}
    )
    vsquant.save(vsquant.quantize(model, recipe), tmp_path / "m.safetensors")
    layers = by_name(tmp_path / "m.safetensors", model)
    query = layers["bert.encoder.layer.0.attention.self.query"]
    assert (query.spec, query.shape, query.stored_bytes) == ("nvfp4", (32, 32), 512 + 64 + 4)
    assert query.sqnr_db is not None and 15 < query.sqnr_db < 30
    matmul = layers["bert.encoder.layer.0.attention.self"]
    assert (matmul.kind, matmul.elements, matmul.stored_bytes, matmul.sqnr_db) == ("matmul", 0, 0, None)
    assert "transformers BertForQuestionAnswering" in inspect(tmp_path / "m.safetensors").architecture


def test_a_float_model_that_was_not_quantized_to_this_is_refused(
    conv_checkpoint: Path, make_conv_net, make_mlp
) -> None:
    with pytest.raises(CheckpointError, match="does not fit the float model: batch-norm pair"):
        inspect(conv_checkpoint, make_mlp())
    other = make_conv_net()
    other.mix = other.mix_again = nn.Conv2d(20, 4, 1)
    with pytest.raises(CheckpointError, match=r"weight of 'mix' must be \(20, 20, 1, 1\), not \(4, 20, 1, 1\)"):
        inspect(conv_checkpoint, other)


def test_a_report_that_does_not_fit_the_codes_is_refused(
    conv_checkpoint: Path, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(conv_checkpoint)
    for report in header["report"]:
        report["weights"] += 1
    path = forge_checkpoint(tmp_path / "f.safetensors", header, tensors)
    with pytest.raises(CheckpointError, match="layer 'stem' must hold the 541 weights of the header's"):
        inspect(path)
    path = forge_checkpoint(tmp_path / "f.safetensors", header | {"report": []}, tensors)
    with pytest.raises(CheckpointError, match="must report on its layer 'stem'"):
        inspect(path)
