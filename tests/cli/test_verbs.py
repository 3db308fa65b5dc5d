"""Every verb from the command line to what it prints and writes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch

import vsquant

TABLE = ("table", "tiny", "--rows", "3/4U,8/8", "--scales", "4/6", "--calibration-samples", 32)
QUANTIZE = ("quantize", "-", "w4a4u-s4/6", "--task", "tiny", "--calibration-samples", 32)


def test_table_in_the_terminal(vsquant_program) -> None:
    ended = vsquant_program(*TABLE)
    assert ended.status == 0
    assert [line.split(",")[0] for line in ended.err.splitlines()] == [f"cells: {done} of 4" for done in range(1, 5)]
    assert "tiny network on noise" in ended.out and "all 40 samples, 32 for calibration" in ended.out
    assert "S=4/6" in ended.out and "per-channel" in ended.out


def test_table_as_json_and_as_files(vsquant_program, tmp_path: Path) -> None:
    files = {name: tmp_path / "made" / f"t.{name}" for name in ("csv", "markdown", "html")}
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    ended = vsquant_program(*TABLE, "--json", *options)
    assert ended.status == 0
    table = json.loads(ended.out)
    assert [(cell["row"], cell["column"]) for cell in table["cells"]] == [
        (row, column) for row in ("3/4U", "8/8") for column in ("4/6", "per-channel")
    ]
    lines = list(csv.DictReader(io.StringIO(files["csv"].read_text())))
    assert [float(line["value"]) for line in lines[1:]] == [cell["value"] for cell in table["cells"]]
    assert "| W/A | S=4/6 | per-channel |" in files["markdown"].read_text()
    assert "<svg" in files["html"].read_text()
    assert all(f"wrote {path}" in ended.err for path in files.values())


def test_the_options_of_a_table_reach_its_cells(vsquant_program, tmp_path: Path) -> None:
    words = "table tiny --rows 4/4U --scales 4/6,4/6 --no-per-channel --gamma tensor --vector-size 8 --product-bits 6"
    more = "--scale-mode paper --first-last 8bit --limit 7 --calibration-samples 16 --json"
    ended = vsquant_program(*words.split(), *more.split(), "--store", tmp_path / "mine.sqlite")
    table = json.loads(ended.out)
    [cell] = table["cells"]
    assert cell["spec"] == "w4a4u-s4/6-v8-p6-tensor" and table["columns"] == ["4/6"]
    facts = {key: table[key] for key in ("scale_mode", "gamma", "samples", "samples_available", "calibration_samples")}
    assert list(facts.values()) == ["paper", "tensor", 7, 40, 16]
    assert (tmp_path / "mine.sqlite").is_file() and not (tmp_path / "cache").exists()


def test_a_table_of_several_methods(vsquant_program, tmp_path: Path) -> None:
    words = (
        "table tiny --rows 3/4U/4/6,8/8/6/8 --scales nvfp4-4over6 --methods paper,search,gptq:damping=0.1,order=none"
    )
    ended = vsquant_program(*words.split(), "--calibration-samples", 32, "--markdown", tmp_path / "t.md", "--json")
    table = json.loads(ended.out)
    feedback = "gptq:damping=0.1,order=none"
    assert table["columns"][1:] == [":search", f":{feedback}", "nvfp4-4over6", "per-channel", f"per-channel:{feedback}"]
    assert {cell["method"] for cell in table["cells"]} == {"rtn", "search", feedback}
    assert "| W/A/Sw/Sa | paper | search | gptq:" in (tmp_path / "t.md").read_text()


def test_a_second_table_takes_all_from_the_store(vsquant_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "log"))
    first, second = vsquant_program(*TABLE, "--json"), vsquant_program(*TABLE, "--json")
    assert first.out == second.out
    assert len((tmp_path / "log").read_text().splitlines()) == 5


def test_quantize_inspect_evaluate(vsquant_program, tmp_path: Path, tiny) -> None:
    path = tmp_path / "new" / "q.safetensors"
    made = vsquant_program(*QUANTIZE, "-o", path)
    assert made.status == 0 and f"wrote {path}" in made.out and "w4a4u-s4/6-v16" in made.out
    inspected = vsquant_program("inspect", path, "--task", "tiny")
    assert inspected.status == 0 and "digits-cnn 1 4,8" in inspected.out and "SQNR" in inspected.out
    plain = json.loads(vsquant_program("inspect", path, "--task", "tiny", "--json").out)
    assert all(10 < layer["sqnr_db"] < 40 for layer in plain["layers"])
    evaluated = json.loads(vsquant_program("evaluate", path, "--task", "tiny", "--json").out)
    task = tiny["TinyTask"]()
    loaded = vsquant.load(path)
    scores = task.evaluate(loaded)
    assert evaluated["value"] == scores.value() and evaluated["samples"] == 40
    assert torch.equal(loaded(torch.zeros(1, 1, 8, 8)), vsquant.load(path)(torch.zeros(1, 1, 8, 8)))


def test_quantize_as_json(vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program(*QUANTIZE, "-o", tmp_path / "q.safetensors", "--json")
    plain = json.loads(ended.out)
    assert plain["path"] == str(tmp_path / "q.safetensors")
    assert {layer["spec"] for layer in plain["layers"]} <= {"w4a4u-s4/6-v16", "w4a4-s4/6-v16"}


def test_quantize_with_a_recipe_and_every_option(vsquant_program, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("rules:\n  - {match: linear, skip: true}\n  - {spec: w4a4}\n")
    options = "--scale-mode paper --calibrator entropy --weight-calibrator mse --first-last 8bit"
    path = tmp_path / "q.safetensors"
    ended = vsquant_program("quantize", "tiny", recipe, "--task", "tiny", "-o", path, *options.split())
    assert ended.status == 0
    record = vsquant.quantization_record(vsquant.load(path))
    assert (record.scale_mode, record.activation_calibrator, record.weight_calibrator) == ("paper", "entropy", "mse")
    specs = {layer.name: layer.spec for layer in record.layers}
    assert specs["linear"] is None and specs["conv"] == "w8a8" and specs["blocks.0.conv1"] == "w4a4"
    assert record.calibration_samples == 128


def test_quantize_by_a_method(vsquant_program, tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    assert vsquant_program(*QUANTIZE, "-o", path, "--method", "search").status == 0
    record = vsquant.quantization_record(vsquant.load(path))
    assert (record.method, record.scale_mode) == ("search", "search")
    refused = vsquant_program(*QUANTIZE, "-o", path, "--method", "best")
    assert refused.status != 0 and "method must be one of rtn, search" in refused.err


def test_evaluate_in_the_terminal(vsquant_program, tiny_checkpoint: Path) -> None:
    ended = vsquant_program("evaluate", tiny_checkpoint, "--task", "tiny", "--limit", 10)
    assert ended.status == 0 and ended.err == ""
    assert "on 10 samples" in ended.out and "float 100.0" in ended.out and "noise" in ended.out


def test_inspect_without_a_task_says_how_to_get_sqnr(vsquant_program, tiny_checkpoint: Path) -> None:
    ended = vsquant_program("inspect", tiny_checkpoint)
    assert ended.status == 0 and "SQNR needs the float weights: --task names" in ended.out
    assert all(
        layer["sqnr_db"] is None
        for layer in json.loads(vsquant_program("inspect", tiny_checkpoint, "--json").out)["layers"]
    )


def test_doctor(vsquant_program) -> None:
    ended = vsquant_program("doctor", "tiny", "w4a4u-s4/6")
    assert ended.status == 0 and "can be quantized" in ended.out and "time, about" in ended.out
    ended = vsquant_program("doctor", "tiny", "w4a4-s4/6-token", "--json")
    plain = json.loads(ended.out)
    assert ended.status == 1 and ended.err == "" and plain["passed"] is False
    assert any(finding["level"] == "error" for finding in plain["findings"])


def test_doctor_without_a_model_says_which_kernels_run_and_why(vsquant_program) -> None:
    ended = vsquant_program("doctor")
    assert ended.status == 0 and ended.out.startswith("vsquant ") and "kernels: " in ended.out
    plain = json.loads(vsquant_program("doctor", "--json").out)
    if plain["isa"] is None:
        assert plain["instruction_sets"] == [] and "kernels: eager PyTorch: " in ended.out
    else:
        assert [each["name"] for each in plain["instruction_sets"] if each["used"]] == [plain["isa"]]
        assert f"kernels: native, {plain['isa']}: " in ended.out
        assert all(each["name"] in ended.out for each in plain["instruction_sets"])


def test_doctor_of_a_folder(vsquant_program, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = {"architectures": ["BertModel"], "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": 40, "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ended = vsquant_program("doctor", tmp_path, "w4a8-s4/8")
    assert ended.status == 0 and "40 elements are no multiple of V = 16" in " ".join(ended.out.split())


def test_evaluate_on_integers(vsquant_program, tiny_checkpoint: Path) -> None:
    ended = vsquant_program("evaluate", tiny_checkpoint, "--task", "tiny", "--limit", 10, "--integer")
    assert ended.status == 0 and "on integers " in ended.out and " codes flipped" in ended.out
    plain = json.loads(vsquant_program("evaluate", tiny_checkpoint, "--task", "tiny", "--integer", "--json").out)
    assert plain["samples"] == 40 and plain["integer"]["codes"] > 0
    assert {"layer", "codes", "flipped"} == set(plain["integer"]["flips"][0])


def test_a_folder_for_finished_layers_is_refused_where_none_are_kept(vsquant_program, tmp_path: Path) -> None:
    arguments = ("quantize", "-", "w4a8-s4/6", "--task", "tiny", "-o", tmp_path / "q.safetensors")
    ended = vsquant_program(*arguments, "--resume", tmp_path / "kept")
    assert ended.status == 2 and "method rtn keeps nothing" in " ".join(ended.err.split())
    assert not (tmp_path / "q.safetensors").exists()


def test_a_file_is_no_folder_for_finished_layers(vsquant_program, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("")
    ended = vsquant_program(*QUANTIZE, "-o", tmp_path / "q", "--method", "gptq", "--resume", tmp_path / "kept")
    assert ended.status == 1 and "resume must be a folder for finished layers, not the file" in ended.err


def test_a_table_of_digits_with_every_refinement(vsquant_program, tmp_path: Path) -> None:
    table = "table digits --rows 3/3U --scales 3/4 --no-per-channel --limit 100 --json"
    options = "--bias-correction --batchnorm-reestimation --vector-calibrator mse --activation-candidates 3"
    words = (*table.split(), "--store", tmp_path / "s.sqlite")
    plain = json.loads(vsquant_program(*words).out)
    refined = json.loads(vsquant_program(*words, *options.split()).out)
    named = ["bias correction", "batch-norm re-estimation", "mse activation ranges", "best-of-three activations"]
    assert refined["refinements"] == ", ".join(named) and plain["refinements"] == ""
    assert plain["cells"][0]["method"] == "rtn" and all(name in refined["cells"][0]["method"] for name in named)
    refused = vsquant_program(*words, "--vector-calibrator", "kl")
    assert refused.status == 1 and "vector calibrator must be one of max, mse, not 'kl'" in refused.err
