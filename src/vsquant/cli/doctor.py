"""``vsquant doctor``: what vsquant runs on, and what quantizing a model would run into, before any long work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vsquant.cli.options import Data, JsonFlag, Model
from vsquant.cli.output import print_json


def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A task, or a folder or hub id with a config.json.")
    ] = None,
    spec: Annotated[str | None, typer.Argument(help="A spec such as w4a8-s4/8, or a recipe file (.yaml).")] = None,
    data: Data = None,
    model: Model = None,
    as_json: JsonFlag = False,
) -> None:
    """Find what would go wrong, what padding costs, what falls back, and estimate memory and time.

    Nothing is trained or evaluated. The exit status is 1 if the model cannot be quantized as asked. Without a model,
    say which kernels run here and why.

    Example: `vsquant doctor squad-minilm w4a8-s4/8 --data DIR`
    """
    if name is None:
        _surroundings(as_json)
    elif spec is None:
        raise typer.BadParameter("a MODEL needs a SPEC, such as w4a8-s4/8", param_hint="SPEC")
    else:
        _diagnosis(name, spec, data, model, as_json)


def _surroundings(as_json: bool) -> None:
    from vsquant.report.surroundings import render_surroundings, surroundings_to_json
    from vsquant.workflows.surroundings import surroundings

    here = surroundings()
    if as_json:
        print_json(surroundings_to_json(here))
    else:
        Console().print(render_surroundings(here))


def _diagnosis(name: str, spec: str, data: Path | None, model: str | None, as_json: bool) -> None:
    from vsquant.report.inspection import diagnosis_to_json, render_diagnosis
    from vsquant.tasks.registry import TASKS, create_task
    from vsquant.workflows.checked import checked_recipe
    from vsquant.workflows.doctor import architecture_of, diagnose_architecture, diagnose_task

    recipe = checked_recipe(spec)
    if name in TASKS:
        diagnosis = diagnose_task(create_task(name, data=data, model=model), recipe, spec)
    else:
        diagnosis = diagnose_architecture(name, architecture_of(name), recipe, spec)
    if as_json:
        print_json(diagnosis_to_json(diagnosis))
    else:
        Console().print(render_diagnosis(diagnosis))
    if not diagnosis.passed:
        raise typer.Exit(1)
