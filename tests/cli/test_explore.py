"""``vsquant explore``: shares cells with ``vsquant table``, resumes, and says how points stand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vsquant.results import ResultsStore

SPACE = """
weights: [4]
activations: ["8"]
scales: [6/10, per-channel]
product_bits: [null, 6]
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


def evaluations(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_points_are_evaluated_once_and_share_cells_with_the_table(
    vsquant_program: Callable[..., Any], space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, log = tmp_path / "store.sqlite", tmp_path / "log"
    table = ("table", "tiny", "--rows", "4/8", "--scales", "6/10", "--calibration-samples", 32, "--store", store)
    ended = vsquant_program(*table, "--json")
    assert ended.status == 0, ended.err
    monkeypatch.setenv("TINY_LOG", str(log))
    explore = ("explore", "tiny", "--space", space, "--workers", 1, "--calibration-samples", 32, "--store", store)
    planned = json.loads(vsquant_program(*explore, "--dry-run", "--json").out)
    assert (planned["points"], planned["finished"], planned["evaluations"]) == (4, 0, 1)
    log.unlink()
    ended = vsquant_program(*explore, "--json")
    assert ended.status == 0, ended.err
    # one for the estimate's pace, one for the only cell that the table did not have
    assert evaluations(log) == 2
    points = {point["point"]["spec"]: point for point in json.loads(ended.out)["points"]}
    assert set(points) == {"float", "w4a8", "w4a8-s6/10-v16", "w4a8-s6/10-v16-p6"}
    assert points["w4a8"]["cost"]["energy_ratio"] < 1
    assert points["w4a8"]["latency"]["seconds"] > 0
    assert points["float"]["difference"] is None and points["w4a8"]["difference_error"] >= 0
    log.unlink()
    again = vsquant_program(*explore, "--json")
    assert evaluations(log) == 0 and sorted(json.loads(again.out)["points"], key=str) == sorted(
        points.values(), key=str
    )
    with ResultsStore(store) as results:
        assert len(list(results.iter_points())) == 4


def test_layers_have_noise_scale_codes_and_histograms(
    vsquant_program: Callable[..., Any], space: Path, tmp_path: Path
) -> None:
    arguments = ("--space", space, "--workers", 1, "--calibration-samples", 32, "--store", tmp_path / "s", "--json")
    points = json.loads(vsquant_program("explore", "tiny", *arguments).out)["points"]
    for point in points[1:]:
        for layer in point["layers"]:
            before, after = layer["weight_histogram"]
            assert sum(before) == sum(after) > 0 and layer["macs"] > 0 and layer["weight_sqnr_db"] > 5
            assert len(layer["scale_code_counts"]) == (64 if "-s6" in layer["spec"] else 0) or "-s8" in layer["spec"]


def test_the_terminal_shows_the_front_and_what_was_left_out(
    vsquant_program: Callable[..., Any], space: Path, tmp_path: Path
) -> None:
    space.write_text(SPACE + "scale_modes: [requantize, paper]\ntop: [false, true]")
    arguments = ("--space", space, "--workers", 1, "--calibration-samples", 32, "--store", tmp_path / "s")
    ended = vsquant_program("explore", "tiny", *arguments, "--objective", "energy", columns=120)
    assert ended.status == 0, ended.err
    assert "quantizations of weights" in ended.err and "left out: " in ended.err and "-top" in ended.err
    assert re.search(r"[●≈] +w4a8 ", ended.out) and "perf/area" in ended.out
    assert "on the front of accuracy against energy" in ended.out
    narrow = vsquant_program("explore", "tiny", *arguments, columns=80)
    assert "…" not in narrow.out and "perf/area" in narrow.out
    assert all(len(line) <= 80 for line in narrow.out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--space", "small2"), "did you mean 'small'"),
        (("--objective", "enrgy"), "did you mean 'energy'"),
        (("--accelerator", "edg"), "did you mean 'edge'"),
    ],
)
def test_mistakes_are_told_before_any_work(
    vsquant_program: Callable[..., Any], arguments: tuple[str, ...], message: str
) -> None:
    ended = vsquant_program("explore", "tiny", *arguments, columns=200)
    assert ended.status == 1 and message in ended.err
