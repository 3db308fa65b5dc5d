"""Writes checkpoint-v1.safetensors and what it must give, once: the files of a version are never written again."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

import vsquant
from vsquant.tasks.models.digits_cnn import DigitsCnn

HERE = Path(__file__).parent
ARCHITECTURE = {"family": "digits-cnn", "widths": "4,8", "blocks": "1"}
RECIPE = """
rules:
  - {match: conv, spec: w4a4u-s4/6-v2}
  - {match: blocks.0.conv1, spec: w4a16-s4/x}
  - {match: blocks.0.conv2, spec: w3a16-s6/x-v8-full-g16}
  - {match: blocks.1.conv1, spec: w4a16-s4/x-top}
  - {match: blocks.1.conv2, spec: w8a16}
  - {match: "blocks.1.shortcut*", spec: w4a16-sfp16/x}
  - {match: linear, spec: int4-g128}
"""


def main() -> None:
    """Only the first layer quantizes activations: its input is exact, so no rounding can turn on a last bit."""
    target = HERE / "checkpoint-v1.safetensors"
    if target.exists():
        raise SystemExit(f"{target} is there, and stays as it is")
    torch.manual_seed(2022)
    model = DigitsCnn((4, 8), 1).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2)
    images = torch.randint(0, 17, (3, 1, 8, 8)).float() / 16
    quantized = vsquant.quantize(model, vsquant.Recipe.from_yaml(RECIPE), calibration=[images])
    with torch.inference_mode():
        expected = {"images": images, "logits": quantized(images)}
    for name, layer in vsquant.quantized_layers(quantized):
        expected[f"{name}.weight"] = layer.weight.clone(memory_format=torch.contiguous_format)
    vsquant.save(quantized, target, architecture=ARCHITECTURE)
    save_file(expected, HERE / "checkpoint-v1.expected.safetensors")


if __name__ == "__main__":
    main()
