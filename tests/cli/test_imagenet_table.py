"""The comparison with published figures on ResNet-50, from end to end on a folder of a few images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vsquant.tasks.models import resnet

CONFIG = {
    "architecture": "resnet50",
    "num_classes": 3,
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """An ImageFolder of three classes, with eight images each to calibrate and four to evaluate with."""
    folder = tmp_path / "imagenet"
    for label, name in enumerate(("ant", "bee", "cow")):
        for number in range(12):
            path = folder / ("train" if number < 8 else "val") / name / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(100 * label + number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
    return folder


@pytest.fixture
def thin_resnet50(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of ResNet-50 with all its kinds of layers, but few channels and blocks, in the hub's form."""
    monkeypatch.setattr(resnet, "_STAGES", ((16, 2, 1), (16, 1, 2), (16, 1, 2), (16, 1, 2)))
    torch.manual_seed(0)
    folder = tmp_path / "resnet50"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(resnet.ResNet50(3).state_dict(), folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("options", "methods"),
    [
        (("--rows", "4/4U", "--scales", "4/6,fp32", "--method", "gptq", "--first-last", "8bit"), {"gptq"}),
        (("--rows", "4/16,3/16", "--scales", "4/x", "--method", "gptq"), {"gptq"}),
        (("--rows", "4/4U/4/6", "--methods", "paper,gptq,reconstruct:iterations=2"), {"rtn", "gptq", "reconstruct"}),
    ],
    ids=["all", "weights", "methods"],
)
def test_a_folder_of_images_becomes_a_table(vsquant_program, photographs, thin_resnet50, options, methods) -> None:
    words = ("table", "imagenet-resnet50", "--model", thin_resnet50, "--data", photographs, *options)
    ended = vsquant_program(*words, "--calibration-samples", 12, "--no-per-channel", "--json")
    assert ended.status == 0, ended.err
    table = json.loads(ended.out)
    assert table["samples"] == 12 and table["calibration_samples"] == 12 and not table["refusals"]
    assert {cell["method"].partition(":")[0] for cell in table["cells"]} == methods
    assert len(table["cells"]) == len(table["rows"]) * len(table["columns"])
    assert all(len(cell["layers"]) >= 20 for cell in table["cells"])
