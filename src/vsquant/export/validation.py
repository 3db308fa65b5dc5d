"""What a checkpoint's tensors must be, checked layer by layer before a model is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from vsquant.errors import CheckpointError
from vsquant.export.header import LayerHeader
from vsquant.nn import needs_range
from vsquant.spec.formats import IntegerFormat, padded_length
from vsquant.transform.float_layers import float_weight


class LayerTensors(NamedTuple):
    """The stored tensors of one quantized layer."""

    codes: Tensor | None
    vector_scale: Tensor | None
    coarse_scale: Tensor | None
    values: Tensor | None
    activation_range: Tensor | None


def layer_tensors(entry: LayerHeader, tensors: Mapping[str, Tensor]) -> LayerTensors:
    """The tensors that a layer has in the file; a part it lacks is None."""
    names = ("weight_codes", "weight_vector_scale", "weight_coarse_scale", "weight_values", "activation_range")
    return LayerTensors(*(tensors.get(f"{entry.name}.{name}") for name in names))


def check_layer_tensors(entry: LayerHeader, parts: LayerTensors, module: nn.Module, path: Path) -> None:
    """Hold a layer's tensors against its spec and the float layer's shape.

    Raises:
        CheckpointError: a tensor is missing, superfluous, of another shape or type, or out of the format's range.
    """

    def require(condition: bool, part: str, problem: str) -> None:
        if not condition:
            raise CheckpointError(f"{path}: tensor {entry.name}.{part} {problem} (spec {entry.spec})")

    shape, fmt = float_weight(module).shape, entry.spec.weight
    if not isinstance(fmt, IntegerFormat):
        require(parts.values is not None and parts.values.shape == shape, "weight_values", f"must be {tuple(shape)}")
        require(parts.values is not None and bool(parts.values.isfinite().all()), "weight_values", "must be finite")
        return
    size = fmt.vector_size or shape[1]
    vectors = padded_length(shape[1], fmt.vector_size) // size
    lead = (shape[0], *shape[2:], vectors)
    _check_codes(parts.codes, fmt, (*lead, size), require)
    _check_vector_scale(parts.vector_scale, fmt, lead, require)
    has_coarse = fmt.has_coarse_scale
    require((parts.coarse_scale is not None) == has_coarse, "weight_coarse_scale", "must be there only with its format")
    _check_positive(parts.coarse_scale, (shape[0],), "weight_coarse_scale", require)
    if not isinstance(module, nn.Embedding):
        ranged = needs_range(entry.spec)
        require((parts.activation_range is not None) == ranged, "activation_range", "must be there only if γ is static")
        _check_positive(parts.activation_range, (1,), "activation_range", require)


class _Require(Protocol):
    def __call__(self, condition: bool, part: str, problem: str) -> None: ...


def _check_codes(codes: Tensor | None, fmt: IntegerFormat, shape: tuple[int, ...], require: _Require) -> None:
    part = "weight_codes"
    require(codes is not None, part, "must be there")
    assert codes is not None
    require(codes.dtype == torch.int8, part, f"must be int8, not {codes.dtype}")
    require(codes.shape == shape, part, f"must be {shape}, not {tuple(codes.shape)}")
    inside = codes.numel() == 0 or (int(codes.min()) >= fmt.qmin and int(codes.max()) <= fmt.qmax)
    require(inside, part, f"must hold codes from {fmt.qmin} to {fmt.qmax}")


def _check_vector_scale(scale: Tensor | None, fmt: IntegerFormat, shape: tuple[int, ...], require: _Require) -> None:
    part = "weight_vector_scale"
    require((scale is not None) == fmt.has_vectors, part, "must be there exactly where the format has vectors")
    if scale is None:
        return
    require(scale.shape == shape, part, f"must be {shape}, not {tuple(scale.shape)}")
    if not fmt.two_level:
        _check_positive(scale, shape, part, require)
        return
    require(scale.dtype == torch.int16, part, f"must be int16, not {scale.dtype}")
    inside = scale.numel() == 0 or (int(scale.min()) >= fmt.scale_min and int(scale.max()) <= fmt.scale_top)
    require(inside, part, f"must hold scales from {fmt.scale_min} to {fmt.scale_top}")


def _check_positive(scale: Tensor | None, shape: tuple[int, ...], part: str, require: _Require) -> None:
    """Float scales: zero is the scale of zeros."""
    if scale is None:
        return
    require(scale.dtype == torch.float32, part, f"must be float32, not {scale.dtype}")
    require(scale.shape == shape, part, f"must be {shape}, not {tuple(scale.shape)}")
    require(bool(torch.isfinite(scale).all() and (scale >= 0).all()), part, "must be finite and not negative")
