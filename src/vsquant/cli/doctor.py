"""``vsquant doctor``: what vsquant runs on, and what quantizing a model would run into, before any long work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vsquant.cli.options import CalibrationSamples, Data, JsonFlag, Model
from vsquant.cli.output import check_picture, print_json
from vsquant.cli.progress import progress_bars


def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="A task, or a folder or hub id with a config.json.")
    ] = None,
    spec: Annotated[str | None, typer.Argument(help="A spec such as w4a8-s4/8, or a recipe file (.yaml).")] = None,
    data: Data = None,
    model: Model = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Which layer hurts: measure what each alone costs in SPEC.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="With --sensitivity: also draw it, as .svg or .png.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Why integers are not faster: time every layer on them and in float.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, help="With --profile: samples that the model is given.")] = 1,
    calibration_samples: CalibrationSamples = 128,
    as_json: JsonFlag = False,
) -> None:
    """Find what would go wrong, what padding costs, what falls back, and estimate memory and time.

    Nothing is trained or evaluated. The exit status is 1 if the model cannot be quantized as asked. Without a model,
    say which kernels run here and why. With --sensitivity, measure a task's network on calibration data instead: each
    layer alone in SPEC, ranked by what it costs. With --profile, quantize the network, run it on integers and time each
    layer beside the float one.

    Example: `vsquant doctor squad-minilm w4a8-s4/8 --data DIR`
    """
    if picture is not None and not sensitivity:
        raise typer.BadParameter("a picture is drawn with --sensitivity", param_hint="--picture")
    if profile and sensitivity:
        raise typer.BadParameter("one of --profile and --sensitivity at a time", param_hint="--profile")
    if name is None:
        _surroundings(as_json)
    elif name == "-":
        raise typer.BadParameter(
            "a task's own network goes by the task's name, such as squad-minilm", param_hint="MODEL"
        )
    elif spec is None:
        raise typer.BadParameter("a MODEL needs a SPEC, such as w4a8-s4/8", param_hint="SPEC")
    elif sensitivity:
        _sensitivity(name, spec, data, model, calibration_samples, picture, as_json)
    elif profile:
        _profile(name, spec, data, model, calibration_samples, batch, as_json)
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


def _sensitivity(
    name: str,
    spec: str,
    data: Path | None,
    model: str | None,
    samples: int,
    picture: Path | None,
    as_json: bool,
) -> None:
    from vsquant.report.sensitivity import render_sensitivity, sensitivity_to_json
    from vsquant.report.sensitivity_picture import write_sensitivity_picture
    from vsquant.spec import LayerSpec
    from vsquant.tasks.registry import create_task
    from vsquant.workflows.sensitivity import sensitivity

    check_picture(picture)
    candidate = LayerSpec.parse(spec)
    task = create_task(name, data=data, model=model)
    with progress_bars("nothing was kept") as progress:
        task.prepare(progress)
        network = task.load_model()
        found = sensitivity(
            network,
            [candidate],
            calibration=task.calibration_batches(samples),
            logits=task.logits,
            batchnorm_pairs=task.batchnorm_pairs(network),
            name=name,
            progress=progress,
        )
    if picture is not None:
        write_sensitivity_picture(found, str(candidate), picture)
    if as_json:
        print_json(sensitivity_to_json(found))
        return
    console = Console()
    console.print(render_sensitivity(found, str(candidate)))
    if picture is not None:
        console.print(f"wrote {picture}", soft_wrap=True)


def _profile(
    name: str, spec: str, data: Path | None, model: str | None, samples: int, batch: int, as_json: bool
) -> None:
    from vsquant.report.profile import profile_to_json, render_profile
    from vsquant.tasks.registry import create_task
    from vsquant.workflows.checked import checked_recipe
    from vsquant.workflows.profile import profile_task

    recipe = checked_recipe(spec)
    with progress_bars("nothing was kept") as progress:
        task = create_task(name, data=data, model=model)
        found = profile_task(task, recipe, calibration_samples=samples, batch=batch, progress=progress)
    if as_json:
        print_json(profile_to_json(found))
    else:
        Console().print(render_profile(found))


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
