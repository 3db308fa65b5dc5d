"""``vsquant hw synth`` and ``vsquant hw table`` as they are typed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

TINY = Path(__file__).parents[1] / "hardware" / "cells" / "tiny.lib"


@pytest.mark.parametrize("verb", ["synth", "table"])
def test_help_shows_an_example(verb: str, vsquant_program) -> None:
    ended = vsquant_program("hw", verb, "--help", columns=200)
    assert ended.status == 0 and re.search(rf"Example: `?vsquant hw {verb}", ended.out)


def test_the_table_that_ships(vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program("hw", "table", "--picture", tmp_path / "lanes.svg")
    assert ended.status == 0 and max(map(len, ended.out.splitlines())) <= 80
    for wanted in ("w8a8", "w4a8-s6/10-p4", "w4a4u-s4/6", "energy removed", "use the ratios"):
        assert wanted in ended.out
    assert "w4a4-s4/4-p4" in (tmp_path / "lanes.svg").read_text()
    found = json.loads(vsquant_program("hw", "table", "--json").out)
    assert found["period_ps"] == 1000 and found["recipe"] and found["pyosys"] and found["date"] and found["library"]
    assert {lane["vector_size"] for lane in found["lanes"]} == {8, 16, 32, 64}
    assert all(lane["delay_ps"] <= 1000 for lane in found["lanes"])


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("synth", "w4a4", "--liberty", "none.lib"), "--liberty must name a Liberty file"),
        (("synth", "w4a4-sfp16", "--liberty", TINY), "needs integer vector scales"),
        (("synth", "w4a16", "--liberty", TINY), "a16 keeps it in floating point"),
        (("synth", "nvfp4", "--liberty", TINY), "not the comparison format 'nvfp4'"),
        (("synth", "w9a4", "--liberty", TINY), "must be 2..8 (weight bits), not 9"),
        (("table", "--picture", "lanes"), "--picture must end in .svg or .png"),
        (("table", "none.json"), "must be a table of lanes that vsquant hw synth wrote"),
    ],
)
def test_bad_input_is_an_error_that_says_what_to_do(
    arguments: tuple[object, ...], wanted: str, vsquant_program
) -> None:
    ended = vsquant_program("hw", *arguments, columns=200)
    assert ended.status == 1 and wanted in ended.err and not ended.out


def test_another_json_file_is_no_table_and_its_name_is_said(vsquant_program, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"lanes": []}')
    ended = vsquant_program("hw", "table", tmp_path / "other.json", columns=300)
    wanted = "other.json: a table of lanes must be one that vsquant hw synth wrote; it lacks 'source'"
    assert ended.status == 1 and wanted in ended.err
