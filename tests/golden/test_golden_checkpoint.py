"""Files of every version are read for ever, and give what they gave."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import vsquant
from vsquant.export import read_header
from vsquant.export.header import FORMAT_VERSION
from vsquant.export.inspection import inspect

HERE = Path(__file__).parent
SHA256 = {
    "checkpoint-v1": "038a95d00f98998b75f9862abcd84b8e7c6e37fbafe8fc62468ec37e8f2e274a",
    "checkpoint-v2": "4155ac36e6ce1fba1d1edccb57d47974f6e81660a684d5c58bfe8ac62ae333be",
    "kinds-v2": "62bc008ecc931ed1959186d41382a32eed9c5a8165a46c1c6fbbd9b9d2d9576c",
}
DIGITS_SPECS = {
    "conv": "w4a4u-s4/6-v2",
    "blocks.0.conv1": "w4a16-s4/x-v16",
    "blocks.0.conv2": "w3a16-s6/x-v8-full-g16",
    "blocks.1.conv1": "w4a16-s4/x-v16-top",
    "blocks.1.conv2": "w8a16",
    "blocks.1.shortcut.0": "w4a16-sfp16/x-v16",
    "linear": "int4-g128",
}
KINDS_SPECS = {
    "words": "w4a16-s4/x-v16",
    "places": "w6a16-s6/x-v4-g16",
    "along": "w2a16-s2/x-v2-full-top",
    "square": "w5a16-s3/x-v3",
    "apart": "w8a16",
    "mix": "w7a16-s10/x-v8-full",
    "narrow": "w3a16-sfp16/x-v4",
    "wide": "w6a16-sfp32/x-v8",
    "dense": "w4a16-s9/x-v16",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
}
SPECS = {"checkpoint-v1": DIGITS_SPECS, "checkpoint-v2": DIGITS_SPECS, "kinds-v2": KINDS_SPECS}
STORED_BYTES = {
    "checkpoint-v1": [56, 108, 92, 216, 608, 32, 60],
    "checkpoint-v2": [56, 108, 92, 216, 608, 32, 60],
    "kinds-v2": [165, 126, 567, 1040, 140, 288, 289, 475, 561, 316, 144],
}

every_file = pytest.mark.parametrize("name", sorted(SHA256))


def maker():
    spec = importlib.util.spec_from_file_location("make_checkpoint", HERE / "make_checkpoint.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(name: str) -> nn.Module:
    return vsquant.load(HERE / f"{name}.safetensors", model=maker().Kinds() if name.startswith("kinds") else None)


def expected(name: str) -> dict[str, torch.Tensor]:
    found = load_file(HERE / f"{name}.expected.safetensors")
    return found | {"inputs": found["images"]} if "images" in found else found


@every_file
def test_nobody_rewrote_the_file(name: str) -> None:
    assert hashlib.sha256((HERE / f"{name}.safetensors").read_bytes()).hexdigest() == SHA256[name]


def test_the_maker_refuses_to_write_again() -> None:
    with pytest.raises(SystemExit, match="is there, and stays as it is"):
        maker().main()


def test_the_current_version_has_a_file() -> None:
    assert {f"checkpoint-v{version}" for version in range(1, FORMAT_VERSION + 1)} <= SHA256.keys()
    for name in SHA256:
        assert read_header(HERE / f"{name}.safetensors").format_version == int(name[-1])


@every_file
def test_weights_are_bit_for_bit_what_they_were(name: str) -> None:
    layers, wanted = dict(vsquant.quantized_layers(load(name))), expected(name)
    assert {layer_name: str(layer.spec) for layer_name, layer in layers.items()} == SPECS[name]
    for layer_name, layer in layers.items():
        assert torch.equal(layer.weight, wanted[f"{layer_name}.weight"]), layer_name


@every_file
def test_outputs_are_what_they_were(name: str) -> None:
    model, wanted = load(name), expected(name)
    with torch.inference_mode():
        logits = model(wanted["inputs"])
    torch.testing.assert_close(logits, wanted["logits"], rtol=1e-4, atol=1e-5)
    assert vsquant.quantization_record(model).calibration_samples in (0, len(wanted["inputs"]))


@every_file
def test_it_can_be_inspected(name: str) -> None:
    inspection = inspect(HERE / f"{name}.safetensors")
    assert {layer.name: layer.spec for layer in inspection.layers} == SPECS[name]
    assert [layer.stored_bytes for layer in inspection.layers] == STORED_BYTES[name]


def test_version_1_becomes_the_file_of_version_2(tmp_path: Path) -> None:
    """Nothing about a model is lost, and nothing in the file depends on the machine."""
    again = tmp_path / "again.safetensors"
    vsquant.save(load("checkpoint-v1"), again, architecture=maker().ARCHITECTURE)
    golden = HERE / "checkpoint-v2.safetensors"
    written, wanted = load_file(again), load_file(golden)
    assert list(written) == list(wanted)
    assert all(written[tensor].numpy().tobytes() == wanted[tensor].numpy().tobytes() for tensor in wanted)
    same = {"vsquant_version": read_header(golden).vsquant_version}
    assert read_header(again).model_copy(update=same) == read_header(golden)
