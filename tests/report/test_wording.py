"""What is said about a table: only as much as its paired errors allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from vsquant.report import to_markdown
from vsquant.report.figures import column_colours
from vsquant.report.wording import (
    calibrator_text,
    column_family,
    column_title,
    contrast,
    float_text,
    headline,
    methods_note,
    per_channel_note,
    rows_title,
    sample_text,
    setting_text,
    severity,
)
from vsquant.results import CellRecord, Difference, Table

MakeRecord = Callable[[float, str, str], CellRecord]


@pytest.mark.parametrize(
    ("column", "family", "title"),
    [
        ("4/8", "integer", "S=4/8"),
        ("4/x", "integer", "S=4/x"),
        ("fp16", "fp", "S=fp16"),
        ("per-channel", "per-channel", "per-channel"),
        ("nvfp4", "comparison", "nvfp4"),
        ("int4-g128", "comparison", "int4-g128"),
        ("4/8:gptq", "integer", "S=4/8 gptq"),
        (":search", "integer", "search"),
        ("", "integer", "per-vector"),
        ("fp32:gptq", "fp", "S=fp32 gptq"),
        ("per-channel:gptq", "per-channel", "per-channel gptq"),
    ],
)
def test_columns(column: str, family: str, title: str) -> None:
    assert column_family(column) == family
    assert column_title(column) == title


def test_headline_contrasts_the_widest_integer_scales_with_per_channel(squad_table: Table) -> None:
    found = contrast(squad_table)
    assert found is not None and (found.row, found.column) == ("3/8", "6/10")
    assert headline(squad_table) == (
        "At 3/8 bits, per-vector scales (S=6/10) keep 82.5 of float's 87.4 % F1; per-channel scales keep 11.8"
    )


def test_a_table_of_methods_says_so(squad_table: Table, make_record: MakeRecord) -> None:
    columns = (":paper", ":gptq", "per-channel", "per-channel:gptq")
    cells = {
        ("4/8/6/10", column): make_record(70.0 + place, "4/8", "per-channel" if "per" in column else "6/10")
        for place, column in enumerate(columns)
    }
    table = dataclasses.replace(squad_table, rows=("4/8/6/10",), columns=columns, cells=cells)
    assert setting_text(table) == "methods by column, γ static"
    assert rows_title(table) == "W/A/Sw/Sa" and rows_title(squad_table) == "W/A"
    found = contrast(table)
    assert found is not None and found.column == ":gptq"
    assert methods_note(squad_table) == ""
    assert methods_note(table) == (
        "paper: rounding that keeps the codes found with unrounded scales; "
        "gptq: weights make up for the errors of those before them"
    )
    assert to_markdown(table).count("gptq") == 3 and len(set(column_colours(columns).values())) == 4


def test_headline_of_a_perplexity(perplexity_table: Table) -> None:
    assert headline(perplexity_table) == (
        "At 3/8 bits, per-vector scales (S=4/8) reach perplexity 14.00 where float has 12.00; "
        "per-channel scales reach ∞"
    )


@pytest.mark.parametrize("vector", [78.4, 70.0])
def test_headline_claims_nothing_that_the_errors_do_not_carry(
    squad_table: Table, make_record: MakeRecord, vector: float
) -> None:
    cells = {
        ("4/8", "6/10"): make_record(vector, "4/8", "6/10"),
        ("4/8", "per-channel"): make_record(78.4, "4/8", "per-channel"),
    }
    text = headline(dataclasses.replace(squad_table, cells=cells))
    assert text == "On BERT-base on SQuAD no row tells S=6/10 from per-channel scales beyond two standard errors"


def test_headline_without_a_per_channel_column(squad_table: Table, make_record: MakeRecord) -> None:
    cells = {("4/8", "6/10"): make_record(80.0, "4/8", "6/10")}
    assert headline(dataclasses.replace(squad_table, cells=cells)) == "BERT-base on SQuAD: float F1 87.4"


def test_calibrators_are_named_weights_first(squad_table: Table) -> None:
    cell = squad_table.cells["3/8", "per-channel"]
    assert calibrator_text(cell) == "mse·p99.99"
    assert calibrator_text(dataclasses.replace(cell, activation_calibrator="mse")) == "mse"
    assert calibrator_text(dataclasses.replace(cell, weight_calibrator=None)) == "p99.99"
    assert calibrator_text(squad_table.baseline) == ""
    assert "the best of 8 by KL of the logits, chosen on calibration data" in per_channel_note(squad_table)


def test_severity_is_relative_and_knows_what_is_better(squad_table: Table, perplexity_table: Table) -> None:
    drops = [Difference(value=value, standard_error=0.1) for value in (0.5, -0.8, -2.0, -10.0)]
    assert [severity(squad_table, drop) for drop in drops] == ["kept", "kept", "slight", "lost"]
    drops = [Difference(value=value, standard_error=0.1) for value in (-1.0, 0.1, 0.5, 5.0)]
    assert [severity(perplexity_table, drop) for drop in drops] == ["kept", "kept", "slight", "lost"]


def test_what_was_measured_on(squad_table: Table, perplexity_table: Table) -> None:
    assert float_text(squad_table) == "float 87.4±0.9 (86.9)"
    assert float_text(perplexity_table).startswith("float 12.00±0.1")
    assert sample_text(squad_table) == "400 of 10,570 samples, 128 for calibration"
    assert sample_text(perplexity_table) == "all 400 samples, 64 for calibration"
