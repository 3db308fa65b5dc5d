"""What a checkpoint holds, from its header and tensors alone: no model is built."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vsquant.errors import CheckpointError, RecipeError, ShapeError
from vsquant.export.header import Header, LayerHeader, ReportHeader
from vsquant.export.sizes import file_bytes, tensor_bytes, unquantized
from vsquant.export.storage import read_header, read_tensors
from vsquant.export.validation import LayerTensors, check_layer_tensors, layer_tensors
from vsquant.packing import packed_bytes
from vsquant.results.inspection import Inspection, LayerInspection
from vsquant.transform.float_layers import float_weight
from vsquant.transform.fold import fold_batchnorm
from vsquant.transform.match import find_layers


def inspect(path: str | Path, float_model: nn.Module | None = None) -> Inspection:
    """Layers, sizes and the use of scale codes of a checkpoint; with the float model also each layer's SQNR.

    ``float_model`` is the model that was quantized, with its weights; it is left as it was. Layers whose channels were
    reordered cannot be compared with it and have no SQNR.

    Raises:
        CheckpointError: the file is not a whole checkpoint, or does not fit the float model.
    """
    source = Path(path)
    header = read_header(source)
    tensors = read_tensors(source, header)
    reports = {report.name: report for report in header.report}
    weights = None if float_model is None else _float_weights(float_model, header, source)
    reordered = {name for group in header.permuted for name in (*group.producers, *group.consumers)}
    layers = [
        _layer(entry, reports.get(entry.name), tensors, None if entry.name in reordered else weights, source)
        for entry in header.layers
    ]
    elements, others = sum(layer.elements for layer in layers), unquantized(header.layers, tensors).values()
    return Inspection(
        path=str(source),
        architecture=_architecture_text(header),
        format_version=header.format_version,
        form=header.form,
        file_bytes=source.stat().st_size,
        float_bytes=tensor_bytes(others),
        float32_bytes=elements * torch.float32.itemsize + tensor_bytes(others, torch.float32),
        float16_bytes=elements * torch.float16.itemsize + tensor_bytes(others, torch.float16),
        layers=(*layers, *_matmuls(header, reports)),
        left_float=tuple((report.name, report.note) for report in header.report if report.spec is None),
    )


def _layer(
    entry: LayerHeader,
    report: ReportHeader | None,
    tensors: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None,
    path: Path,
) -> LayerInspection:
    if report is None:
        raise CheckpointError(f"{path}: the header must report on its layer {entry.name!r}, but does not")
    parts = layer_tensors(entry, tensors)
    shape = _weight_shape(entry, report, parts, path)
    check_layer_tensors(entry, parts, shape, path, is_embedding=report.kind == "embedding")
    fmt, scale = entry.spec.weight, parts.weight_vector_scale
    counted = scale is not None and fmt.two_level
    return LayerInspection(
        name=entry.name,
        kind=report.kind,
        spec=str(entry.spec),
        shape=tuple(shape),
        elements=math.prod(shape),
        stored_bytes=packed_bytes(shape, fmt),
        file_bytes=file_bytes(entry, parts, shape),
        scale_codes_used=_distinct(scale) if counted and scale is not None else None,
        scale_codes_total=1 << fmt.scale_storage_bits if counted else None,
        sqnr_db=None if weights is None else _sqnr_db(entry, parts.weight.dequantize(shape), weights, path),
        note=report.note,
    )


def _distinct(scale: Tensor) -> int:
    return len(scale.unique())  # type: ignore[no-untyped-call]  # torch's own


def _matmuls(header: Header, reports: Mapping[str, ReportHeader]) -> list[LayerInspection]:
    return [
        LayerInspection(
            name=entry.name,
            kind="matmul",
            spec=str(entry.spec),
            shape=(),
            elements=0,
            stored_bytes=0,
            file_bytes=0,
            scale_codes_used=None,
            scale_codes_total=None,
            sqnr_db=None,
            note=reports[entry.name].note if entry.name in reports else "",
        )
        for entry in header.matmuls
    ]


def _weight_shape(entry: LayerHeader, report: ReportHeader, parts: LayerTensors, path: Path) -> torch.Size:
    """(K, C, *kernel) of the float weight."""
    if entry.weight_shape is None:
        return _weight_shape_of_version_1(entry, report, parts, path)
    if math.prod(entry.weight_shape) != report.weights:
        raise CheckpointError(
            f"{path}: layer {entry.name!r} must hold the {report.weights} weights of the header's report, "
            f"not be {entry.weight_shape}"
        )
    return torch.Size(entry.weight_shape)


def _weight_shape_of_version_1(entry: LayerHeader, report: ReportHeader, parts: LayerTensors, path: Path) -> torch.Size:
    """C from the number of weights, the rest from the codes."""
    if parts.weight_values is not None:
        return parts.weight_values.shape
    codes = parts.weight_codes
    if codes is None or codes.dim() < 3:
        raise CheckpointError(f"{path}: tensor {entry.name}.weight_codes must be there, with at least 3 dimensions")
    outputs, *kernel = codes.shape[:-2]
    channels, rest = divmod(report.weights, max(1, outputs * math.prod(kernel)))
    if rest or channels > codes.shape[-2] * codes.shape[-1]:
        raise CheckpointError(
            f"{path}: tensor {entry.name}.weight_codes must hold the {report.weights} weights of the header's report, "
            f"not be {tuple(codes.shape)}"
        )
    return torch.Size([outputs, channels, *kernel])


def _float_weights(model: nn.Module, header: Header, path: Path) -> dict[str, Tensor]:
    """Weights (K, C, *kernel) by layer, batch norms folded as the header says."""
    folded = copy.deepcopy(model).eval()
    try:
        fold_batchnorm(folded, pairs=header.folded)
    except (RecipeError, ShapeError) as error:
        raise CheckpointError(f"{path} does not fit the float model: {error}") from error
    return {layer.name: float_weight(layer.module) for layer in find_layers(folded)}


def _sqnr_db(entry: LayerHeader, quantized: Tensor, weights: Mapping[str, Tensor], path: Path) -> float | None:
    """10·log10(Σ w² / Σ (w - ŵ)²) in float64; None for a weight of zeros."""
    weight = weights.get(entry.name)
    if weight is None or weight.shape != quantized.shape:
        given = "no such layer" if weight is None else f"{tuple(weight.shape)}"
        raise CheckpointError(
            f"{path} does not fit the float model: the weight of {entry.name!r} must be {tuple(quantized.shape)}, "
            f"not {given}"
        )
    signal = float(weight.double().square().sum())
    noise = float((weight.double() - quantized.double()).square().sum())
    if signal == 0:
        return None
    return 10 * math.log10(signal / noise) if noise else math.inf


def _architecture_text(header: Header) -> str:
    if header.architecture is None:
        return "a model that vsquant does not know"
    said = [text for key, text in sorted(header.architecture.items()) if key not in ("config", "family", "attention")]
    return " ".join([header.architecture.get("family", ""), *said]).strip()
