"""``vsquant quantize``: a model in, a checkpoint out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vsquant.cli.options import CalibrationSamples, Data, JsonFlag
from vsquant.cli.output import check_outputs, print_json
from vsquant.cli.progress import progress_bars


def quantize(
    model: Annotated[
        str, typer.Argument(help="Local folder or hub id of the model; - or the task's name for the task's own.")
    ],
    spec: Annotated[str, typer.Argument(help="A spec such as w4a8-s4/8, or a recipe file (.yaml).")],
    task: Annotated[str, typer.Option("--task", help="Whose calibration data is used, such as squad-minilm.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint to write.")],
    data: Data = None,
    scale_mode: Annotated[str, typer.Option(help="requantize, or paper.")] = "requantize",
    calibrator: Annotated[str, typer.Option(help="Range of activations without vector scales: max, mse …")] = "max",
    weight_calibrator: Annotated[str, typer.Option(help="Range of weights without vector scales: max or mse.")] = "max",
    first_last: Annotated[str | None, typer.Option(help="First and last layer: same, 8bit or float.")] = None,
    calibration_samples: CalibrationSamples = 128,
    as_json: JsonFlag = False,
) -> None:
    """Quantize a model after training and save it.

    Example: `vsquant quantize - w4a8-s4/8 --task squad-minilm --data DIR -o minilm-w4a8.safetensors`
    """
    from vsquant.export import save
    from vsquant.report import layers_to_json, render_layers
    from vsquant.tasks.registry import create_task
    from vsquant.workflows.checked import checked_calibrators, checked_first_last, checked_recipe, checked_scale_mode
    from vsquant.workflows.ptq import quantize as quantize_model
    from vsquant.workflows.record import quantization_record

    check_outputs(output)
    recipe = checked_recipe(spec)
    mode = checked_scale_mode(scale_mode)
    calibrators = checked_calibrators(calibrator, weight_calibrator)
    ends = None if first_last is None else checked_first_last(first_last)
    built = create_task(task, data=data, model=None if model in ("-", task) else model)
    with progress_bars("nothing was written") as progress:
        built.prepare(progress)
        network = built.load_model()
        quantized = quantize_model(
            network,
            recipe,
            calibration=built.calibration_batches(calibration_samples),
            scale_mode=mode,
            calibrators=calibrators,
            first_last=ends,
            batchnorm_pairs=built.batchnorm_pairs(network),
            progress=progress,
        )
    save(quantized, output, architecture=built.architecture())
    layers = quantization_record(quantized).layers
    if as_json:
        print_json({"path": str(output), "layers": layers_to_json(layers)})
        return
    console = Console()
    console.print(render_layers(layers))
    console.print(f"wrote {output}", soft_wrap=True)
