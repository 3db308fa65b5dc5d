"""What a user reads after a mistake: which thing must be what, what it was, what to do. And no traceback."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vsquant
from vsquant.errors import CalibrationError, NonFiniteError, ShapeError, VsquantError

GRAMMAR = "grammar:   w{2..8}a{2..8|16}[u][-s{S}/{S}][-v{V}][-p{P}][-static|-tensor|-token][-full][-top][-g16]"


def quantize(*arguments: object) -> tuple[object, ...]:
    return ("quantize", "-", *arguments, "--task", "tiny", "-o", "never.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (quantize("w4b8"), "cannot read the layer spec 'w4b8': 'w4b8' must begin as w4a8\n"),
        (quantize("w9a8"), "cannot read the layer spec 'w9a8': '9' must be 2..8 (weight bits), not 9\n"),
        (quantize("w4a8-s4/99"), "'-s4/99' must be 2..10 (scale bits; or fp16, fp32, x), not 99\n"),
        (quantize("w4a8-s4/6-token"), "a convolution has no tokens; use -tensor or -static, not w4a8-s4/6-v16-token"),
        (quantize("none.yaml"), "a recipe must be a file that exists, not 'none.yaml'"),
        (quantize("w8a8", "--calibrator", "average"), "calibrator must be one of max, "),
        (quantize("w8a8", "--scale-mode", "best"), "scale mode must be one of paper, requantize, search, not 'best'"),
        (quantize("w8a8", "--first-last", "9bit"), "first-last must be one of same, 8bit, float, not '9bit'"),
        (quantize("w8a8", "--calibration-samples", 999), "there must be 999 calibration images, not 128; add"),
        (quantize("w8a8", "--data", "nowhere"), "data of task tiny must be an existing folder, not 'nowhere'"),
        (("table", "tiny", "--scales", "4-8"), "a column must be weight/activation scale bits (2 to 10, fp16"),
        (("table", "cifra10"), "not 'cifra10'; did you mean 'cifar10'?"),
        (("doctor", "squad-minilim", "w8a8"), "or hub id; did you mean 'squad-minilm'?: the model must"),
        (("table", "tiny", "--rows", "44"), "such as 4/8 or 4/4U, or with their scale bits 4/4U/4/6, not '44'"),
        (("table", "tiny", "--methods", "gptq,grid"), "must be one of rtn, search, gptq, reconstruct, not 'grid'"),
        (("table", "tiny", "--methods", ","), "methods must be names such as paper,rtn,search,gptq, not ','"),
        (("table", "tiny", "--method", "gptq", "--methods", "rtn"), "must not be given beside methods, not 'gptq'"),
        (("table", "tiny", "--rows", ",", "--methods", "rtn"), "a table must have at least one row and one column"),
        (("table", "tiny", "--rows", ","), "a table must have at least one row and one column, such as rows 4/8"),
        (("table", "tiny", "--gamma", "x"), "gamma must be one of static, tensor, token, not 'x'"),
        (("table", "tiny", "--limit", 41), "limit must be between 1 and the 40 evaluation images there are, not"),
        (("table", "tiny", "--store", "/proc/none/s"), "give another path (--store)"),
        (("table", "digit"), "task must be one of digits, squad, squad-minilm, "),
        (("table", "cifar10"), "task 'cifar10' needs data: give the folder that holds test.npz and"),
        (("table", "cifar10"), "The model's weights are resnet20.safetensors, or another file (--model FILE)"),
        (("quantize", "-", "w4a8-s4/8", "--task", "squad-minilm", "-o", "x"), "in or beside that one; or"),
        (("table", "cifar10", "--data", "nowhere"), "must be an existing folder that holds test.npz and"),
        (("table", "squad-minilm", "--data", "nowhere"), "must be an existing folder that holds dev-v1.1.json"),
        (("table", "imagenet"), "task 'imagenet' needs a model: give the hub id of an image classifier, such as"),
        (("table", "digits", "--data", "."), "task 'digits' brings its own data; leave --data out, not '.'"),
        (("evaluate", "none", "--task", "tiny"), "none must be a readable file: No such file or directory"),
        (("inspect", "."), ". must be a readable file: Is a directory"),
        (("inspect", "none", "--data", "."), "--task must say which task's float model --data and --model are for"),
        (("doctor", "no-such-model", "w8a8"), "MODEL must be a task (digits, squad, "),
    ],
)  # fmt: skip
def test_of_the_command_line(
    arguments: tuple[object, ...], message: str, vsquant_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = vsquant_program(*arguments)
    assert ended.status == 1 and ended.out == ""
    assert ended.err.startswith("error: ") and message in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "never.safetensors").exists()


def test_a_malformed_spec_shows_the_place_and_the_grammar(vsquant_program) -> None:
    lines = vsquant_program(*quantize("w4a8-s4/99")).err.splitlines()
    assert lines[1:4] == ["    w4a8-s4/99", "        ^^^^^^", GRAMMAR]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("rules: [{spek: w8a8}]", "rule 1: unknown key 'spek'; known keys are match, type, spec, skip"),
        ("ruels: [{spec: w8a8}]", "unknown key 'ruels'; known keys are rules, first_last, fallback; did you mean"),
        ('rules: [{match: "encoder*", spec: w8a8}]', 'rule 1 (match: "encoder*", spec: w8a8) must decide at least one'),
        ("rules: [{spec: w8a8}, {match: conv, spec: w4a4}]", "rule 1 takes all that it matches ('conv'); put it"),
        ("rules: [{spec: w99}]", "cannot read the layer spec 'w99'"),
        ("rules: [{match: conv}]", "exactly one of spec and skip: true must be given, not neither"),
        ("rules: []", "rules must hold at least one rule, not none"),
        ("rules: [*]", 'A pattern such as "*" needs quotes.'),
        ("just text", "must be a mapping with the key 'rules', not 'just text'"),
    ],
)  # fmt: skip
def test_of_a_recipe(recipe: str, message: str, vsquant_program, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    ended = vsquant_program("quantize", "-", path, "--task", "tiny", "-o", tmp_path / "q.safetensors")
    assert ended.status == 1 and ended.out == ""
    assert message in ended.err and "Traceback" not in ended.err


def test_of_files_that_are_no_checkpoints(vsquant_program, tiny_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    whole, path = tiny_checkpoint.read_bytes(), tmp_path / "m.safetensors"
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    contents: dict[str, bytes] = {
        "must be a whole vsquant checkpoint (safetensors): ": whole[: len(whole) // 2],
        "looks like a pickle (torch.save), which could run code and is never read": pickle.dumps(0),
        "must be a checkpoint as it was written, but tensor '": flipped,
        "(safetensors): ": b"",
    }
    for message, content in contents.items():
        path.write_bytes(content)
        for arguments in (("inspect", path), ("evaluate", path, "--task", "tiny")):
            ended = vsquant_program(*arguments)
            assert ended.status == 1 and ended.out == ""
            assert ended.err.startswith(f"error: {path} ") and message in ended.err
    save_file({"weight": torch.ones(1)}, path)
    assert (
        "must be a checkpoint written by vsquant.save, but it has no vsquant header"
        in vsquant_program("inspect", path).err
    )


def test_of_a_checkpoint_of_another_task(vsquant_program, tmp_path: Path) -> None:
    from vsquant.tasks.models.cifar_resnet import CifarResNet

    path = tmp_path / "m.safetensors"
    quantized = vsquant.quantize(CifarResNet(20).eval(), "w4a16-s4/x")
    vsquant.save(quantized, path, architecture={"family": "cifar-resnet", "depth": "20"})
    ended = vsquant_program("evaluate", path, "--task", "tiny")
    assert ended.status == 1
    assert "must hold a network of task 'tiny', digits-cnn, not cifar-resnet; give the task that it was" in ended.err


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "Inf")])
def test_of_numbers_that_are_none(value: float, word: str, vsquant_program, monkeypatch, tiny, tmp_path: Path) -> None:
    def broken(task: Any) -> nn.Module:
        model = tiny["network"]()
        with torch.no_grad():
            model.blocks[0].conv2.weight[1, 2, 0, 0] = value
        return model

    monkeypatch.setattr(tiny["TinyTask"], "load_model", broken)
    ended = vsquant_program("quantize", "-", "w8a8", "--task", "tiny", "-o", tmp_path / "q.safetensors")
    assert ended.status == 1
    assert (
        f"weight of layer 'blocks.0.conv2': a tensor must be finite to be quantized, but it holds {word}" in ended.err
    )
    model = nn.Sequential(nn.Linear(4, 4)).eval()
    with pytest.raises(NonFiniteError, match=f"'0'.*must be finite.*{word}"):
        vsquant.quantize(model, "w8a8", calibration=[torch.full((1, 4), value)])
    quantized = vsquant.quantize(model, "w8a8", calibration=[torch.ones(1, 4)])
    with pytest.raises(
        NonFiniteError, match=f"input of layer '0': a tensor must be finite to be quantized, but .* {word}"
    ):
        quantized(torch.full((1, 4), value))


def test_of_calibration_and_shapes() -> None:
    model = nn.Sequential(nn.Linear(4, 4)).eval()
    with pytest.raises(CalibrationError, match="must hold at least one batch, not none; pass an iterable of batches"):
        vsquant.quantize(model, "w8a8", calibration=[])
    with pytest.raises(
        CalibrationError, match="calibration must be given: layer '0' with w8a8 needs its input observed"
    ):
        vsquant.quantize(model, "w8a8")
    with pytest.raises(ShapeError, match="'0' must have 4 channels, not 5"):
        vsquant.quantize(model, "w8a8", calibration=[torch.ones(2, 5)])
    quantized = vsquant.quantize(model, "w8a8", calibration=[torch.ones(2, 4)])
    with pytest.raises(ShapeError, match="input of layer '0' must have 4 channels, not 5"):
        quantized(torch.ones(2, 5))
    with pytest.raises(VsquantError, match=r"must come from vsquant\.quantize or vsquant\.load, not be a float model"):
        vsquant.save(model, "never.safetensors")


def test_of_running_on_integers(vsquant_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(32, 4)).eval()
    with pytest.raises(VsquantError, match=r"must come from vsquant\.quantize or vsquant\.load, not be a float model"):
        vsquant.to_integer(model)
    with pytest.raises(VsquantError, match=r"layer '0' must have an integer format .* not the comparison format mxfp4"):
        vsquant.to_integer(vsquant.quantize(model, "mxfp4"))
    integer = vsquant.to_integer(vsquant.quantize(model, "w4a8-s4/x-tensor"))
    with pytest.raises(
        VsquantError, match="must be a simulated one, not an integer model: that runs on integers as it"
    ):
        vsquant.to_integer(integer)
    with pytest.raises(ShapeError, match="input of layer '0' must have 32 channels, not 31"):
        integer(torch.ones(2, 31))
    with pytest.raises(
        NonFiniteError, match=r"input of layer '0': a tensor must be finite to be quantized, but .* NaN"
    ):
        integer(torch.full((2, 32), float("nan")))
    path = tmp_path / "q.safetensors"
    assert vsquant_program("quantize", "-", "w4a8-s4/4-v8", "--task", "tiny", "-o", path).status == 0
    monkeypatch.setenv("VSQUANT_BACKEND", "cuda")
    ended = vsquant_program("evaluate", path, "--task", "tiny", "--integer")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "error: VSQUANT_BACKEND must be one of eager, cpu, not 'cuda'\n"


def test_of_too_few_images(vsquant_program, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / "imagenet" / name).mkdir(parents=True)
        image.new("RGB", (8, 8)).save(tmp_path / "imagenet" / name / "0.png")
    ended = vsquant_program("table", "imagenet", "--model", tmp_path, "--data", tmp_path)
    assert ended.status == 1 and ended.out == "" and "Traceback" not in ended.err
    assert "must hold" in ended.err and "images" in ended.err


LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("quantize", "-", "w8a8", "--task", "tiny", "-o", "m.safetensors"), "could not be written, and nothing of it"),
        (("table", "tiny", "--rows", "8/8", "--scales", "4/6"), "the results store "),
    ],
)
def test_of_a_full_disk(arguments: tuple[str, ...], message: str, program: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(program), *arguments],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and message in done.stderr and "Traceback" not in done.stderr
    assert {found.name for found in tmp_path.iterdir()} <= {"cache"}


def test_of_a_package_that_is_not_installed(vsquant_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"], "model_type": "bert"}))
    ended = vsquant_program("doctor", tmp_path, "w8a8")
    assert ended.status == 1
    assert "needs the package 'transformers', which is not installed" in ended.err
    assert "pip install 'vsquant[transformers]'" in ended.err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: vsquant.quantize("m", "w8a8"), "model must be a torch.nn.Module, not a str: 'm'"),
        (
            lambda model: vsquant.quantize(model, 8),
            "spec_or_recipe must be a LayerSpec, its notation or a Recipe, not 8",
        ),
        (lambda model: vsquant.quantize(model, "r.yaml"), "not its file; give Recipe.from_yaml('r.yaml')"),
        (
            lambda model: vsquant.quantize(model, "w8a8", calibrators="mse"),
            "calibrators must be a Calibrators, such as",
        ),
        (
            lambda model: vsquant.quantize(vsquant.quantize(model, "w8a16-s4/x"), "w8a8"),
            "quantized already (w8a16-s4/x",
        ),
        (lambda model: vsquant.to_integer("m"), "model must be a torch.nn.Module, not a str: 'm'"),
    ],
)
def test_of_arguments_of_another_type(call: Callable[[nn.Module], object], message: str) -> None:
    with pytest.raises(VsquantError) as raised:
        call(nn.Linear(4, 4))
    assert message in str(raised.value)
