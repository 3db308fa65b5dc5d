"""The HTML report: one file, complete, escaped, and written whole or not at all."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vsquant.report import Picture, to_html, write_html
from vsquant.results import Table

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Reader(HTMLParser):
    """Collects text by tag and checks that tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag in ("td", "th"):
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open
    return reader


def test_page_has_all_its_parts(squad_table: Table) -> None:
    page = read(to_html([squad_table]))
    for part in (
        "At 3/8 bits, per-vector scales (S=6/10) keep 82.5 of float's 87.4 % F1; per-channel scales keep 11.8",
        "400 of 10,570 samples, 128 for calibration",
        "SQuAD 1.1, CC BY-SA 4.0; BERT & friends <b>Apache-2.0</b>",
        "MLSys 2021, arXiv 2102.04503",
        "vsquant 0.1.0, torch 2.13.0",
        "2026-01-02T03:04:05+00:00",
        "6 min for 28 evaluations",
        "Not the poster's checkpoint.",
        "What the words mean",
        "depthwise, fewer channels than V: fallback <script>",
    ):
        assert part in page.text
    assert "81.3 (81.6)−6.1±0.1" in page.cells
    assert "11.8 (12.1)−75.6±0.8mse·p99.99" in page.cells
    assert "– (86.2)" in page.cells


def test_page_is_self_contained_and_needs_no_script(squad_table: Table) -> None:
    page = to_html([squad_table])
    reader = read(page)
    assert not {"script", "link", "img", "iframe", "object"} & reader.tags
    assert not [value for name, value in reader.attributes if name in ("src", "href") or name.startswith("on")]
    assert "@import" not in page and "url(" not in page and "http" not in page.replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_worse_cells_are_shaded_more(squad_table: Table) -> None:
    shades = [float(shade) for shade in re.findall(r"--loss:([0-9.]+)", to_html([squad_table]))]
    assert len(shades) == 27
    assert max(shades) == shades[6] > 0.9
    assert min(shades) < 0.2


def test_layers_are_folded_and_shared_by_cells(squad_table: Table) -> None:
    page = to_html([squad_table])
    assert page.count("<details>") == 1
    assert "All cells: 3 layers, 1 not as requested" in page
    changed = squad_table.cells["3/8", "per-channel"]
    changed = dataclasses.replace(changed, layers=changed.layers[:2])
    cells = {**squad_table.cells, ("3/8", "per-channel"): changed}
    page = to_html([dataclasses.replace(squad_table, cells=cells)])
    assert page.count("<details>") == 2
    assert "per-channel at 3/8: 2 layers, all as requested" in page
    assert "per-channel at 4/8, 6/8, 8/8: 3 layers" in page


def test_several_tables_each_have_a_section(squad_table: Table, perplexity_table: Table) -> None:
    pictures = {1: [Picture(title='a "picture"', svg="<svg></svg>")]}
    page = to_html([squad_table, perplexity_table], pictures)
    reader = read(page)
    assert page.count("<h1>") == 1 and page.count("<figure") == 1
    assert page.index("Tiny LM on WikiText") < page.index("<figure")
    assert ("aria-label", 'a "picture"') in reader.attributes
    assert "∞+∞mse·p99.99" in reader.cells


def test_page_with_drawn_pictures_is_well_formed(squad_table: Table) -> None:
    pytest.importorskip("matplotlib")
    from vsquant.report import draw_pictures

    reader = read(to_html([squad_table], {0: draw_pictures(squad_table)}))
    assert "svg" in reader.tags
    outside = [value for name, value in reader.attributes if name.endswith("href") and value and value[0] != "#"]
    assert not outside


def test_write_is_whole(squad_table: Table, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_html(path, [squad_table])
    assert path.read_text(encoding="utf-8") == to_html([squad_table])
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    squad_table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_html(path, [squad_table])
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]
