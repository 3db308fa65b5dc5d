"""``vsquant hw rtl``: the RTL of a processing element, with a test bench and golden words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vsquant.cli.options import Data, Model
from vsquant.errors import SpecError

if TYPE_CHECKING:
    from vsquant.hardware.recorded import RecordedLayer


def rtl(
    design: Annotated[str, typer.Argument(metavar="SPEC|CHECKPOINT", help="A layer spec, or a checkpoint of vsquant.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write; it must not exist.")],
    following: Annotated[
        str | None, typer.Option("--next", help="Spec of the layer that takes the codes; SPEC itself if left out.")
    ] = None,
    sums: Annotated[bool, typer.Option("--sums", help="No post-processing unit: sums leave as they are.")] = False,
    lanes: Annotated[
        int | None, typer.Option("--lanes", min=1, help="Lanes, a power of two; 16 if that fits the output's vectors.")
    ] = None,
    positions: Annotated[
        int, typer.Option("--positions", min=1, help="Accumulators of each lane, a power of two.")
    ] = 16,
    layer: Annotated[
        str | None,
        typer.Option("--layer", help="Layer of the checkpoint; of those that fit, the one with most MACs if left out."),
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", help="Task of the checkpoint: its first calibration sample is run.")
    ] = None,
    data: Data = None,
    model: Model = None,
    check: Annotated[bool, typer.Option("--check", help="Run the test bench then (needs iverilog).")] = False,
) -> None:
    """Write Verilog, a test bench that checks itself, golden words of a layer, a file list and a README.

    Example: `vsquant hw rtl w4a4u-s4/6 -o element --check`

    Example: `vsquant hw rtl digits-w4a4.safetensors --task digits -o element`
    """
    from vsquant.export import read_header
    from vsquant.hardware.rtl.designs import Sizes, design_for_layer, design_for_spec
    from vsquant.hardware.rtl.generate import check_design, check_folder, write_design
    from vsquant.spec import LayerSpec

    check_folder(out)
    sizes = Sizes(lanes=lanes, positions=positions)
    if design.endswith(".safetensors") or Path(design).is_file():
        if following is not None:
            raise SpecError("--next must be left out for a checkpoint: its network says what follows a layer")
        read_header(Path(design))
        if task is None:
            raise SpecError(f"--task must say what {design} is run on: its layers' activations are recorded there")
        recorded = _recorded(Path(design), layer, task, data, model, sums)
        made = design_for_layer(recorded, post_process=not sums, source=Path(design).name, sizes=sizes)
    else:
        if layer is not None or task is not None:
            raise SpecError(f"--layer and --task must go with a checkpoint; {design!r} is none")
        spec = LayerSpec.parse(design)
        takes = LayerSpec.parse(following) if following is not None else spec
        made = design_for_spec(spec, None if sums else takes, sizes)
    write_design(made, out)
    console = Console()
    console.print(f"{out}/README.md says how to simulate it. Golden words: {made.golden.origin}", soft_wrap=True)
    if check:
        console.print(check_design(out), soft_wrap=True)


def _recorded(
    checkpoint: Path, layer: str | None, task: str, data: Path | None, model: str | None, sums: bool
) -> RecordedLayer:
    """The layer's operands on the first calibration sample of the task."""
    from vsquant.cli.evaluate import check_same_network
    from vsquant.export import load, read_header
    from vsquant.hardware.rtl.designs import takes_codes_only
    from vsquant.tasks.registry import create_task
    from vsquant.workflows.hardware import record_layer, record_layers

    header = read_header(checkpoint)
    built = create_task(task, data=data, model=model)
    if header.architecture is not None:
        check_same_network(header.architecture, built.architecture(), task)
    network = load(checkpoint, None if header.architecture is not None else built.load_model())
    batch = built.calibration_batches(1)[0]
    if layer is not None:
        return record_layer(network, layer, batch)
    fitting = [
        found
        for found in record_layers(network, batch)
        if (sums or takes_codes_only(found)) and found.workload.reduction >= (found.spec.vector_size or 16)
    ]
    if not fitting:
        raise SpecError(
            f"{checkpoint} must have a layer that an element fits: integer operands, at least a vector of input "
            "channels, and codes as its output; add --sums for a layer that gives floats, or name one with --layer"
        )
    return max(fitting, key=lambda found: found.workload.macs)
