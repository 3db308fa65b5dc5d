"""Tables in the terminal: the poster's layout within 100 columns."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from vsquant.report import render_table
from vsquant.results import PUBLISHED, Table


def shown(table: Table, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    console.print(render_table(table, width))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_seven_columns_fit_a_hundred_in_one_block(squad_table: Table) -> None:
    text = shown(squad_table)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert text.count("W/A") == 1
    assert "…" not in text


def test_layout_is_the_posters(squad_table: Table) -> None:
    lines = shown(squad_table).splitlines()
    header = next(line for line in lines if line.startswith("W/A")).split()
    assert header == ["W/A", "S=4/8", "S=4/10", "S=6/8", "S=6/10", "S=fp16", "S=fp32", "per-channel"]
    first = next(index for index, line in enumerate(lines) if line.startswith("3/8"))
    assert lines[first].split()[:3] == ["3/8", "81.3", "(81.6)"]
    assert lines[first].split()[-2:] == ["11.8", "(12.1)"]
    assert lines[first + 1].split()[0] == "−6.1±0.1"
    assert lines[first + 1].split()[-1] == "−75.6±0.8"
    assert lines[first + 2].split() == ["mse·p99.99"]


def test_title_has_the_float_baseline_with_its_error(squad_table: Table) -> None:
    text = shown(squad_table)
    assert "BERT-base on SQuAD  F1 %, float 87.4±0.9 (86.9)" in text
    assert "scale mode requantize, γ static; 400 of 10,570 samples, 128 for calibration" in text
    assert "Not the poster's checkpoint." in text


def test_a_missing_cell_is_a_dash_beside_the_published_figure(squad_table: Table) -> None:
    line = next(line for line in shown(squad_table).splitlines() if line.startswith("6/8"))
    assert "– (86.2)" in line


def test_columns_that_do_not_fit_follow_below(squad_table: Table) -> None:
    text = shown(squad_table, 60)
    assert max(len(line) for line in text.splitlines()) <= 60
    assert text.count("W/A") == 2
    assert text.count("−75.6±0.8") == 1


def test_without_published_figures_there_are_no_brackets(perplexity_table: Table) -> None:
    text = shown(perplexity_table)
    assert "in brackets" not in text
    assert "+0.40±0.02" in text and "+∞" in text and "nvfp4" in text


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_titles_are_not_read_as_markup(squad_table: Table, name: str) -> None:
    text = shown(dataclasses.replace(squad_table, title=f"[bold]{name}[/]", caveat="[red]x"))
    assert f"[bold]{name}[/]" in text and "[red]x" in text
