"""Pictures of a table."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vsquant.errors import MissingExtraError
from vsquant.report import draw_pictures, write_png
from vsquant.report.figures import column_colours
from vsquant.results import Table


@pytest.fixture(autouse=True)
def needs_matplotlib(request: pytest.FixtureRequest) -> None:
    if "missing" not in request.node.name:
        pytest.importorskip("matplotlib")


def identifiers(svg: str) -> set[str]:
    return set(re.findall(r'\bid="([^"]+)"', svg))


def test_pictures_show_every_format_row_and_the_baseline(squad_table: Table) -> None:
    metric, drop = draw_pictures(squad_table)
    for picture in (metric, drop):
        texts = {"".join(text.itertext()).strip() for text in ElementTree.fromstring(picture.svg).iter() if text.text}
        assert {"S=4/8", "S=6/10", "S=fp16", "per-channel", "3/8", "8/8", "weight/activation bits"} <= texts
    assert "float 87.4" in metric.svg
    assert "−75.6" in drop.svg
    assert "F1 by format" in metric.title


def test_pictures_take_the_page_colour_and_fetch_nothing(squad_table: Table) -> None:
    for picture in draw_pictures(squad_table):
        assert "currentColor" in picture.svg
        assert "#010203" not in picture.svg
        assert picture.svg.startswith("<svg")
        assert not re.search(r'(href="|url\()(?!#)', picture.svg)


def test_identifiers_are_unique_in_a_page_and_all_references_resolve(squad_table: Table) -> None:
    other = dataclasses.replace(squad_table, scale_mode="paper")
    pictures = [*draw_pictures(squad_table), *draw_pictures(other)]
    sets = [identifiers(picture.svg) for picture in pictures]
    assert sum(map(len, sets)) == len(set.union(*sets))
    for picture, known in zip(pictures, sets, strict=True):
        assert set(re.findall(r'(?:url\(|href=")#([^")]+)', picture.svg)) <= known


def test_pictures_are_the_same_every_time(squad_table: Table) -> None:
    assert draw_pictures(squad_table) == draw_pictures(squad_table)


@pytest.mark.filterwarnings("error")
def test_a_diverged_cell_is_drawn_at_the_edge(perplexity_table: Table) -> None:
    metric, drop = draw_pictures(perplexity_table)
    assert "+∞" in drop.svg and "+4084" in drop.svg
    assert "perplexity" in metric.svg


def test_a_table_without_vector_scales_is_drawn(squad_table: Table) -> None:
    cells = {key: cell for key, cell in squad_table.cells.items() if key[1] == "per-channel"}
    _, drop = draw_pictures(dataclasses.replace(squad_table, cells=cells))
    assert "per-channel" in drop.svg


def test_families_have_their_colours() -> None:
    colours = column_colours(["3/4", "4/6", "6/6", "fp32", "per-channel", "nvfp4", "mxfp4"])
    assert len(set(colours.values())) == 7
    assert colours["per-channel"] == "#d55e00"
    for column in ("3/4", "4/6", "6/6"):
        red, _, blue = (int(colours[column][start : start + 2], 16) for start in (1, 3, 5))
        assert blue > red


def test_png_is_written_whole(squad_table: Table, tmp_path: Path) -> None:
    write_png(squad_table, tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["table.png"]


def test_missing_matplotlib_names_the_extra(
    squad_table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = r"drawing pictures of a table needs the package 'matplotlib'.*pip install 'vsquant\[demo\]'"
    with pytest.raises(MissingExtraError, match=message):
        draw_pictures(squad_table)
    with pytest.raises(MissingExtraError, match=message):
        write_png(squad_table, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
