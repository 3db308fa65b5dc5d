"""The comparison with published figures on BERT, from end to end on a few questions and a tiny BERT."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from vsquant.cli.app import app


@pytest.mark.parametrize("rows", ["4/8", "4/16"])
def test_bert_by_error_feedback_beside_per_channel_and_the_published_cells(squad_folder, bert_folder, tmp_path, rows):
    arguments = ["table", "squad-bert-base", "--data", str(squad_folder), "--model", str(bert_folder)]
    scales = "4/8,per-channel" if rows == "4/8" else "4/x,per-channel"
    options = ["--rows", rows, "--scales", scales, "--method", "gptq", "--calibration-samples", "2"]
    store = ["--store", str(tmp_path / "store.sqlite"), "--json"]
    result = CliRunner().invoke(app, [*arguments, *options, *store], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    table = json.loads(result.stdout)
    cells = {(cell["row"], cell["column"]): cell for cell in table["cells"]}
    assert set(cells) == {(rows, column) for column in scales.split(",")}
    assert {cell["method"].partition(":")[0] for cell in cells.values()} == {"gptq"}
    if rows == "4/8":
        assert cells[rows, "4/8"]["published"] == 85.7
