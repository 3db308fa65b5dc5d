"""``vsquant doctor --sensitivity`` and ``vsquant quantize --allocate``, from the command line to what they write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vsquant.transform.recipe import Recipe

DOCTOR = ("doctor", "tiny", "w4a4u-s4/6", "--sensitivity", "--calibration-samples", 32)
QUANTIZE = ("quantize", "-", "w4a8-s4/8", "--task", "tiny", "--calibration-samples", 32)


def test_which_layer_hurts(vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program(*DOCTOR, "--picture", tmp_path / "made" / "hurts.svg")
    assert ended.status == 0 and ended.err == ""
    assert max(map(len, ended.out.splitlines())) <= 80 + len(str(tmp_path))
    assert "tiny  w4a4u-s4/6-v16" in ended.out and "from 32 calibration samples" in ended.out
    picture = (tmp_path / "made" / "hurts.svg").read_text()
    found = json.loads(vsquant_program(*DOCTOR, "--json").out)
    ranked = sorted(found["layers"], key=lambda layer: -layer["formats"][0]["divergence"])
    places = [ended.out.index(f" {layer['name']} ") for layer in ranked]
    assert places == sorted(places) and len(places) > 3
    assert all(layer["name"] in picture for layer in ranked)
    total = found["totals"]["w4a4u-s4/6-v16"]
    assert total == pytest.approx(sum(layer["formats"][0]["divergence"] for layer in ranked))


def test_a_png_picture(vsquant_program, tmp_path: Path) -> None:
    assert vsquant_program(*DOCTOR, "--picture", tmp_path / "hurts.png").status == 0
    assert (tmp_path / "hurts.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_nothing_is_bad_usage(vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program("doctor", "tiny", "w4a8-s4/8", "--picture", tmp_path / "p.svg")
    assert ended.status == 2 and "--sensitivity" in ended.err


def test_quantize_within_a_budget(vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program(*QUANTIZE, "-o", tmp_path / "t.safetensors", "--allocate", "4.5 bits")
    assert ended.status == 0
    assert "tiny  within 4.5 bits" in ended.out and "bits a weight on average" in ended.out
    assert str(tmp_path / "t.recipe.yaml") in ended.out and (tmp_path / "t.safetensors").is_file()
    recipe = Recipe.from_yaml(tmp_path / "t.recipe.yaml")
    inspected = json.loads(vsquant_program("inspect", tmp_path / "t.safetensors", "--json").out)
    chosen = {layer["name"]: layer["spec"] for layer in inspected["layers"]}
    assert {rule.match: str(rule.spec) for rule in recipe.rules} == chosen
    again = vsquant_program(
        "quantize", "-", tmp_path / "t.recipe.yaml", "--task", "tiny", "--calibration-samples", 32,
        "-o", tmp_path / "again.safetensors",
    )  # fmt: skip
    assert again.status == 0
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "t.safetensors").read_bytes()


def test_quantize_within_bytes_among_candidates_as_json(vsquant_program, tmp_path: Path) -> None:
    options = ("--allocate", "2 kB", "--candidates", "w3a8-s4/8,w4a8-s4/8, w8a8-s6/8", "--json")
    ended = vsquant_program(*QUANTIZE, "-o", tmp_path / "t.safetensors", *options)
    assert ended.status == 0, ended.err
    record = json.loads(ended.out)["allocation"]
    assert record["unit"] == "bytes" and record["cost"] == record["stored_bytes"] <= 2000
    assert {layer["chosen"]["requested"] for layer in record["layers"]} <= {
        choice["candidate"] for choice in record["uniform"]
    }
    inspected = json.loads(vsquant_program("inspect", tmp_path / "t.safetensors", "--json").out)
    assert inspected["stored_bytes"] == record["stored_bytes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--allocate", "4"), "a budget must be like '4.25 bits'"),
        (("--allocate", "1 bits"), "the budget must be at least 2.25 bits, the smallest possible"),
        (("--candidates", "w4a8"), "--candidates must come with --allocate"),
        (("--allocate", "4 bits", "--candidates", "w4q8"), "w4q8"),
        (("--allocate", "4 bits", "--candidates", " ,"), "--candidates must be specs such as w3a8-s4/8,w4a8-s4/8"),
        (("--allocate", "4 bits", "--candidates", ""), "--candidates must be specs such as w3a8-s4/8,w4a8-s4/8"),
    ],
)
def test_requests_that_are_refused(vsquant_program, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    ended = vsquant_program(*QUANTIZE, "-o", tmp_path / "t.safetensors", *options)
    assert ended.status == 1 and message in " ".join(ended.err.split())
    assert not list(tmp_path.glob("t.*"))


def test_an_allocation_does_not_start_from_a_recipe(vsquant_program, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("rules:\n- spec: w4a8-s4/8\n")
    words = ("quantize", "-", tmp_path / "r.yaml", "--task", "tiny", "-o", tmp_path / "t.safetensors")
    ended = vsquant_program(*words, "--allocate", "4 bits")
    assert ended.status == 1 and "must start from a spec" in ended.err


def test_quantize_with_channels_permuted(vsquant_program, tmp_path: Path) -> None:
    words = ("quantize", "-", "w4a8-s4/8-v4", "--task", "tiny", "--calibration-samples", 32, "--permute")
    ended = vsquant_program(*words, "-o", tmp_path / "t.safetensors")
    assert ended.status == 0, ended.err
    assert "channels into" in ended.out and "weight SQNR dB" in ended.out
    found = json.loads(vsquant_program(*words, "-o", tmp_path / "t.safetensors", "--json").out)["permuted"]
    assert found and all(group["predicted_gain_db"] > 0 for group in found)
    plain = json.loads(vsquant_program(*words[:-1], "-o", tmp_path / "u.safetensors", "--json").out)
    assert "permuted" not in plain
