"""``vsquant hw rtl`` as it is typed: what it writes, and what it refuses. Nothing here needs a simulator."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import vsquant
from vsquant.hardware.rtl.generate import write_design
from vsquant.hardware.rtl.golden import Golden


def test_help_shows_an_example(vsquant_program) -> None:
    ended = vsquant_program("hw", "rtl", "--help", columns=200)
    assert ended.status == 0 and re.search(r"Example: `?vsquant hw rtl ", ended.out)


def test_a_spec_becomes_a_folder(vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program("hw", "rtl", "4/4U/4/6", "-o", tmp_path / "element", "--positions", 4)
    assert ended.status == 0 and "synthetic" in ended.out
    folder = tmp_path / "element"
    files = (folder / "filelist.f").read_text().split()
    assert "rtl/vsq_top.sv" in files and all((folder / name).is_file() for name in files)
    facts = json.loads((folder / "design.json").read_text())
    assert (facts["spec"], facts["parameters"]["DEPTH"], facts["parameters"]["HAS_PPU"]) == ("w4a4u-s4/6-v16", 4, 1)
    assert len((folder / "golden" / "activations.hex").read_text().split()) == 2 * 12 * 9
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["element"]


def test_a_checkpoint_gives_its_own_layers_words(vsquant_program, tiny, tmp_path: Path) -> None:
    task = tiny["make_tiny"]("tiny", data=None, model=None)
    model = vsquant.quantize(task.load_model(), "w4a4u-s4/6-v4", calibration=task.calibration_batches(8))
    checkpoint = tmp_path / "tiny.safetensors"
    vsquant.save(model, checkpoint)
    ended = vsquant_program("hw", "rtl", checkpoint, "--task", "tiny", "-o", tmp_path / "element", columns=200)
    assert ended.status == 0, ended.err
    origin = re.search(r"Golden words: layer (\S+) of tiny.safetensors: (\d+) of (\d+) output channels", ended.out)
    assert origin and origin[2] == origin[3]
    weights = dict(vsquant.quantized_layers(model))[origin[1]].weight_codes
    words = (tmp_path / "element" / "golden" / "weights.hex").read_text().split()
    first = [int(words[0], 16) >> 4 * i & 15 for i in range(4)]
    assert first == [int(code) & 15 for code in weights.reshape(-1, 4)[0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nvfp4",), "not the comparison format 'nvfp4'"),
        (("w4a16-s4/x",), "an integer sum needs a quantized activation; a16 keeps it in floating point"),
        (("w4a4-sfp32",), "integer vector scales or none on the weight, not fp32"),
        (("w4a8-s4/8-tensor",), "must have a static activation scale, not w4a8-s4/8-v16-tensor: a dynamic gamma"),
        (("w4a8", "--next", "w4a8-token"), "must have a static activation scale"),
        (("w4a4u-s4/6", "--lanes", "12"), "lanes must be a power of two, not 12"),
        (("w4a4u-s4/6", "--lanes", "8"), "lanes must be a multiple of the 16 channels of one output vector, not 8"),
        (("w4a4u-s4/6", "--layer", "conv1"), "--layer and --task must go with a checkpoint"),
        (("none.safetensors",), "none.safetensors must be a readable file"),
        (("none.safetensors", "--task", "tiny"), "none.safetensors must be a readable file"),
        (("none.safetensors", "--task", "tiny", "--next", "w4a4"), "--next must be left out for a checkpoint"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, message, vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program("hw", "rtl", *arguments, "-o", tmp_path / "element", columns=300)
    assert ended.status == 1 and message in ended.err
    assert not (tmp_path / "element").exists()


def test_a_folder_that_exists_is_left_alone(vsquant_program, tmp_path: Path) -> None:
    (tmp_path / "element").mkdir()
    ended = vsquant_program("hw", "rtl", "w8a8", "-o", tmp_path / "element", columns=200)
    assert ended.status == 1 and "must be a folder that does not exist yet; remove it or name another" in ended.err
    assert not list((tmp_path / "element").iterdir())


def test_a_checkpoint_of_another_network_is_refused(vsquant_program, tiny, tmp_path: Path) -> None:
    other = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    vsquant.save(vsquant.quantize(other, "w4a4u-s4/6-v4", calibration=[torch.rand(2, 1, 8, 8)]), tmp_path / "other")
    arguments = ("--task", "tiny", "-o", tmp_path / "element")
    ended = vsquant_program("hw", "rtl", tmp_path / "other", *arguments, columns=300)
    assert ended.status == 1 and "has a quantized layer '0', but the model has no such layer" in ended.err
    task = tiny["make_tiny"]("tiny", data=None, model=None)
    model = vsquant.quantize(task.load_model(), "w4a4u-s4/6-v4", calibration=task.calibration_batches(8))
    vsquant.save(model, tmp_path / "tiny")
    ended = vsquant_program("hw", "rtl", tmp_path / "tiny", *arguments, "--layer", "no.such", columns=300)
    assert ended.status == 1 and "layer must be one of the model's integer layers" in ended.err


def test_a_checkpoint_needs_its_task(vsquant_program, tiny_checkpoint: Path, tmp_path: Path) -> None:
    ended = vsquant_program("hw", "rtl", tiny_checkpoint, "-o", tmp_path / "element", columns=300)
    assert ended.status == 1 and f"--task must say what {tiny_checkpoint} is run on" in ended.err


def test_without_iverilog_the_check_says_how_to_install_it(vsquant_program, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = vsquant_program("hw", "rtl", "w8a8", "-o", tmp_path / "element", "--check", columns=300)
    assert ended.status == 1 and "apt-get install iverilog" in ended.err
    assert (tmp_path / "element" / "README.md").is_file()


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    from vsquant.hardware.rtl import designs
    from vsquant.spec import LayerSpec

    made = designs.design_for_spec(LayerSpec.parse("w8a8"), None, designs.Sizes(positions=2))
    ports = {**made.golden.ports, "codes": None}
    broken = designs.Design(spec=made.spec, golden=Golden(**{**vars(made.golden), "ports": ports}))
    with pytest.raises(AttributeError):
        write_design(broken, tmp_path / "element")
    assert not list(tmp_path.iterdir())
