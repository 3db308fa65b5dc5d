"""Run every stage of ``make ci`` with its minute budget and print what each took. Exit status 1 if any failed.

With ``CI=true`` missing system packages are installed, and a stage whose needs are not met even so fails; elsewhere it
is skipped, and the summary says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A make target, the minutes it may take, and what it cannot run without: an environment variable, programs.

    ``tools`` are (program, the Debian package that has it).
    """

    target: str
    budget_minutes: float
    needs: str | None = None
    tools: tuple[tuple[str, str], ...] = ()


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


ARM_TOOLS = (("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"), ("qemu-aarch64", "qemu-user"))
SET_UP = Stage(target="env", budget_minutes=8)
STAGES = (
    Stage(target="lint", budget_minutes=5),
    Stage(target="test", budget_minutes=10),
    Stage(target="rtl", budget_minutes=4, tools=(("iverilog", "iverilog"), ("verilator", "verilator"))),
    Stage(target="native", budget_minutes=4, tools=(("qemu-x86_64", "qemu-user"),)),
    Stage(target="isas", budget_minutes=10),
    Stage(target="sanitize", budget_minutes=12),
    Stage(target="neon", budget_minutes=6, tools=ARM_TOOLS),
    Stage(target="docs", budget_minutes=3),
    Stage(target="data", budget_minutes=12, needs="VSQUANT_DATA"),
)


def environment(stage: Stage) -> dict[str, str]:
    """The caller's environment; real data is hidden from the stages that must pass without it."""
    return {name: value for name, value in os.environ.items() if stage.needs == name or name != "VSQUANT_DATA"}


def in_ci() -> bool:
    """Whether nothing may be skipped."""
    return os.environ.get("CI") == "true"


def unmet(stage: Stage) -> str | None:
    """What the stage needs and this machine lacks, after an attempt to install it where that is allowed."""
    if stage.needs and not os.environ.get(stage.needs):
        return f"{stage.needs} is not set"
    packages = [package for program, package in stage.tools if shutil.which(program) is None]
    if packages and in_ci():
        install(packages)
    missing = [program for program, _ in stage.tools if shutil.which(program) is None]
    return f"{', '.join(missing)} not installed (Debian: {', '.join(packages)})" if missing else None


def install(packages: list[str]) -> None:
    """Install Debian packages; whether that worked shows in what is there afterwards."""
    if shutil.which("apt-get") is not None:
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages], check=False)


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
    lack = unmet(stage)
    state = execute(stage) if lack is None else f"{'failed' if in_ci() else 'skipped'}: {lack}"
    return Outcome(stage=stage, state=state, seconds=time.monotonic() - start)


def main() -> int:
    """Run all stages, print the summary, return the exit status."""
    outcomes = [run(SET_UP)]
    if not outcomes[0].red:
        outcomes += [run(stage) for stage in STAGES]
    print("\n=== stages")
    for outcome in outcomes:
        minutes = f"{outcome.seconds / 60:5.1f} of {outcome.stage.budget_minutes:g} min"
        print(f"{outcome.stage.target:<8} {minutes:<16} {outcome.state}")
    return int(any(outcome.red for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
