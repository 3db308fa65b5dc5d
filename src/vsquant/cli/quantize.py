"""``vsquant quantize``: a model in, a checkpoint out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vsquant.cli.allocation import checked_request
from vsquant.cli.options import (
    ActivationCandidates,
    BatchNormReestimation,
    BiasCorrection,
    CalibrationSamples,
    Data,
    JsonFlag,
    MethodText,
    ScaleModeName,
    VectorCalibrator,
)
from vsquant.cli.output import check_outputs, print_json
from vsquant.cli.progress import progress_bars

if TYPE_CHECKING:
    from vsquant.optimize import Method
    from vsquant.workflows.kept import Kept
    from vsquant.workflows.task_quantization import QuantizationRequest, QuantizedTask


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
        str | None, typer.Option(help="A budget such as '4.25 bits' or '3 MB': choose each layer's spec within it.")
    ] = None,
    candidates: Annotated[
        str | None,
        typer.Option(help="With --allocate: specs to choose from, by commas; else SPEC with 2 to 8 weight bits."),
    ] = None,
    calibration_samples: CalibrationSamples = 128,
    vector_calibrator: VectorCalibrator = "max",
    activation_candidates: ActivationCandidates = 1,
    bias_correction: BiasCorrection = False,
    batchnorm_reestimation: BatchNormReestimation = False,
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

    The weights of a task's own model (MODEL is -) lie in or beside the task's data, or come from the hub.

    With --allocate, SPEC is where the candidates start from, and the recipe is written beside the checkpoint.

    Example: `vsquant quantize - w4a8-s4/8 --task squad-minilm --data DIR -o minilm-w4a8.safetensors`
    """
    from vsquant.export import save
    from vsquant.optimize import settle
    from vsquant.tasks.registry import create_task
    from vsquant.workflows import checked
    from vsquant.workflows.task_quantization import QuantizationRequest, quantize_task

    allocation = checked_request(allocate, candidates, spec, output)
    check_outputs(output, None if allocation is None else allocation.path)
    recipe = checked.checked_recipe(spec)
    solver, mode = settle(checked.checked_method(method), checked.checked_scale_mode(scale_mode))
    kept = _checked_resume(resume, solver)
    request = QuantizationRequest(
        recipe=recipe,
        scale_mode=mode,
        method=solver,
        calibrators=checked.checked_calibrators(
            calibrator, weight_calibrator, vector_calibrator, activation_candidates
        ),
        first_last=None if first_last is None else checked.checked_first_last(first_last),
        permute=permute,
        bias_correction=bias_correction,
        batchnorm_reestimation=batchnorm_reestimation,
        resume=kept,
        calibration_samples=calibration_samples,
        allocation=allocation,
    )
    built = create_task(task, data=data, model=None if model in ("-", task) else model)
    with progress_bars(lambda: _stopped(kept)) as progress:
        quantized = quantize_task(built, request, progress=progress)
        save(quantized.model, output, architecture=quantized.architecture)
    if as_json:
        print_json({"path": str(output)} | _plain(quantized, request))
    else:
        _print(quantized, request, output)


def _checked_resume(resume: Path | None, method: Method) -> Kept | None:
    from vsquant.workflows.kept import Kept
    from vsquant.workflows.solve import reads_data

    kept = Kept.of(resume)
    if kept is not None and not reads_data(method):
        raise typer.BadParameter(f"method {method.name} keeps nothing; leave it out", param_hint="--resume")
    return kept


def _stopped(kept: Kept | None) -> str:
    """What an interrupt leaves, and how to go on."""
    if kept is None:
        return "nothing was written"
    if kept.added:
        return f"layers and blocks finished and kept in {kept.folder}: {kept.added}; the same command goes on there"
    if any(kept.folder.glob("*/*.safetensors")):
        return f"no further layer was finished; what {kept.folder} holds is still there for the same command"
    return "no layer was finished yet, so none is kept"


def _plain(quantized: QuantizedTask, request: QuantizationRequest) -> dict[str, object]:
    """What was done, as plain values."""
    from vsquant.report import layers_to_json
    from vsquant.report.permutation import permuted_to_json
    from vsquant.report.sensitivity import allocation_to_json
    from vsquant.workflows.record import quantization_record

    record, allocation = quantization_record(quantized.model), quantized.allocation
    plain: dict[str, object] = {"layers": layers_to_json(record.layers)}
    if allocation is not None:
        plain["allocation"] = allocation_to_json(allocation.record)
    if request.permute:
        plain["permuted"] = permuted_to_json(record.permuted)
    if request.resume is not None:
        plain["resume"] = {"taken": request.resume.taken, "added": request.resume.added}
    return plain


def _print(quantized: QuantizedTask, request: QuantizationRequest, output: Path) -> None:
    from vsquant.report import render_layers
    from vsquant.report.permutation import render_permuted
    from vsquant.report.sensitivity import render_allocation
    from vsquant.workflows.record import quantization_record

    console = Console()
    record, allocation = quantization_record(quantized.model), quantized.allocation
    console.print(render_layers(record.layers) if allocation is None else render_allocation(allocation.record))
    if request.permute:
        console.print(render_permuted(record.permuted))
    if request.resume is not None:
        taken, added, folder = request.resume.taken, request.resume.added, request.resume.folder
        console.print(
            f"layers and blocks taken from {folder}: {taken}; finished and kept there: {added}", soft_wrap=True
        )
    if request.allocation is not None:
        console.print(f"wrote {request.allocation.path}", soft_wrap=True)
    console.print(f"wrote {output}", soft_wrap=True)
