"""``vsquant hw cost`` as it is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from vsquant.hardware.accelerator.configuration import load_accelerator

SPEC = ("hw", "cost", "w4a4-s4/4", "--network", "resnet20")


def test_help_shows_an_example_that_runs(vsquant_program) -> None:
    ended = vsquant_program("hw", "cost", "--help", columns=200)
    assert ended.status == 0 and re.search(r"Example: `?vsquant hw cost ", ended.out)


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_fits_the_terminal(columns: int, vsquant_program) -> None:
    ended = vsquant_program(*SPEC, "--layers", "--first-last", "8bit", columns=columns)
    assert ended.status == 0 and max(map(len, ended.out.splitlines())) <= columns
    for wanted in ("vector scales", "DRAM", "without DRAM", "memories ×0.5", "9 passes", "cycles bound by", "98.9%"):
        assert wanted in ended.out


def test_json_has_the_ratios_and_the_sources(vsquant_program) -> None:
    ended = vsquant_program(*SPEC, "--json")
    found = json.loads(ended.out)
    cost, base = found["cost"], found["baseline"]
    assert ended.status == 0 and (cost["spec"], base["spec"]) == ("w4a4-s4/4-v16", "w8a8")
    whole = {(r["memory_energy_factor"], r["dram"]): r["ratio"] for r in found["ratios"]["energy"]}
    assert len(whole) == 6
    assert whole[1.0, True] == pytest.approx(cost["total_energy_pj"] / base["total_energy_pj"])
    assert sum(cost["energy_pj"].values()) == pytest.approx(cost["total_energy_pj"])
    assert any("Jouppi" in source for source in cost["sources"])


def test_a_checkpoint(vsquant_program, tiny_checkpoint: Path, tmp_path: Path) -> None:
    row = {"vector_size": 16, "area_um2": 100, "energy_fj_per_mac": 10}
    lanes = [row | {"spec": spec} for spec in ("w8a8", "w4a4u-s4/6", "w4a5-s4/6")]
    ended = vsquant_program("hw", "cost", tiny_checkpoint, "--json", "--lanes", tiny_checkpoint)
    assert ended.status == 1 and "must be a table of lanes that vsquant hw synth wrote" in ended.err
    (tmp_path / "lanes.json").write_text(json.dumps({"source": "made up", "lanes": lanes}))
    found = json.loads(vsquant_program("hw", "cost", tiny_checkpoint, "--json", "--lanes", tmp_path / "lanes.json").out)
    assert found["cost"]["spec"].startswith("w4a4") and found["cost"]["macs"] == found["baseline"]["macs"] > 0
    assert found["cost"]["requested_share"] == 1.0
    assert found["cost"]["sources"][1] == "made up"
    ended = vsquant_program("hw", "cost", tiny_checkpoint, "--network", "resnet20")
    assert ended.status == 1 and "name the network that was quantized" in ended.err


def test_an_accelerator_of_ones_own(vsquant_program, tmp_path: Path) -> None:
    own = load_accelerator("edge").model_dump() | {"name": "own", "processing_elements": 4}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    ended = vsquant_program(*SPEC, "--config", tmp_path / "own.yaml")
    assert ended.status == 0 and "on own" in ended.out
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own | {"lanez": 4}))
    ended = vsquant_program(*SPEC, "--config", tmp_path / "own.yaml")
    assert ended.status == 1 and "lanez is no key of an accelerator" in ended.err


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_a_picture(suffix: str, vsquant_program, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"energy{suffix}"
    assert vsquant_program(*SPEC, "--picture", path).status == 0
    first = path.read_bytes()
    assert vsquant_program(*SPEC, "--picture", path).status == 0 and path.read_bytes() == first
    assert suffix == ".png" or b"post-processing" in first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("w4a4-s4/4",), "--network or --task must name a network for a spec; add --network resnet50"),
        (("nvfp4", "--network", "resnet20"), "nvfp4 is a comparison format; choose a spec like w4a8-s4/6"),
        (("w4a16-s4/x", "--network", "resnet20"), "keeps activations in floating point; choose a2 to a8"),
        (("w4b4", "--network", "resnet20"), "cannot read the layer spec 'w4b4'"),
        (("w4a4-s4/4", "--network", "resnet21"), "network must be one of resnet20"),
        (("w4a4-s4/4", "--network", "resnet20", "--task", "digits"), "--network and --task must not both be given"),
        (("w4a4-s4/4", "--data", "."), "--task must say which task --data and --model are for"),
        (("w3a3-s4/4", "--network", "resnet20"), "'vsquant hw synth w8a8 w3a3-s4/4-v16 --liberty LIBRARY"),
        (("none.safetensors",), "must be a readable file"),
        (("none.safetensors", "--matmuls"), "--matmuls and --first-last must go with a spec"),
        (
            ("w4a4-s4/4", "--network", "resnet20", "--picture", "energy.txt"),
            "--picture must end in .svg or .png, which say how it is drawn, not 'energy.txt'",
        ),
        (("w4a4-s4/4", "--network", "resnet20", "--config", "cloud"), "config must be a .yaml file or one of edge"),
    ],
)
def test_mistakes_are_one_message(arguments: tuple[str, ...], message: str, vsquant_program) -> None:
    ended = vsquant_program("hw", "cost", *arguments)
    assert ended.status == 1 and ended.out == ""
    assert message in ended.err and "Traceback" not in ended.err
