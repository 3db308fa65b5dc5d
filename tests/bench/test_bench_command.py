"""``vsquant bench`` as a user has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

QUICK = ("--rounds", 1, "--threads", "1,2")


def test_the_table_keeps_to_80_columns_and_names_reasons(tiny_bench, vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program("bench", *QUICK, "--results", tmp_path)
    assert ended.status == 0
    assert max(map(len, ended.out.splitlines())) <= 80
    for words in ("w4a8-s4/x-token", "missing: not installed", "goal 1.50", "signal 11"):
        assert words in ended.out
    assert {path.name for path in tmp_path.iterdir()} >= {"speed-linear.json", "speed.md", "speed-all.md"}


def test_json_is_all_there_is(tiny_bench, vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program("bench", *QUICK, "--results", tmp_path, "--json", "--peers", "none")
    (speed,) = json.loads(ended.out)
    assert speed["name"] == "linear-3x32x16" and all(row["ours"] for row in speed["rows"])


def test_a_wrong_result_ends_with_1_and_without_a_speed(tiny_bench, red, vsquant_program, tmp_path: Path) -> None:
    ended = vsquant_program("bench", *QUICK, "--results", tmp_path)
    assert ended.status == 1
    assert "7 of 48 results differ" in ended.out and "1 thread" not in ended.out


def test_the_list_measures_nothing(vsquant_program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = vsquant_program("bench", "all", "--list")
    assert ended.status == 0 and "linear-1x4096x4096" in ended.out and "ggml Q4_0" in ended.out
    assert list(tmp_path.iterdir()) == []
    assert "linear-1x4096x4096" in json.loads(vsquant_program("bench", "kernel", "--list", "--json").out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("everything",), "what to measure must be one of kernel, model, cell, all, not 'everything'"),
        (("kernel", "--case", "x*"), "case must match a case of 'kernel' (--list shows them), not 'x*'"),
        (("kernel", "--threads", "two"), "threads must be counts such as 1,2, not 'two'"),
        (("kernel", "--peers", "tpu"), "a peer must be one that --list shows, or match one, not 'tpu'"),
        (("kernel", "--isa", "sse2"), "isa must be one of native, avx2, not 'sse2'"),
    ],
)
def test_mistakes_are_told(arguments: tuple[str, ...], message: str, vsquant_program) -> None:
    ended = vsquant_program("bench", *arguments)
    assert ended.status == 1 and ended.out == "" and message in ended.err
