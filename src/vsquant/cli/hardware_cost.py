"""``vsquant hw cost``: energy, area and time of a network on an accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vsquant.cli.options import Data, JsonFlag, Model
from vsquant.cli.output import check_picture, print_json
from vsquant.errors import AcceleratorError, VsquantError

if TYPE_CHECKING:
    from vsquant.workflows.accelerator import NetworkRequests

_CHECKPOINT = ".safetensors"


def cost(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC|CHECKPOINT", help="A spec such as w4a8-s4/6, or a checkpoint (.safetensors).")
    ],
    network: Annotated[
        str | None,
        typer.Option(help="Shapes by name: resnet20, resnet50, efficientnet-lite0, minilm, bert-base, bert-large."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Take the network of a task and its data instead.")] = None,
    data: Data = None,
    model: Model = None,
    config: Annotated[
        str, typer.Option(help="The accelerator: a YAML file, or edge, edge-elements or edge-wide.")
    ] = "edge",
    lanes: Annotated[
        Path | None, typer.Option(help="Costs of lanes, as vsquant hw synth writes them; else those that ship.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples at once.")] = 1,
    first_last: Annotated[str, typer.Option(help="First and last layer: same, 8bit or float.")] = "same",
    matmuls: Annotated[bool, typer.Option("--matmuls", help="Also the products of attention.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer.")] = False,
    as_json: JsonFlag = False,
    picture: Annotated[Path | None, typer.Option(help="Also draw the energy as stacked bars (.svg or .png).")] = None,
) -> None:
    """Price a network on an accelerator: energy, area and time, beside 8/8 per-channel.

    Example: `vsquant hw cost w4a8-s6/10 --network bert-base --config edge`
    """
    from vsquant.hardware.accelerator.configuration import load_accelerator
    from vsquant.hardware.accelerator.lane_prices import LanePrices
    from vsquant.report.accelerator import cost_to_json, render_cost
    from vsquant.workflows.accelerator import compare_cost

    check_picture(picture)
    accelerator, prices = load_accelerator(config), LanePrices.load(lanes)
    if task is None and (data is not None or model is not None):
        raise AcceleratorError("--task must say which task --data and --model are for; add --task TASK")
    if task is not None and network is not None:
        raise AcceleratorError("--network and --task must not both be given: each names a network")
    if spec.endswith(_CHECKPOINT):
        if matmuls or first_last != "same":
            raise AcceleratorError("--matmuls and --first-last must go with a spec: a checkpoint has its layers' own")
        requests = _of_checkpoint(Path(spec), network, task, data, model)
    else:
        requests = _of_spec(spec, network, task, data, model, first_last, matmuls=matmuls)
    found = compare_cost(accelerator, requests, prices, batch=batch)
    if picture is not None:
        _draw(found, picture)
    if as_json:
        print_json(cost_to_json(found))
    else:
        Console().print(render_cost(found, layers=layers))


def _of_spec(
    text: str,
    network: str | None,
    task: str | None,
    data: Path | None,
    model: str | None,
    first_last: str,
    *,
    matmuls: bool,
) -> NetworkRequests:
    from vsquant.hardware.accelerator.configuration import integer_formats
    from vsquant.spec import LayerSpec
    from vsquant.tasks.registry import create_task
    from vsquant.workflows.accelerator import named_network, spec_requests
    from vsquant.workflows.checked import checked_first_last

    spec, ends = LayerSpec.parse(text), checked_first_last(first_last)
    if task is not None:
        built = create_task(task, data=data, model=model)
        (batch, *_) = built.calibration_batches(1)
        return spec_requests(built.load_model(), batch, spec, network=task, first_last=ends, matmuls=matmuls)
    if network is None:
        raise AcceleratorError("--network or --task must name a network for a spec; add --network resnet50")
    bare, inputs = named_network(network, meta=integer_formats(spec)[1].signed)
    return spec_requests(bare, inputs, spec, network=network, first_last=ends, matmuls=matmuls)


def _of_checkpoint(
    path: Path, network: str | None, task: str | None, data: Path | None, model: str | None
) -> NetworkRequests:
    from vsquant.export.shapes import checkpoint_requests
    from vsquant.tasks.registry import create_task
    from vsquant.workflows.accelerator import named_network
    from vsquant.workflows.shapes import network_shapes

    if network is not None:
        return checkpoint_requests(path, network_shapes(*named_network(network)), network=network)
    if task is not None:
        built = create_task(task, data=data, model=model)
        (batch, *_) = built.calibration_batches(1)
        return checkpoint_requests(path, network_shapes(built.load_model(), batch), network=task)
    return checkpoint_requests(path)


def _draw(found: object, picture: Path) -> None:
    from vsquant.report.accelerator_picture import write_cost_picture
    from vsquant.results.accelerator import CostComparison

    assert isinstance(found, CostComparison)
    try:
        write_cost_picture([found], picture)
    except OSError as error:
        raise VsquantError(f"the picture {picture} could not be written: {error.strerror or error}") from error
    Console(stderr=True).print(f"wrote {picture}", soft_wrap=True)
