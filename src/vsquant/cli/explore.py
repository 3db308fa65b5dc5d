"""``vsquant explore``: accuracy of many formats against energy, area, time and bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vsquant.cli.options import CalibrationSamples, Data, JsonFlag, Limit, Model
from vsquant.cli.output import print_json
from vsquant.cli.progress import progress_bars
from vsquant.errors import SpecError

if TYPE_CHECKING:
    from vsquant.explore.plan import Plan
    from vsquant.explore.sweep import Sweep

_KEPT = "finished points are kept, and the same command continues there"


def explore(
    tasks: Annotated[list[str], typer.Argument(metavar="TASK…", help="digits, squad-minilm, cifar10 …; several too.")],
    space: Annotated[str, typer.Option(help="The space: a YAML file, or poster, small or deploy.")] = "small",
    data: Data = None,
    model: Model = None,
    limit: Limit = None,
    calibration_samples: CalibrationSamples = 128,
    accelerator: Annotated[
        str | None,
        typer.Option(help="In place of the space's: a name, a YAML file, or none."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes that evaluate; by default as many as cores and memory allow. 1: this one."),
    ] = None,
    latency: Annotated[bool, typer.Option(help="Time one sample, where a single worker is not disturbed.")] = True,
    objective: Annotated[
        str, typer.Option(help="What accuracy is set against: bytes, energy, area, performance_per_area or latency.")
    ] = "bytes",
    store: Annotated[Path | None, typer.Option(help="The results store; a point in it is not evaluated again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be evaluated, and end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Evaluate a network in every format of a space, and set accuracy beside bytes, time, energy and area.

    Stopping it loses nothing: the same command continues with the missing points.

    Example: `vsquant explore digits --space small --limit 200`
    """
    from vsquant.explore.evaluate import evaluate_job
    from vsquant.explore.executors.base import Settings
    from vsquant.explore.executors.local import local_executor, suitable_workers
    from vsquant.explore.plan import plan_sweep
    from vsquant.explore.space import load_space
    from vsquant.explore.sweep import POINTS, run_sweep
    from vsquant.results import ResultsStore
    from vsquant.results.front import COSTS
    from vsquant.spec.hints import did_you_mean

    chosen = load_space(space)
    if objective not in COSTS:
        raise SpecError(
            f"objective must be one of {', '.join(COSTS)}, not {objective!r}{did_you_mean(objective, COSTS)}"
        )
    if accelerator is not None:
        chosen = chosen.model_copy(update={"accelerators": ("" if accelerator == "none" else accelerator,)})
    count = suitable_workers() if workers is None else workers
    settings = Settings(
        data=data, model=model, limit=limit, calibration_samples=calibration_samples, latency=latency and count == 1
    )
    with ResultsStore(store) as results, progress_bars(_KEPT, whole=(POINTS,)) as progress:
        plan = plan_sweep(tasks, chosen, results, settings, progress=progress)
        _print_plan(plan, count, as_json=as_json and dry_run)
        if dry_run:
            return
        with local_executor(evaluate_job, settings, workers=count) as executor:
            sweep = run_sweep(plan, executor, results, progress=progress)
    _print(sweep, objective, as_json=as_json)
    if sweep.failed and not sweep.records:
        raise typer.Exit(1)


def _print_plan(plan: Plan, workers: int, *, as_json: bool) -> None:
    from vsquant.report.explore_text import plan_to_json, render_plan

    shown = plan.summary
    if as_json:
        print_json(plan_to_json(shown))
    else:
        Console(stderr=True).print(render_plan(shown, workers=workers))


def _print(sweep: Sweep, objective: str, *, as_json: bool) -> None:
    from vsquant.report.explore_text import points_to_json, render_points

    if as_json:
        print_json(points_to_json(sweep.records, sweep.failed, objective))
    else:
        console = Console()
        console.print(render_points(sweep.records, sweep.failed, objective))
