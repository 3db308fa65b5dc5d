"""Executors lose no job; the driver retries and then records what fails, and the sweep goes on."""

from __future__ import annotations

import os
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from vsquant.errors import VsquantError
from vsquant.explore.executors.base import Executor, Job, Settings
from vsquant.explore.executors.local import Work, available_cores, local_executor, suitable_workers
from vsquant.explore.plan import Plan
from vsquant.explore.sweep import run_sweep
from vsquant.results import ResultsStore
from vsquant.results.points import PointSpec
from vsquant.results.store import content_key


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "fakes"))
    found: Work = import_module("explore_work").work
    return found


def plan_of(*hows: str) -> Plan:
    points = [PointSpec(network="n", spec=f"w{index}", family="vector", method=how) for index, how in enumerate(hows)]
    inputs = {content_key({"spec": point.spec}): {"spec": point.spec} for point in points}
    jobs = tuple(Job(key=key, point=point) for key, point in zip(inputs, points, strict=True))
    return Plan(
        jobs=jobs,
        finished=(),
        inputs=inputs,
        impossible=(),
        weight_quantizations=0,
        evaluations={},
        float_seconds={},
    )


def executor(work: Work, workers: int) -> Executor:
    return local_executor(work, Settings(), workers=workers)


def test_one_worker_is_this_process(work: Work, tmp_path: Path) -> None:
    with ResultsStore(tmp_path / "s") as store, executor(work, 1) as one:
        sweep = run_sweep(plan_of("", "raise", "refuse", ""), one, store)
        assert [record.model_bytes for record in sweep.records] == [os.getpid()] * 2
        assert [(each.reason, each.attempts) for each in sweep.failed] == [
            ("cannot be run", 1),
            ("ValueError: poisoned", 2),
        ]
        assert len(list(store.iter_points())) == 2 and len(store.failures()) == 2


def test_a_point_that_kills_its_worker_twice_fails_alone(work: Work, tmp_path: Path) -> None:
    log = tmp_path / "log"
    hows = [f"@{log}", f"kill@{log}", f"@{log}", f"raise@{log}", f"@{log}"]
    with ResultsStore(tmp_path / "s") as store, executor(work, 2) as pool:
        plan = plan_of(*hows)
        sweep = run_sweep(plan, pool, store)
        assert {record.point.spec for record in sweep.records} == {"w0", "w2", "w4"}
        assert os.getpid() not in {record.model_bytes for record in sweep.records}
        assert {record.weight_bytes for record in sweep.records} == {max(1, available_cores() // 2)}
        failed = {each.point.spec: each for each in store.failures()}
        assert failed["w1"].reason == "its worker died (signal SIGKILL)" and failed["w1"].attempts == 2
        assert failed["w3"].traceback == "Traceback"
    tried = Counter(log.read_text().split())
    assert [tried[job.key] for job in plan.jobs] == [1, 2, 1, 2, 1]


def test_workers_are_as_many_as_asked_for(work: Work) -> None:
    assert 1 <= suitable_workers() <= available_cores()
    with pytest.raises(VsquantError, match="workers must be at least 1, not 0"):
        executor(work, 0)
