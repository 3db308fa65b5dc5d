"""``vsquant evaluate``: a checkpoint's score beside the float network's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vsquant.cli.options import Data, JsonFlag, Limit, Model
from vsquant.cli.output import print_json
from vsquant.cli.progress import progress_bars
from vsquant.errors import CheckpointError


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint written by vsquant.")],
    task: Annotated[str, typer.Option("--task", help="What it is measured on, such as squad-minilm.")],
    data: Data = None,
    model: Model = None,
    limit: Limit = None,
    integer: Annotated[
        bool, typer.Option("--integer", help="Run on integers too; count the codes that flip, and the difference.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure a checkpoint on a task, beside the task's float network on the same samples.

    Example: `vsquant evaluate minilm-w4a8.safetensors --task squad-minilm --data DIR --limit 500`
    """
    from vsquant.export import load, read_header
    from vsquant.report import comparison_text, comparison_to_json, integers_text, integers_to_json
    from vsquant.tasks.registry import create_task
    from vsquant.workflows.integer import compare_with_integer

    header = read_header(checkpoint)
    built = create_task(task, data=data, model=model)
    if header.architecture is not None:
        check_same_network(header.architecture, built.architecture(), task)
    quantized = load(checkpoint, None if header.architecture is not None else built.load_model())
    with progress_bars("nothing was kept") as progress:
        on_integers = compare_with_integer(built, quantized, limit=limit, progress=progress) if integer else None
        scores = on_integers.simulated if on_integers else built.evaluate(quantized, limit=limit, progress=progress)
        baseline = built.evaluate(built.load_model(), limit=limit, progress=progress)
    if as_json:
        integers = {"integer": integers_to_json(on_integers)} if on_integers else {}
        print_json(comparison_to_json(scores, baseline) | integers)
        return
    console = Console()
    console.print(comparison_text(scores, baseline), soft_wrap=True)
    if on_integers:
        console.print(integers_text(on_integers), soft_wrap=True)
    for text in (built.caveat, built.source):
        if text:
            console.print(text, soft_wrap=True, style="dim")


def check_same_network(saved: Mapping[str, str], tasks: Mapping[str, str], task: str) -> None:
    """Refuse a checkpoint that is of another kind of network than the task's.

    Raises:
        CheckpointError: it is; the message names both.
    """
    for key in ("family", "class"):
        if saved.get(key) != tasks.get(key):
            raise CheckpointError(
                f"the checkpoint must hold a network of task {task!r}, {tasks.get(key)}, not {saved.get(key)}; "
                "give the task that it was quantized for, or its model with --model"
            )
