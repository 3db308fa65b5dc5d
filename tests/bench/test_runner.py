"""Measuring: who is timed, who is refused and why, what is kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vsquant.bench import runner
from vsquant.bench.cases import LinearCase
from vsquant.bench.contender import RefusedError
from vsquant.bench.files import read_speeds, speed_path, store_speed
from vsquant.bench.fleet import CrashedError, Fleet
from vsquant.bench.request import BenchRequest
from vsquant.bench.runner import run_bench
from vsquant.errors import VsquantError


def request(case: LinearCase, folder: Path, **options: object) -> BenchRequest:
    return BenchRequest(
        **{"cases": (case,), "folder": folder, "threads": (1,), "rounds": 2, "round_seconds": 0.0} | options
    )


def test_every_contender_has_a_time_or_a_reason(tiny_bench: LinearCase, tmp_path: Path) -> None:
    (speed,) = run_bench(request(tiny_bench, tmp_path, threads=(1, 2)), "the command")
    rows = {row.name: row for row in speed.rows}
    assert list(rows)[:2] == ["vsquant w4a8-s4/x-token", "vsquant w4a8-s4/8-token"]
    assert rows["missing"].reason == "not installed: pip install it"
    assert rows["crashing"].reason == "its process ended with signal 11"
    assert "relative error 2 where its format explains 0.1" in rows["wrong"].reason
    for name in (*list(rows)[:2], "good"):
        assert [(t.threads, t.clock) for t in rows[name].timings] == [(1, "cpu"), (2, "wall")]
        assert all(len(t.round_seconds) == 2 for t in rows[name].timings)
    assert speed.provenance["command"] == "the command" and speed.provenance["commit"] == "c0ffee"
    assert speed.provenance["machine"]["cores"] >= 1 and "torch" in speed.provenance["versions"]
    assert (speed.others_busy_cores is None) == (not Path("/proc/stat").is_file())
    assert speed.best_peer(1) in (rows["good"], rows["free"])


def test_goals_compare_medians_round_by_round(tiny_bench: LinearCase, tmp_path: Path) -> None:
    (speed,) = run_bench(request(tiny_bench, tmp_path), "")
    best, good, floor = speed.goals
    ours, peer = speed.rows[0].timings[0], speed.row("good").timings[0]
    assert best.what.startswith("times faster than best peer (") and (best.wanted, good.wanted) == (1.5, 2.0)
    assert good.reached == ours.times_faster(peer)[1]
    if speed.floors:
        assert floor.reached == pytest.approx(speed.floors[0].seconds / ours.median_seconds)


def test_a_red_parity_check_prints_no_speed(tiny_bench: LinearCase, red: None, tmp_path: Path) -> None:
    (speed,) = run_bench(request(tiny_bench, tmp_path), "")
    assert speed.wrong and all(row.reason.startswith("7 of 48 results differ") for row in speed.wrong)
    assert speed.threads == () and all(not row.timings for row in speed.rows)


def test_what_the_same_commit_measured_is_not_measured_again(
    tiny_bench: LinearCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_bench(request(tiny_bench, tmp_path), "")
    assert run_bench(request(tiny_bench, tmp_path), "other") == first
    assert run_bench(request(tiny_bench, tmp_path, fresh=True), "other") != first
    monkeypatch.setattr(runner, "commit", lambda: "c0ffee+")
    assert run_bench(request(tiny_bench, tmp_path), "third")[0].provenance["command"] == "third"


def test_only_the_peers_that_were_asked_for(tiny_bench: LinearCase, tmp_path: Path) -> None:
    (speed,) = run_bench(request(tiny_bench, tmp_path, peers=("go*",)), "")
    assert [row.name for row in speed.rows if not row.ours] == ["good"]


def test_who_cannot_be_kept_to_an_instruction_set_is_marked(tiny_bench: LinearCase, tmp_path: Path) -> None:
    (speed,) = run_bench(request(tiny_bench, tmp_path, isa="avx2"), "")
    assert (speed.row("good").setting, speed.row("free").setting) == ("", "not kept to avx2")
    (speed,) = run_bench(request(tiny_bench, tmp_path, fresh=True), "")
    assert speed.row("free").setting == ""


def test_progress_counts_cases(tiny_bench: LinearCase, tmp_path: Path) -> None:
    steps = []
    run_bench(request(tiny_bench, tmp_path), "", lambda step, done, total: steps.append((step, done, total)))
    assert steps[0] == ("cases", 0, 1) and steps[-1] == ("cases", 1, 1)


def test_result_files_come_back_as_they_were(tiny_bench: LinearCase, tmp_path: Path) -> None:
    (speed,) = run_bench(request(tiny_bench, tmp_path), "")
    assert read_speeds(tmp_path, "linear") == {speed.name: speed}
    store_speed(tmp_path, replace(speed, name="another"))
    assert list(read_speeds(tmp_path, "linear")) == [speed.name, "another"]
    assert read_speeds(tmp_path, "conv") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "must be a result file of vsquant bench"), ("[]", "must be a result file"), ("{}", "must be a result file"),
     (json.dumps({"version": 9, "cases": {}}), "must be of version 1, not 9; move it away")],
)  # fmt: skip
def test_a_foreign_result_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    speed_path(tmp_path, "linear").write_text(text)
    with pytest.raises(VsquantError, match=message):
        read_speeds(tmp_path, "linear")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"threads": ()}, "threads must be counts of at least 1"), ({"rounds": 0}, "rounds must be at least 1, not 0"),
     ({"isa": "sse"}, "isa must be one of native, avx2, not 'sse'"), ({"peers": ("x*",)}, "or match one, not 'x\\*'")],
)  # fmt: skip
def test_requests_are_checked(options: dict[str, object], message: str, tiny_bench: LinearCase, tmp_path: Path) -> None:
    with pytest.raises(VsquantError, match=message):
        request(tiny_bench, tmp_path, **options)


def test_a_real_process_answers_and_a_dead_one_is_told() -> None:
    with Fleet() as fleet:
        answer = fleet.ask("torch", {}, {"do": "prepare", "case": "linear-384x768x768", "contender": "torch float32"})
        assert answer["error"] <= answer["allowed_error"]
        assert fleet.ask("torch", {}, {"do": "start", "contender": "torch float32", "threads": 1})["seconds"] > 0
        with pytest.raises(RefusedError, match="KeyError: 'missing'"):
            fleet.ask("torch", {}, {"do": "start", "contender": "missing", "threads": 1})
        fleet._processes["torch"].kill()
        fleet._processes["torch"].wait()
        with pytest.raises(CrashedError, match="its process ended with signal 9"):
            fleet.ask("torch", {}, {"do": "release"})
        assert fleet.running() == ()
