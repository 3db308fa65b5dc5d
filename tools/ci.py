"""Run every stage of ``make ci`` with its minute budget and print what each took. Exit status 1 if any failed.

With ``CI=true`` a stage whose needs are not met fails; elsewhere it is skipped, and the summary says so.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A make target, the minutes it may take, and the environment variable without which it cannot run."""

    target: str
    budget_minutes: float
    needs: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one stage ended: ``state`` is "passed", "failed", "over budget" or "skipped: why"."""

    stage: Stage
    state: str
    seconds: float

    @property
    def red(self) -> bool:
        """Whether the whole run must fail."""
        return self.state != "passed" and not self.state.startswith("skipped")


SET_UP = Stage(target="env", budget_minutes=8)
STAGES = (
    Stage(target="lint", budget_minutes=5),
    Stage(target="test", budget_minutes=10),
    Stage(target="docs", budget_minutes=3),
    Stage(target="data", budget_minutes=12, needs="VSQUANT_DATA"),
)


def environment(stage: Stage) -> dict[str, str]:
    """The caller's environment; real data is hidden from the stages that must pass without it."""
    return {name: value for name, value in os.environ.items() if stage.needs == name or name != "VSQUANT_DATA"}


def execute(stage: Stage) -> str:
    """Run the stage and give its state; past the budget the stage and all it started are ended."""
    process = subprocess.Popen(
        ["make", "--no-print-directory", stage.target],
        env=environment(stage),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return "failed" if process.wait(timeout=stage.budget_minutes * 60) else "passed"
    except subprocess.TimeoutExpired:
        return "over budget"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(stage: Stage) -> Outcome:
    """Run one stage, or say why it does not run."""
    print(f"\n=== {stage.target} (budget {stage.budget_minutes:g} min)", flush=True)
    start = time.monotonic()
    if stage.needs and not os.environ.get(stage.needs):
        state = f"{'failed' if os.environ.get('CI') == 'true' else 'skipped'}: {stage.needs} is not set"
    else:
        state = execute(stage)
    return Outcome(stage=stage, state=state, seconds=time.monotonic() - start)


def main() -> int:
    """Run all stages, print the summary, return the exit status."""
    outcomes = [run(SET_UP)]
    if not outcomes[0].red:
        outcomes += [run(stage) for stage in STAGES]
    print("\n=== stages")
    for outcome in outcomes:
        minutes = f"{outcome.seconds / 60:5.1f} of {outcome.stage.budget_minutes:g} min"
        print(f"{outcome.stage.target:<6} {minutes:<16} {outcome.state}")
    return int(any(outcome.red for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
