"""``vsquant quantize``: a model in, a checkpoint out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vsquant.cli.allocation import checked_request
from vsquant.cli.options import CalibrationSamples, Data, JsonFlag, MethodText, ScaleModeName
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
    scale_mode: ScaleModeName = "requantize",
    method: MethodText = None,
    calibrator: Annotated[str, typer.Option(help="Range of activations without vector scales: max, mse …")] = "max",
    weight_calibrator: Annotated[str, typer.Option(help="Range of weights without vector scales: max or mse.")] = "max",
    first_last: Annotated[str | None, typer.Option(help="First and last layer: same, 8bit or float.")] = None,
    permute: Annotated[
        bool, typer.Option("--permute", help="First reorder channels, where that is free, for more even vectors.")
    ] = False,
    allocate: Annotated[
        str | None,
        typer.Option(help="A budget such as '4.25 bits' or '3 MB': choose each layer's spec within it."),
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(help="With --allocate: specs to choose from, by commas; else SPEC with 2 to 8 weight bits."),
    ] = None,
    calibration_samples: CalibrationSamples = 128,
    vector_calibrator: Annotated[
        str, typer.Option(help="Range of activations with vector scales under a static coarse one: max or mse.")
    ] = "max",
    activation_candidates: Annotated[
        int, typer.Option(help="Vector scales tried for each vector of activations at run time: 1 or 3.")
    ] = 1,
    bias_correction: Annotated[bool, typer.Option("--bias-correction", help="Give outputs their float mean.")] = False,
    batchnorm_reestimation: Annotated[
        bool, typer.Option("--batchnorm-reestimation", help="And, behind folded batch norms, their float variance.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="A folder where methods gptq and reconstruct keep finished layers and blocks; the same command goes "
            "on from there."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Quantize a model after training and save it.

    With --allocate, SPEC is where the candidates start from, and the recipe is written beside the checkpoint.

    Example: `vsquant quantize - w4a8-s4/8 --task squad-minilm --data DIR -o minilm-w4a8.safetensors`
    """
    from vsquant.export import save
    from vsquant.optimize import settle
    from vsquant.report import layers_to_json, render_layers
    from vsquant.report.permutation import permuted_to_json, render_permuted
    from vsquant.report.sensitivity import allocation_to_json, render_allocation
    from vsquant.tasks.registry import create_task
    from vsquant.workflows.checked import (
        checked_calibrators,
        checked_first_last,
        checked_method,
        checked_recipe,
        checked_scale_mode,
    )
    from vsquant.workflows.ptq import quantize as quantize_model
    from vsquant.workflows.record import quantization_record
    from vsquant.workflows.solve import reads_data

    request = checked_request(allocate, candidates, spec, output)
    check_outputs(output, None if request is None else request.path)
    recipe = checked_recipe(spec)
    solver, mode = settle(checked_method(method), checked_scale_mode(scale_mode))
    if resume is not None and not reads_data(solver):
        raise typer.BadParameter(f"method {solver.name} keeps nothing; leave it out", param_hint="--resume")
    calibrators = checked_calibrators(calibrator, weight_calibrator, vector_calibrator, activation_candidates)
    ends = None if first_last is None else checked_first_last(first_last)
    built = create_task(task, data=data, model=None if model in ("-", task) else model)
    lost = "nothing was written" if resume is None else "finished layers are kept, and the same command goes on there"
    with progress_bars(lost) as progress:
        built.prepare(progress)
        network = built.load_model()
        allocation = (
            None
            if request is None
            else request.run(
                built, network, samples=calibration_samples, scale_mode=mode, first_last=ends, progress=progress
            )
        )
        recipe = recipe if allocation is None else allocation.recipe
        quantized = quantize_model(
            network,
            recipe,
            calibration=built.calibration_batches(calibration_samples),
            scale_mode=mode,
            method=solver,
            calibrators=calibrators,
            first_last=ends,
            batchnorm_pairs=built.batchnorm_pairs(network),
            bias_correction=bias_correction,
            batchnorm_reestimation=batchnorm_reestimation,
            resume=resume,
            permute=permute,
            progress=progress,
        )
    save(quantized, output, architecture=built.architecture())
    record = quantization_record(quantized)
    layers = record.layers
    if as_json:
        allocated = {} if allocation is None else {"allocation": allocation_to_json(allocation.record)}
        reordered = {"permuted": permuted_to_json(record.permuted)} if permute else {}
        print_json({"path": str(output), "layers": layers_to_json(layers)} | allocated | reordered)
        return
    console = Console()
    console.print(render_layers(layers) if allocation is None else render_allocation(allocation.record))
    if permute:
        console.print(render_permuted(record.permuted))
    if request is not None:
        console.print(f"wrote {request.path}", soft_wrap=True)
    console.print(f"wrote {output}", soft_wrap=True)
