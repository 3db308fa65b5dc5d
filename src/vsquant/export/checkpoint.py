"""Checkpoints: one safetensors file with tensors and a JSON header; nothing in it can execute."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import vsquant
from vsquant.errors import CheckpointError, DataError, RecipeError, ShapeError
from vsquant.export.header import FORMAT_VERSION, METADATA_KEY, Header, LayerHeader, report_headers
from vsquant.export.validation import check_layer_tensors, layer_tensors
from vsquant.files import replacing
from vsquant.nn import QuantizedWeight
from vsquant.tasks import architectures
from vsquant.transform.fold import fold_batchnorm
from vsquant.transform.match import Layer, find_layers
from vsquant.transform.replace import make_layer, set_module
from vsquant.workflows.record import attach_record, quantization_record, quantized_layers

PICKLE_STARTS: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def save(model: nn.Module, path: str | Path, *, architecture: Mapping[str, str] | None = None) -> None:
    """Write a quantized model to ``path``, whole or not at all.

    ``architecture`` (as of `Task.architecture`) lets `load` build the model by itself; models of the transformers
    package describe themselves.

    Raises:
        VsquantError: the model is not one that vsquant quantized.
        CheckpointError: the file cannot be written; nothing half-written remains.
    """
    record = quantization_record(model)
    tensors, tied = _unique_tensors(model.state_dict())
    header = Header(
        format_version=FORMAT_VERSION,
        vsquant_version=vsquant.__version__,
        architecture=dict(architecture) if architecture is not None else architectures.describe(model),
        layers=tuple(_layer_headers(model)),
        folded=record.folded,
        tied=tied,
        report=report_headers(record),
        scale_mode=record.scale_mode,
        activation_calibrator=record.activation_calibrator,
        weight_calibrator=record.weight_calibrator,
        calibration_samples=record.calibration_samples,
    )
    target = Path(path)
    try:
        with replacing(target) as temporary:
            save_file(tensors, temporary, metadata={METADATA_KEY: header.model_dump_json()})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint {target} could not be written, and nothing of it remains: {error}"
        ) from error


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Read a quantized model; its outputs are those of the saved one, bit for bit.

    ``model`` is the float model that was quantized (its weights do not matter; it is left as it was). Without it, only
    architectures that the header names and vsquant knows are built.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, a pickle, or does not fit the model; the message names
            the tensor where one is at fault.
    """
    source = Path(path)
    header = read_header(source)
    base = copy.deepcopy(model) if model is not None else _build(header, source)
    base.eval()
    try:
        with safe_open(source, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{source} must be a whole safetensors file: {error}") from error
    try:
        fold_batchnorm(base, pairs=header.folded)
    except (RecipeError, ShapeError) as error:
        raise CheckpointError(f"{source} does not fit the model: {error}") from error
    _place_layers(base, header, tensors, source)
    _load_state(base, tensors, header, source)
    attach_record(base, header.record)
    return base


def read_header(path: Path) -> Header:
    """The header of a checkpoint, without its tensors.

    Raises:
        CheckpointError: the file is missing, truncated, foreign or a pickle.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path} must be a readable file: {error.strerror or error}") from error
    if start.startswith(PICKLE_STARTS):
        raise CheckpointError(
            f"{path} must be a vsquant checkpoint (safetensors), but it looks like a pickle (torch.save), which could "
            "run code and is never read; save it with vsquant.save"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} must be a whole vsquant checkpoint (safetensors): {error}") from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"{path} must be a checkpoint written by vsquant.save, but it has no vsquant header")
    return Header.parse(metadata[METADATA_KEY], str(path))


def _unique_tensors(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors to store, and for each that is another one (tied weights, shared layers) the name of that."""
    unique: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[int, int, torch.Size, tuple[int, ...], torch.dtype], str] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.numel(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            tied[name] = seen[key]
        else:
            seen[key] = name
            unique[name] = tensor.detach().cpu().contiguous()
    return unique, tied


def _layer_headers(model: nn.Module) -> list[LayerHeader]:
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return [
        LayerHeader(name=name, aliases=tuple(names[id(layer)][1:]), spec=layer.spec, scale_mode=layer.scale_mode)
        for name, layer in quantized_layers(model)
    ]


def _build(header: Header, path: Path) -> nn.Module:
    if header.architecture is None:
        raise CheckpointError(
            f"{path} does not name an architecture that vsquant knows; give the float model: "
            "vsquant.load(path, model=float_model)"
        )
    try:
        return architectures.build(header.architecture)
    except DataError as error:
        raise CheckpointError(
            f"{path} names an architecture that vsquant cannot build: {error}; give the float model: "
            "vsquant.load(path, model=float_model)"
        ) from error


def _place_layers(model: nn.Module, header: Header, tensors: Mapping[str, Tensor], path: Path) -> None:
    layers: dict[str, Layer] = {layer.name: layer for layer in find_layers(model)}
    for entry in header.layers:
        layer = layers.get(entry.name)
        if layer is None:
            raise CheckpointError(f"{path} has a quantized layer {entry.name!r}, but the model has no such layer")
        parts = layer_tensors(entry, tensors)
        check_layer_tensors(entry, parts, layer.module, path)
        quantized = make_layer(
            layer.module,
            entry.name,
            entry.spec,
            scale_mode=entry.scale_mode,
            weight=QuantizedWeight(
                codes=parts.codes,
                vector_scale=parts.vector_scale,
                coarse_scale=parts.coarse_scale,
                values=parts.values,
            ),
            activation_range=parts.activation_range,
        )
        quantized.train(layer.module.training)
        for name in (entry.name, *entry.aliases):
            set_module(model, name, quantized)


def _load_state(model: nn.Module, tensors: Mapping[str, Tensor], header: Header, path: Path) -> None:
    state = dict(tensors)
    for name, stored in header.tied.items():
        if stored not in tensors:
            raise CheckpointError(f"{path}: tensor {name!r} is tied to {stored!r}, which is not in the file")
        state[name] = tensors[stored]
    expected = model.state_dict()
    missing, foreign = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or foreign:
        what = f"lacks the tensor {missing[0]!r}" if missing else f"has a tensor {foreign[0]!r} that the model has not"
        raise CheckpointError(f"{path} does not fit the model: it {what}")
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path} does not fit the model: {name!r} must be {tuple(expected[name].shape)}, "
                f"not {tuple(tensor.shape)}"
            )
    model.load_state_dict(state, strict=True, assign=True)
