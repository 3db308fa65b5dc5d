"""Files of version 1 are read for ever, and give what they gave."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file

import vsquant
from vsquant.export.inspection import inspect

CHECKPOINT = Path(__file__).parent / "checkpoint-v1.safetensors"
EXPECTED = load_file(Path(__file__).parent / "checkpoint-v1.expected.safetensors")
SHA256 = "038a95d00f98998b75f9862abcd84b8e7c6e37fbafe8fc62468ec37e8f2e274a"
SPECS = {
    "conv": "w4a4u-s4/6-v2",
    "blocks.0.conv1": "w4a16-s4/x-v16",
    "blocks.0.conv2": "w3a16-s6/x-v8-full-g16",
    "blocks.1.conv1": "w4a16-s4/x-v16-top",
    "blocks.1.conv2": "w8a16",
    "blocks.1.shortcut.0": "w4a16-sfp16/x-v16",
    "linear": "int4-g128",
}


def test_nobody_rewrote_the_file() -> None:
    assert hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest() == SHA256


def test_weights_are_bit_for_bit_what_they_were() -> None:
    layers = dict(vsquant.quantized_layers(vsquant.load(CHECKPOINT)))
    assert {name: str(layer.spec) for name, layer in layers.items()} == SPECS
    for name, layer in layers.items():
        assert torch.equal(layer.weight, EXPECTED[f"{name}.weight"]), name


def test_outputs_are_what_they_were() -> None:
    model = vsquant.load(CHECKPOINT)
    with torch.inference_mode():
        logits = model(EXPECTED["images"])
    torch.testing.assert_close(logits, EXPECTED["logits"], rtol=1e-4, atol=1e-5)
    assert vsquant.quantization_record(model).calibration_samples == 3


def test_it_can_be_inspected() -> None:
    inspection = inspect(CHECKPOINT)
    assert {layer.name: layer.spec for layer in inspection.layers} == SPECS
    assert [layer.stored_bytes for layer in inspection.layers] == [70, 322, 143, 644, 608, 80, 660]
