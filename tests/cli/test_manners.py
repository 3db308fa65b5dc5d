"""How the program ends, what it prints where, and that help is quick and shows an example."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

VERBS = ("table", "quantize", "evaluate", "inspect", "doctor", "bench", "explore")
HEAVY = ("torch", "numpy", "matplotlib", "transformers", "pydantic", "sklearn", "sqlite3", "yaml")
TABLE = ("table", "tiny", "--rows", "3/4U,4/4U,8/8", "--scales", "4/6,fp32", "--calibration-samples", 32)


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example_that_is_understood(verb: str, vsquant_program) -> None:
    ended = vsquant_program(verb, "--help", columns=200)
    assert ended.status == 0 and ended.err == ""
    assert re.search(rf"Example: `?vsquant {verb} ", ended.out)


def test_help_names_every_verb(vsquant_program) -> None:
    ended = vsquant_program("--help")
    assert ended.status == 0 and all(verb in ended.out for verb in (*VERBS, "hw"))


def test_help_loads_nothing_heavy() -> None:
    script = f"import sys, vsquant.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_version(vsquant_program) -> None:
    import vsquant

    ended = vsquant_program("--version")
    assert (ended.status, ended.out.strip()) == (0, vsquant.__version__)


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("frob",), ("table",), ("table", "tiny", "--frob"), ("table", "tiny", "--limit", 0),
        ("table", "tiny", "--limit", "x"), ("quantize", "-", "w8a8", "--task", "tiny"), ("evaluate", "x"),
        ("table", "tiny", "--calibration-samples", 0), ("inspect",), ("doctor", "tiny"),
        ("doctor", "-", "w4a8-s4/8"),
        ("hw",), ("hw", "frob"), ("hw", "cost"),
    ],
)  # fmt: skip
def test_bad_usage_ends_with_2(arguments: tuple[object, ...], vsquant_program) -> None:
    ended = vsquant_program(*arguments)
    assert ended.status == 2
    assert "Usage" in ended.err + ended.out and "Traceback" not in ended.err


def test_json_is_all_there_is_on_standard_output(vsquant_program, tiny_checkpoint: Path, tmp_path: Path) -> None:
    for arguments in (
        (*TABLE, "--json", "--csv", tmp_path / "t.csv"),
        ("inspect", tiny_checkpoint, "--json"),
        ("evaluate", tiny_checkpoint, "--task", "tiny", "--json"),
        ("doctor", "tiny", "w8a8", "--json"),
        ("quantize", "-", "w8a8", "--task", "tiny", "-o", tmp_path / "q", "--json"),
    ):
        ended = vsquant_program(*arguments)
        assert ended.status == 0
        json.loads(ended.out)


def test_a_mistake_is_one_message_and_nothing_on_standard_output(vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program("inspect", tmp_path / "none.safetensors", "--json")
    assert ended.status == 1 and ended.out == ""
    assert ended.err == f"error: {tmp_path / 'none.safetensors'} must be a readable file: No such file or directory\n"


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_output_keeps_to_the_width_of_the_terminal(columns: int, vsquant_program, tiny_checkpoint: Path) -> None:
    for arguments in (TABLE, ("inspect", tiny_checkpoint), ("doctor", "tiny", "w4a4-s4/6"), ("table", "--help")):
        ended = vsquant_program(*arguments, columns=columns)
        assert ended.status == 0
        rows = [line for line in ended.out.splitlines() if "─" in line or "│" in line]
        assert rows or arguments[0] == "doctor"
        assert max((len(line) for line in rows), default=0) <= columns


def test_a_reader_that_goes_away_is_no_news(start_program, tiny_checkpoint: Path) -> None:
    for arguments in (("inspect", tiny_checkpoint), ("inspect", tiny_checkpoint, "--json")):
        program = start_program(*arguments)
        program.stdout.close()
        _, err = program.communicate(timeout=120)
        assert program.returncode == 1 and err == ""


def test_a_full_device_is_an_error(tiny_checkpoint: Path, program: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, str(program), "inspect", str(tiny_checkpoint)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "error: [Errno 28] No space left on device\n"


def test_an_interrupt_says_what_is_kept(start_program, tmp_path: Path) -> None:
    program = start_program(*TABLE, TINY_SLEEP=str(tmp_path / "asleep"))
    deadline = time.monotonic() + 100
    while not (tmp_path / "asleep").exists():
        assert program.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (130, "")
    assert err == "stopped; finished cells are kept, and the same command continues there\n"


def test_long_work_is_not_begun_for_files_that_cannot_be_written(vsquant_program, monkeypatch, tiny, tmp_path: Path):
    monkeypatch.setattr(tiny["TinyTask"], "load_model", None)
    monkeypatch.setattr(tiny["TinyTask"], "calibration_images", None)
    (tmp_path / "file").write_text("")
    quantize = ("quantize", "-", "w8a8", "--task", "tiny", "-o")
    for arguments, path, reason in (
        (quantize, tmp_path, "Is a directory"),
        (quantize, tmp_path / "file" / "q", "Not a directory"),
        (quantize, Path("/proc/none/q"), ""),
        ((*TABLE, "--csv"), tmp_path, "Is a directory"),
        ((*TABLE, "--html"), tmp_path, "Is a directory"),
        ((*TABLE, "--markdown"), tmp_path / "file" / "t.md", "Not a directory"),
    ):
        ended = vsquant_program(*arguments, path)
        assert ended.status == 1 and ended.out == ""
        assert ended.err.startswith(f"error: {path} must be a file that can be written, but it cannot: {reason}")


def test_a_report_that_cannot_be_written_in_the_end_still_leaves_the_table(
    vsquant_program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(path: Path, text: str, encoding: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    ended = vsquant_program(*TABLE, "--csv", tmp_path / "t.csv")
    assert ended.status == 1 and "tiny network on noise" in ended.out
    assert "error: the table is kept in the store, but a file could not be written: [Errno 28]" in ended.err
    assert list(tmp_path.glob("*.csv*")) == []
