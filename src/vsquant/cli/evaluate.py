"""``vsquant evaluate``: a checkpoint's score beside the float network's."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vsquant.cli.options import Data, JsonFlag, Limit, Model
from vsquant.cli.progress import progress_bars


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint written by vsquant.")],
    task: Annotated[str, typer.Option("--task", help="What it is measured on, such as squad-minilm.")],
    data: Data = None,
    model: Model = None,
    limit: Limit = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a checkpoint on a task, beside the task's float network on the same samples.

    Example: `vsquant evaluate minilm-w4a8.safetensors --task squad-minilm --data DIR --limit 500`
    """
    from vsquant.export import load, read_header
    from vsquant.report import comparison_text, comparison_to_json
    from vsquant.tasks.registry import create_task

    header = read_header(checkpoint)
    built = create_task(task, data=data, model=model)
    quantized = load(checkpoint, None if header.architecture is not None else built.load_model())
    with progress_bars() as progress:
        scores = built.evaluate(quantized, limit=limit, progress=progress)
        baseline = built.evaluate(built.load_model(), limit=limit, progress=progress)
    if as_json:
        json.dump(comparison_to_json(scores, baseline), sys.stdout, indent=1)
        sys.stdout.write("\n")
        return
    console = Console()
    console.print(comparison_text(scores, baseline), soft_wrap=True)
    for text in (built.caveat, built.source):
        if text:
            console.print(text, soft_wrap=True, style="dim")
