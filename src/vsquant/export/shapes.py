"""The layers of a checkpoint as an accelerator sees them, from its header alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vsquant.errors import CheckpointError
from vsquant.export.header import Header
from vsquant.export.storage import read_header
from vsquant.results.workloads import LayerWorkload
from vsquant.spec.layer import LayerSpec
from vsquant.workflows.accelerator import NetworkRequests, main_spec, matmul_specs, requests_of


def checkpoint_requests(
    path: Path, shapes: Sequence[LayerWorkload] | None = None, *, network: str | None = None
) -> NetworkRequests:
    """The layers of a checkpoint with the specs in force; ``shapes`` stand in for those it was saved with.

    Raises:
        CheckpointError: it is no checkpoint, it has no shapes and none are given, or they are not those of its layers.
        AcceleratorError: none of its layers is quantized to integers.
    """
    header = read_header(path)
    found = tuple(each.layer_workload for each in header.workloads) if shapes is None else tuple(shapes)
    if not found:
        raise CheckpointError(
            f"{path} must have the shapes of its layers, but was saved without (no calibration data, or an older "
            "version); name the network whose layers it has with --task or --network"
        )
    _check_match(header, found, path)
    specs: dict[str, LayerSpec | None] = {
        name: layer.spec for layer in header.layers for name in (layer.name, *layer.aliases)
    }
    for matmul in header.matmuls:
        specs |= matmul_specs(matmul.name, matmul.spec)
    requests = requests_of(found, specs, header.layers[0].spec if header.layers else header.matmuls[0].spec)
    spec = main_spec(requests)
    return NetworkRequests(network=network or path.stem, spec=spec, requests=requests_of(found, specs, spec))


def _check_match(header: Header, shapes: Sequence[LayerWorkload], path: Path) -> None:
    by_name = {shape.name: shape.workload for shape in shapes}
    for layer in header.layers:
        workload = next((by_name[name] for name in (layer.name, *layer.aliases) if name in by_name), None)
        if workload is None:
            raise CheckpointError(
                f"{path} has a quantized layer {layer.name!r} that the network never calls, or has not; "
                "name the network that was quantized"
            )
        shape = (workload.outputs, workload.reduction)
        if layer.weight_shape is not None and tuple(layer.weight_shape[:2]) != shape:
            raise CheckpointError(
                f"{path} does not match the network: the weight of {layer.name!r} is {tuple(layer.weight_shape)}, "
                f"which begins {tuple(layer.weight_shape[:2])}, not {shape}; name the network that was quantized"
            )
