"""Checkpoints: one safetensors file with tensors and a JSON header; nothing in it can execute."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

import vsquant
from vsquant.errors import CalibrationError, CheckpointError, RecipeError, ShapeError, SpecError
from vsquant.export.building import build
from vsquant.export.header import (
    FORMAT_VERSION,
    FloatName,
    Header,
    LayerHeader,
    MatmulHeader,
    report_headers,
    workload_headers,
)
from vsquant.export.state import canonical_state, is_integer
from vsquant.export.storage import read_header, read_tensors, write
from vsquant.export.validation import check_layer_fits, check_layer_tensors, check_ranges, layer_tensors
from vsquant.tasks import architectures
from vsquant.transform.attention import AttentionEntry, attention_entries, place_matmuls, ranges_in_state
from vsquant.transform.float_layers import float_weight
from vsquant.transform.fold import fold_batchnorm
from vsquant.transform.integer import is_chained, to_integer
from vsquant.transform.match import find_layers
from vsquant.transform.replace import make_layer, set_module
from vsquant.workflows.record import attach_record, quantization_record, quantized_layers


def save(model: nn.Module, path: str | Path, *, architecture: Mapping[str, str] | None = None) -> None:
    """Write a quantized model, simulated or integer, to ``path``, whole or not at all.

    ``architecture`` (as of `Task.architecture`) lets `load` build the model by itself; models of the transformers
    package describe themselves.

    Raises:
        VsquantError: the model is not one that vsquant quantized.
        CheckpointError: the file cannot be written (nothing half-written remains), or the model's state holds more
            than tensors.
    """
    record = quantization_record(model)
    tensors, tied = _unique_tensors(canonical_state(model))
    header = Header(
        format_version=FORMAT_VERSION,
        vsquant_version=vsquant.__version__,
        form="integer" if is_integer(model) else "simulated",
        chained=is_chained(model),
        architecture=dict(architecture) if architecture is not None else architectures.describe(model),
        layers=_layer_headers(model),
        matmuls=tuple(
            MatmulHeader(name=entry.name, spec=entry.spec, scale_mode=entry.scale_mode)
            for entry in attention_entries(model)
        ),
        folded=record.folded,
        unfolded=record.unfolded,
        tied=tied,
        checksums={},
        report=report_headers(record),
        scale_mode=record.scale_mode,
        activation_calibrator=record.activation_calibrator,
        weight_calibrator=record.weight_calibrator,
        calibration_samples=record.calibration_samples,
        method=record.method,
        permuted=record.permuted,
        workloads=workload_headers(record),
    )
    write(Path(path), header, tensors)


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Read a quantized model; its outputs are those of the saved one, bit for bit.

    An integer model comes back as one, chained or not as it was: its layers are packed for the machine that loads it.

    ``model`` is the float model that was quantized (its weights do not matter; it is left as it was). Without it, only
    architectures that the header names and vsquant knows are built.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, foreign, a pickle, or does not fit the model; the
            message names the tensor where one is at fault.
        MissingExtraError: the package that has the architecture is not installed.
        BackendError: VSQUANT_BACKEND names a backend that cannot run a layer of an integer model.
    """
    source = Path(path)
    header = read_header(source)
    tensors = read_tensors(source, header)
    base = copy.deepcopy(model) if model is not None else build(header, tensors, source)
    base.eval()
    try:
        fold_batchnorm(base, pairs=header.folded)
        base = _with_layers(base, header, tensors, source)
        place_matmuls(base, _matmul_entries(header, tensors, source))
    except (RecipeError, ShapeError, SpecError, CalibrationError) as error:
        raise CheckpointError(f"{source} does not fit the model: {error}") from error
    _load_state(base, tensors, header, source)
    attach_record(base, header.record)
    return to_integer(base, chain=header.chained) if header.form == "integer" else base.eval()


def _unique_tensors(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors to store, and for each that is another one (tied weights, shared layers) the name of that."""
    unique: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple[int, torch.Size, tuple[int, ...], torch.dtype], str] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            tied[name] = seen[key]
        else:
            seen[key] = name
            unique[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return unique, tied


def _layer_headers(model: nn.Module) -> tuple[LayerHeader, ...]:
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return tuple(
        LayerHeader(
            name=name,
            aliases=tuple(names[id(layer)][1:]),
            spec=layer.spec,
            scale_mode=layer.scale_mode,
            output_dtype=_dtype_name(layer.output_dtype),
            weight_shape=tuple(layer.weight_shape),
        )
        for name, layer in quantized_layers(model)
    )


def _dtype_name(dtype: torch.dtype) -> FloatName:
    name: FloatName = next(name for name in get_args(FloatName) if getattr(torch, name) == dtype)
    return name


def _with_layers(model: nn.Module, header: Header, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The model with the header's quantized layers in it, or the one layer that it is."""
    layers = {layer.name: layer for layer in find_layers(model)}
    for entry in header.layers:
        layer = layers.get(entry.name)
        if layer is None:
            raise CheckpointError(f"{path} has a quantized layer {entry.name!r}, but the model has no such layer")
        check_layer_fits(entry, layer, path)
        parts, is_embedding = layer_tensors(entry, tensors), layer.kind == "embedding"
        check_layer_tensors(entry, parts, float_weight(layer.module).shape, path, is_embedding=is_embedding)
        layer.module.to(getattr(torch, entry.output_dtype))
        quantized = make_layer(
            layer.module,
            entry.name,
            entry.spec,
            scale_mode=entry.scale_mode,
            weight=parts.weight,
            activation_range=parts.activation_range,
        )
        quantized.eval()
        for name in (entry.name, *entry.aliases):
            model = set_module(model, name, quantized)
    return model


def _matmul_entries(header: Header, tensors: Mapping[str, Tensor], path: Path) -> list[AttentionEntry]:
    entries = []
    for entry in header.matmuls:
        ranges = ranges_in_state(entry.name, tensors)
        check_ranges(entry, ranges, path)
        entries.append(AttentionEntry(name=entry.name, spec=entry.spec, scale_mode=entry.scale_mode, ranges=ranges))
    return entries


def _load_state(model: nn.Module, tensors: Mapping[str, Tensor], header: Header, path: Path) -> None:
    state = dict(tensors)
    for name, stored in header.tied.items():
        if stored not in tensors:
            raise CheckpointError(f"{path}: tensor {name!r} is tied to {stored!r}, which is not in the file")
        state[name] = tensors[stored]
    expected = canonical_state(model)
    missing, foreign = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or foreign:
        what = f"lacks the tensor {missing[0]!r}" if missing else f"has a tensor {foreign[0]!r} that the model has not"
        raise CheckpointError(f"{path} does not fit the model: it {what}")
    for name, tensor in state.items():
        _check_same_kind(name, tensor, expected[name], path)
    listed = model.state_dict().keys()
    for name in state.keys() - listed:
        _set_tensor(model, name, state[name])
    model.load_state_dict({name: state[name] for name in listed}, strict=True, assign=True)
    for name, stored in header.tied.items():
        _set_tensor(model, name, _tensor_at(model, stored))


def _check_same_kind(name: str, tensor: Tensor, expected: Tensor, path: Path) -> None:
    """The file's tensor may be of another float dtype than the model's: the checkpoint may be of a bfloat16 model."""
    if tensor.shape != expected.shape:
        raise CheckpointError(
            f"{path} does not fit the model: {name!r} must be {tuple(expected.shape)}, not {tuple(tensor.shape)}"
        )
    both_float = tensor.is_floating_point() and expected.is_floating_point()
    if tensor.dtype != expected.dtype and not both_float:
        raise CheckpointError(f"{path} does not fit the model: {name!r} must be {expected.dtype}, not {tensor.dtype}")


def _tensor_at(model: nn.Module, name: str) -> Tensor:
    parent, _, child = name.rpartition(".")
    tensor = getattr(model.get_submodule(parent), child)
    assert isinstance(tensor, Tensor)
    return tensor


def _set_tensor(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a parameter or a buffer in the place of another; tied parameters become one object again."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, tensor)
