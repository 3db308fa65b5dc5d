"""``vsquant inspect``: what a checkpoint holds, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vsquant.cli.options import Data, JsonFlag, Model
from vsquant.cli.output import print_json
from vsquant.errors import DataError


def inspect(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint written by vsquant.")],
    task: Annotated[
        str | None,
        typer.Option("--task", help="Whose float model was quantized: adds the SQNR of each layer."),
    ] = None,
    data: Data = None,
    model: Model = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a checkpoint's layers: specs, bytes, bits per weight, use of the scale codes, SQNR.

    Example: `vsquant inspect minilm-w4a8.safetensors --task squad-minilm --data DIR`
    """
    from vsquant.export.inspection import inspect as inspect_checkpoint
    from vsquant.report.inspection import inspection_to_json, render_inspection
    from vsquant.tasks.registry import create_task

    if task is None and (data is not None or model is not None):
        raise DataError("--task must say which task's float model --data and --model are for; add --task TASK")
    float_model = None if task is None else create_task(task, data=data, model=model).load_model()
    inspection = inspect_checkpoint(checkpoint, float_model)
    if as_json:
        print_json(inspection_to_json(inspection))
        return
    console = Console()
    console.print(render_inspection(inspection))
    if float_model is None:
        console.print("SQNR needs the float weights: --task names a built-in task that has them", style="dim")
