"""Writes the checkpoints of the current version and what they must give, once: no file of a version is written again.

``checkpoint-vN`` is a network of convolutions that vsquant builds by itself, ``kinds-vN`` (from version 2 on) one of
every kind of layer that it does not know. Version 1 was written by this script at version 1.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import vsquant
from vsquant.export.header import FORMAT_VERSION
from vsquant.tasks.models.digits_cnn import DigitsCnn

HERE = Path(__file__).parent
ARCHITECTURE = {"family": "digits-cnn", "widths": "4,8", "blocks": "1"}
DIGITS_RECIPE = """
rules:
  - {match: conv, spec: w4a4u-s4/6-v2}
  - {match: blocks.0.conv1, spec: w4a16-s4/x}
  - {match: blocks.0.conv2, spec: w3a16-s6/x-v8-full-g16}
  - {match: blocks.1.conv1, spec: w4a16-s4/x-top}
  - {match: blocks.1.conv2, spec: w8a16}
  - {match: "blocks.1.shortcut*", spec: w4a16-sfp16/x}
  - {match: linear, spec: int4-g128}
"""
KINDS_RECIPE = """
rules:
  - {match: words, type: embedding, spec: w4a16-s4/x}
  - {match: places, type: embedding, spec: w6a16-s6/x-v4-g16}
  - {match: along, spec: w2a16-s2/x-v2-full-top}
  - {match: square, spec: w5a16-s3/x-v3}
  - {match: apart, spec: w8a16}
  - {match: mix, spec: w7a16-s10/x-v8-full}
  - {match: narrow, spec: w3a16-sfp16/x-v4}
  - {match: wide, spec: w6a16-sfp32/x-v8}
  - {match: dense, spec: w4a16-s9/x}
  - {match: nvfp4, spec: nvfp4}
  - {match: mxfp4, spec: mxfp4}
  - {match: head, skip: true}
"""


class Kinds(nn.Module):
    """Tokens (batch, 6) to logits (batch, 3), through a layer of each kind and the awkward sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(11, 20), nn.Embedding(6, 20)
        self.along = nn.Conv1d(20, 21, 3, padding=1)
        self.square = nn.Conv2d(21, 20, (1, 3), padding=(0, 1), bias=False)
        self.apart = nn.Conv2d(20, 20, (1, 3), padding=(0, 1), groups=20)
        self.mix = nn.Conv2d(20, 18, 1, groups=2)
        self.narrow, self.wide = nn.Linear(18, 17), nn.Linear(17, 19, bias=False)
        self.dense, self.nvfp4, self.mxfp4 = nn.Linear(19, 33), nn.Linear(33, 16), nn.Linear(16, 16)
        self.mxfp4_again, self.head = self.mxfp4, nn.Linear(16, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """Eager, and nothing fused."""
        x = self.words(tokens) + self.places(torch.arange(6))
        x = self.mix(self.apart(self.square(self.along(x.mT).unsqueeze(2)).relu())).squeeze(2).mT
        x = self.nvfp4(self.dense(self.wide(self.narrow(x)).relu()))
        logits: Tensor = self.head(self.mxfp4_again(self.mxfp4(x).tanh()).mean(dim=1))
        return logits


def write(name: str, quantized: nn.Module, inputs: Tensor, architecture: dict[str, str] | None) -> None:
    """The checkpoint, and beside it its inputs, outputs and float32 weights."""
    with torch.inference_mode():
        expected = {"inputs": inputs, "logits": quantized(inputs)}
    for layer_name, layer in vsquant.quantized_layers(quantized):
        expected[f"{layer_name}.weight"] = layer.weight.clone(memory_format=torch.contiguous_format)
    vsquant.save(quantized, HERE / f"{name}.safetensors", architecture=architecture)
    save_file(expected, HERE / f"{name}.expected.safetensors")


def digits() -> nn.Module:
    """Only the first layer quantizes activations: its input is exact, so no rounding can turn on a last bit."""
    model = DigitsCnn((4, 8), 1).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
    return model


def main() -> None:
    """Both checkpoints, if the version has none."""
    target = HERE / f"checkpoint-v{FORMAT_VERSION}.safetensors"
    if target.exists():
        raise SystemExit(f"{target} is there, and stays as it is")
    torch.manual_seed(2022)
    model, images = digits(), torch.randint(0, 17, (3, 1, 8, 8)).float() / 16
    quantized = vsquant.quantize(model, vsquant.Recipe.from_yaml(DIGITS_RECIPE), calibration=[images])
    write(target.stem, quantized, images, ARCHITECTURE)
    tokens = torch.randint(0, 11, (4, 6))
    quantized = vsquant.quantize(Kinds().eval(), vsquant.Recipe.from_yaml(KINDS_RECIPE), calibration=[tokens])
    write(f"kinds-v{FORMAT_VERSION}", quantized, tokens, None)


if __name__ == "__main__":
    main()
