"""Liberty files: syntax, Boolean functions, tables, units, and what a library must have."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import numpy as np
import pytest

from vsquant.errors import LibraryError
from vsquant.hardware.synthesis import Library, boolean, read_library
from vsquant.hardware.synthesis.liberty_syntax import parse
from vsquant.hardware.synthesis.tables import Table


def test_groups_attributes_and_lists() -> None:
    group = parse('library (a) { /* no */ x : "1 2"; y (1, "b c"); // no\n z : w\n cell (c) { area : 1.5 } }')
    assert (group.name, group.attributes, group.lists) == ("a", {"x": "1 2", "z": "w"}, {"y": ("1", "b c")})
    assert [cell.attributes for cell in group.inner("cell")] == [{"area": "1.5"}]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('library (a) {\n x : "1 ;\n}', "line 2 of the Liberty file cannot be read"),
        ("library (a) {\n cell (b) {\n", "line 3 of the Liberty file must have a word, not 'the end of the file'"),
        ("library (a {\n}", r"line 1 of the Liberty file must have ',', not '\{'"),
        ("module a;", "must"),
        ("cell (a) { }", "must begin with library"),
    ],
)
def test_what_is_not_liberty_is_refused_with_its_line(text: str, wanted: str) -> None:
    with pytest.raises(LibraryError, match=wanted):
        parse(text)


@pytest.mark.parametrize(
    ("text", "python"),
    [
        ("!(A*B)+C", lambda a, b, c: not (a and b) or c),
        ("A B' ^ C", lambda a, b, c: (a and not b) != c),
        ("(A1 | B) & !C", None),
        ("(A + B)' C", lambda a, b, c: not (a or b) and c),
        ("!A !B + 1", lambda a, b, c: True),
        ("A ^ B ^ C", lambda a, b, c: (a != b) != c),
    ],
)
def test_functions_are_what_python_says(text: str, python) -> None:
    function = boolean.parse(text)
    if python is None:
        assert (
            function.pins == {"A1", "B", "C"} and function.verilog({p: p for p in function.pins}) == "((A1 | B) & ~C)"
        )
        return
    for a, b, c in itertools.product((False, True), repeat=3):
        words = {name: np.array(-int(bit) & (2**64 - 1), np.uint64) for name, bit in zip("ABC", (a, b, c), strict=True)}
        assert int(function.evaluate(words)) == (2**64 - 1 if python(a, b, c) else 0)


@pytest.mark.parametrize("text", ["", "A +", "(A", "A) B", "A $ B", "2"])
def test_what_is_no_function_is_refused(text: str) -> None:
    with pytest.raises(LibraryError, match=r"Boolean function|bracket"):
        boolean.parse(text)


def test_tables_are_linear_between_and_beyond() -> None:
    table = Table(slews=(1.0, 3.0), loads=(0.0, 10.0), values=((0.0, 10.0), (20.0, 50.0)))
    assert table.at(1.0, 0.0) == 0.0 and table.at(2.0, 5.0) == 20.0 and table.at(5.0, 20.0) == 140.0
    assert Table(slews=(0.0,), loads=(0.0,), values=((7.0,),)).at(9.0, 9.0) == 7.0


def test_a_library_has_its_units_and_the_supplys_energy(tiny_library: Library) -> None:
    assert set(tiny_library.cells) == {"INV", "BUF", "NAND2", "NOR2", "XOR2", "DFF", "TIEHI", "TIELO"}
    assert tiny_library.time_ps == pytest.approx(1000) and tiny_library.load_ff == pytest.approx(1000)
    assert tiny_library.tie("1") == ("TIEHI", "Y") and tiny_library.tie("0") == ("TIELO", "Y")
    inverter = tiny_library.cells["INV"].outputs["Y"]
    assert [table.at(0.01, 0.001) for table in inverter.rise_energy] == [pytest.approx(0.0002)]
    assert inverter.rise_energy[0].at(0.1, 0.001) == pytest.approx(0.0003)  # its load is the first variable
    flip_flop = tiny_library.cells["DFF"].flip_flop
    assert flip_flop is not None and (flip_flop.clock, flip_flop.next_state.pin) == ("CK", "D")


def test_a_gzipped_library_is_the_same(tiny_liberty: Path, tiny_library: Library, tmp_path: Path) -> None:
    path = tmp_path / "cells.lib.gz"
    path.write_bytes(gzip.compress(tiny_liberty.read_bytes()))
    assert read_library(path) == tiny_library


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["DFF"], "rising-edge flip-flop"),
        (["INV"], "inverter"),
        (["BUF"], "buffer"),
        (["NAND2", "NOR2"], "two-input NAND or NOR"),
        (["TIEHI"], "tie-high cell"),
        (["TIELO"], "tie-low cell"),
    ],
)
def test_a_missing_kind_of_cell_is_named(cells: list[str], kind: str, tiny_liberty: Path, tmp_path: Path) -> None:
    text = tiny_liberty.read_text()
    for cell in cells:
        begin = text.index(f"  cell ({cell})")
        end = text.find("  cell (", begin + 1)
        text = text[:begin] + (text[end:] if end > 0 else "}\n")
    path = tmp_path / "cells.lib"
    path.write_text(text)
    with pytest.raises(LibraryError, match=f"library 'tiny' must have a cell that is a {kind}"):
        read_library(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="--liberty must name a Liberty file"):
        read_library(tmp_path / "none.lib")


def test_a_damaged_file_is_named(tiny_liberty: Path, tmp_path: Path) -> None:
    path = tmp_path / "cells.lib.gz"
    path.write_bytes(gzip.compress(tiny_liberty.read_bytes())[:-20])
    with pytest.raises(LibraryError, match=r"cells\.lib\.gz must be a whole, readable Liberty file"):
        read_library(path)
    path.write_text("no library")
    with pytest.raises(LibraryError, match=r"cells\.lib\.gz: .*line 1"):
        read_library(path)


def test_a_table_must_be_filled(tiny_liberty: Path, tmp_path: Path) -> None:
    path = tmp_path / "cells.lib"
    path.write_text(tiny_liberty.read_text().replace('("0.02, 0.07", "0.03, 0.08")', '("0.02, 0.07", "0.03")', 1))
    with pytest.raises(LibraryError, match="a table of cell_rise must have 4 values, not 3"):
        read_library(path)
