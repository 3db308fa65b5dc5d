"""Tables as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json

import pytest

from vsquant.report import to_csv, to_json, to_markdown
from vsquant.results import Table


def test_json_holds_everything(squad_table: Table) -> None:
    plain = json.loads(json.dumps(to_json(squad_table), allow_nan=False))
    assert plain["float"]["value"] == pytest.approx(87.4)
    assert plain["float"]["standard_error"] == squad_table.baseline_standard_error
    assert plain["float"]["published"] == 86.9
    assert (plain["samples"], plain["samples_available"], plain["calibration_samples"]) == (400, 10570, 128)
    assert len(plain["cells"]) == 27
    cell = next(cell for cell in plain["cells"] if (cell["row"], cell["column"]) == ("3/8", "per-channel"))
    drop = squad_table.drops["3/8", "per-channel"]
    assert cell["difference"] == drop.value == pytest.approx(-75.6)
    assert cell["difference_standard_error"] == drop.standard_error
    assert cell["published"] == 12.1
    assert (cell["weight_calibrator"], cell["activation_calibrator"]) == ("mse", "percentile-99.99")
    assert len(cell["candidates"]) == 8
    assert cell["provenance"]["torch"] == "2.13.0"
    assert cell["layers"][2]["note"].startswith("depthwise")


def test_json_has_none_for_infinite_figures(perplexity_table: Table) -> None:
    plain = json.loads(json.dumps(to_json(perplexity_table), allow_nan=False))
    diverged = next(cell for cell in plain["cells"] if (cell["row"], cell["column"]) == ("3/8", "per-channel"))
    assert diverged["value"] is None and diverged["difference"] is None
    assert plain["published_source"] is None


def test_csv_has_one_line_a_cell(squad_table: Table) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(squad_table))))
    assert len(lines) == 28
    assert lines[0]["row"] == lines[0]["column"] == "float"
    assert float(lines[0]["value"]) == pytest.approx(87.4)
    assert {line["samples"] for line in lines} == {"400"}
    last = lines[-1]
    assert (last["row"], last["column"], last["published"]) == ("8/8", "per-channel", "85.7")
    assert float(last["difference"]) == pytest.approx(-2.0)
    assert (last["weight_calibrator"], last["created"]) == ("max", "2026-01-02T03:04:05+00:00")


def test_markdown_is_a_table_with_two_line_cells(squad_table: Table) -> None:
    lines = to_markdown(squad_table).splitlines()
    grid = [line for line in lines if line.startswith("|")]
    assert len(grid) == 6
    assert all(line.count("|") == 9 for line in grid)
    assert grid[0] == "| W/A | S=4/8 | S=4/10 | S=6/8 | S=6/10 | S=fp16 | S=fp32 | per-channel |"
    assert grid[2].startswith("| 3/8 | 81.3 (81.6)<br>−6.1±0.1 |")
    assert grid[2].endswith("| 11.8 (12.1)<br>−75.6±0.8<br>mse·p99.99 |")
    assert "– (86.2)" in grid[4]
    assert lines[0].startswith("**BERT-base on SQuAD**: F1 %, float 87.4±0.9 (86.9); scale mode requantize")
