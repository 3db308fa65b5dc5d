"""``make ci``: stages that fail, hang or lack what they need."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

MAKEFILE = """\
good: ; @true
bad: ; @exit 3
hang: ; @sleep 600
hidden: ; @test -z "$$VSQUANT_DATA"
shown: ; @test -n "$$VSQUANT_DATA"
"""


@pytest.fixture
def ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """tools/ci.py, in a folder whose Makefile has a target for each case."""
    source = Path(__file__).parent.parent / "tools" / "ci.py"
    spec = importlib.util.spec_from_file_location("vsquant_ci", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "vsquant_ci", module)
    spec.loader.exec_module(module)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("VSQUANT_DATA", raising=False)
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    return module


def stage(ci: ModuleType, target: str, needs: str | None = None, budget_minutes: float = 1) -> object:
    return ci.Stage(target=target, budget_minutes=budget_minutes, needs=needs)


@pytest.mark.parametrize(("target", "state", "red"), [("good", "passed", False), ("bad", "failed", True)])
def test_a_stage_is_as_red_as_its_target(ci: ModuleType, target: str, state: str, red: bool) -> None:
    outcome = ci.run(stage(ci, target))
    assert (outcome.state, outcome.red) == (state, red)


def test_a_stage_past_its_budget_is_ended(ci: ModuleType) -> None:
    outcome = ci.run(stage(ci, "hang", budget_minutes=0.005))
    assert (outcome.state, outcome.red) == ("over budget", True)


def test_only_the_stage_that_needs_real_data_sees_it(ci: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSQUANT_DATA", "/somewhere")
    assert ci.run(stage(ci, "hidden")).state == "passed"
    assert ci.run(stage(ci, "shown", needs="VSQUANT_DATA")).state == "passed"


def test_without_data_a_stage_skips_here_and_fails_in_ci(ci: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = ci.run(stage(ci, "shown", needs="VSQUANT_DATA"))
    assert (outcome.state, outcome.red) == ("skipped: VSQUANT_DATA is not set", False)
    monkeypatch.setenv("CI", "true")
    outcome = ci.run(stage(ci, "shown", needs="VSQUANT_DATA"))
    assert (outcome.state, outcome.red) == ("failed: VSQUANT_DATA is not set", True)


def test_without_a_tool_a_stage_skips_here_and_is_installed_or_fails_in_ci(
    ci: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_tool = ci.Stage(target="good", budget_minutes=1, tools=(("vsquant-tool", "vsquant-package"),))
    asked = []
    monkeypatch.setattr(ci, "install", asked.append)
    lack = "vsquant-tool not installed (Debian: vsquant-package)"
    assert ci.run(needs_tool).state == f"skipped: {lack}"
    monkeypatch.setenv("CI", "true")
    assert ci.run(needs_tool).state == f"failed: {lack}"
    assert asked == [["vsquant-package"]]

    def install(packages: list[str]) -> None:
        (tmp_path / "vsquant-tool").write_text("")
        (tmp_path / "vsquant-tool").chmod(0o755)

    monkeypatch.setattr(ci, "install", install)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert ci.run(needs_tool).state == "passed"


def test_all_stages_run_and_one_red_stage_fails_the_run(
    ci: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ci, "SET_UP", stage(ci, "good"))
    monkeypatch.setattr(ci, "STAGES", (stage(ci, "bad"), stage(ci, "good")))
    assert ci.main() == 1
    summary = capfd.readouterr().out.split("=== stages")[1]
    assert [line.split()[0] for line in summary.strip().splitlines()] == ["good", "bad", "good"]


def test_nothing_runs_without_an_environment(ci: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ci, "SET_UP", stage(ci, "bad"))
    monkeypatch.setattr(ci, "STAGES", (stage(ci, "hang"),))
    assert ci.main() == 1


def test_the_budgets_fit_the_whole_runs(ci: ModuleType) -> None:
    assert ci.SET_UP.budget_minutes + sum(stage.budget_minutes for stage in ci.STAGES) < 75
