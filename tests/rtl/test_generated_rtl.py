"""What ``vsquant hw rtl`` wrote: its own commands lint it without a warning and simulate it, and the bench can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vsquant.errors import VsquantError
from vsquant.hardware.rtl.designs import Sizes, design_for_spec
from vsquant.hardware.rtl.generate import LINT, check_design, write_design
from vsquant.spec import LayerSpec

DESIGNS = [
    ("w4a4u-s4/6", "w4a4u-s4/6", Sizes()),
    ("w4a8-s6/10-p6", "w4a4u-s4/4", Sizes(lanes=32, positions=8)),
    ("w8a8", None, Sizes(lanes=8)),
    ("w3a4-s4/4-top-v8-token", None, Sizes()),
]


def written(place: Path, spec: str, following: str | None, sizes: Sizes) -> Path:
    takes = None if following is None else LayerSpec.parse(following)
    write_design(design_for_spec(LayerSpec.parse(spec), takes, sizes), place / "element")
    return place / "element"


@pytest.mark.parametrize(("spec", "following", "sizes"), DESIGNS)
def test_the_readmes_commands_pass(spec, following, sizes, tmp_path: Path) -> None:
    for tool in ("iverilog", "verilator"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (Debian: {tool})")
    folder = written(tmp_path, spec, following, sizes)
    commands = re.findall(r"^    ((?:iverilog|vvp|verilator) .*)$", (folder / "README.md").read_text(), re.M)
    assert len(commands) == 3
    for command in commands:
        line = command.split("#")[0]
        done = subprocess.run(["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "" if command == LINT else done.stdout.startswith("PASS: "), done.stdout


def damage(path: Path, bit: int = 0) -> None:
    """One bit is another in the middle word."""
    lines = path.read_text().splitlines()
    middle = len(lines) // 2
    lines[middle] = f"{int(lines[middle], 16) ^ 1 << bit:0{len(lines[middle])}x}"
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(("port", "bit"), [("weights", 0), ("activations", 0), ("constants", 15), ("codes", 0)])
def test_one_wrong_bit_fails_the_bench(port, bit, tmp_path: Path) -> None:
    folder = written(tmp_path, *DESIGNS[0])
    assert check_design(folder).startswith("PASS: 0 sums and 96 codes words are exact")
    damage(folder / "golden" / f"{port}.hex", bit)
    with pytest.raises(VsquantError, match=r"must print PASS, not: .*(is wrong|word \d+ is)"):
        check_design(folder)


def test_one_wrong_sum_or_cycle_fails_the_bench(tmp_path: Path) -> None:
    folder = written(tmp_path, *DESIGNS[2])
    configuration = folder / "bench" / "configuration.svh"
    text = configuration.read_text()
    cycles = int(re.search(r"CYCLES = (\d+)", text).group(1))
    configuration.write_text(text.replace(f"CYCLES = {cycles}", f"CYCLES = {cycles - 1}"))
    with pytest.raises(VsquantError, match=f"{cycles} cycles, not the {cycles - 1} of the cycle model"):
        check_design(folder)
    configuration.write_text(text)
    damage(folder / "golden" / "sums.hex")
    with pytest.raises(VsquantError, match=r"must print PASS, not: .*word"):
        check_design(folder)
