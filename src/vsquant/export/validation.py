"""What a checkpoint's tensors must be, checked layer by layer before a model is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from vsquant.errors import CheckpointError
from vsquant.export.header import LayerHeader, MatmulHeader
from vsquant.nn import QuantizedWeight, needs_range
from vsquant.spec.formats import IntegerFormat, padded_length
from vsquant.transform.attention_core import AttentionRanges
from vsquant.transform.float_layers import float_weight, pads_like_tensorflow
from vsquant.transform.match import Layer


class LayerTensors(NamedTuple):
    """The stored tensors of one quantized layer, under the names they have in it."""

    weight_codes: Tensor | None
    weight_vector_scale: Tensor | None
    weight_coarse_scale: Tensor | None
    weight_values: Tensor | None
    activation_range: Tensor | None

    @property
    def weight(self) -> QuantizedWeight:
        """The weight's parts."""
        return QuantizedWeight(
            codes=self.weight_codes,
            vector_scale=self.weight_vector_scale,
            coarse_scale=self.weight_coarse_scale,
            values=self.weight_values,
        )


class _Require(Protocol):
    def __call__(self, condition: bool, part: str, problem: str) -> None: ...


def layer_tensors(entry: LayerHeader, tensors: Mapping[str, Tensor]) -> LayerTensors:
    """The tensors that a layer has in the file; a part it lacks is None."""
    prefix = f"{entry.name}." if entry.name else ""
    return LayerTensors(*(tensors.get(prefix + part) for part in LayerTensors._fields))


def check_layer_fits(entry: LayerHeader, layer: Layer, path: Path) -> None:
    """Whether the float layer can be what the header says it became.

    Raises:
        CheckpointError: it cannot; names the layer.
    """

    def require(condition: bool, problem: str) -> None:
        if not condition:
            raise CheckpointError(f"{path} does not fit the model: layer {entry.name!r} {problem} (spec {entry.spec})")

    shape = tuple(float_weight(layer.module).shape)
    require(entry.weight_shape in (None, shape), f"must have a weight of {shape}, not {entry.weight_shape}")
    require(set(entry.aliases) == set(layer.aliases), f"must have the other names {sorted(layer.aliases)}")
    plain = not layer.custom_forward or pads_like_tensorflow(layer.module)
    require(plain and not layer.obstacle, "cannot be replaced by a quantized one")
    is_convolution = isinstance(layer.module, (nn.Conv1d, nn.Conv2d))
    require(not (is_convolution and entry.spec.gamma == "token"), "must not have -token, being a convolution")
    is_embedding = layer.kind == "embedding"
    quantizes_input = isinstance(entry.spec.activation, IntegerFormat)
    require(not (is_embedding and quantizes_input), "must have no activation format, its input being indices")


def check_layer_tensors(
    entry: LayerHeader, parts: LayerTensors, shape: torch.Size, path: Path, *, is_embedding: bool
) -> None:
    """Hold a layer's tensors against its spec and the float weight's ``shape``, (K, C, *kernel).

    Raises:
        CheckpointError: a tensor is missing, superfluous, of another shape or type, or out of the format's range.
    """

    def require(condition: bool, part: str, problem: str) -> None:
        if not condition:
            raise CheckpointError(f"{path}: tensor {entry.name}.{part} {problem} (spec {entry.spec})")

    expected = _expected_parts(entry, is_embedding)
    for part, tensor in parts._asdict().items():
        require((tensor is not None) == (part in expected), part, "must be there exactly where the spec has it")
    fmt = entry.spec.weight
    if not isinstance(fmt, IntegerFormat):
        assert parts.weight_values is not None
        _check_shape(parts.weight_values, torch.float32, shape, "weight_values", require)
        require(bool(parts.weight_values.isfinite().all()), "weight_values", "must be finite")
    else:
        _check_integers(parts, fmt, shape, require)
    if parts.activation_range is not None:
        _check_scale(parts.activation_range, torch.Size([1]), "activation_range", require)


def check_ranges(entry: MatmulHeader, ranges: AttentionRanges | None, path: Path) -> None:
    """Hold the ranges of an attention module's operands against its spec.

    Raises:
        CheckpointError: they are missing, superfluous, or not one finite float32 number for each head.
    """

    def require(condition: bool, part: str, problem: str) -> None:
        if not condition:
            raise CheckpointError(f"{path}: range of {part} of matmul {entry.name!r} {problem} (spec {entry.spec})")

    require((ranges is not None) == needs_range(entry.spec), "any operand", "must be there only if γ is static")
    if ranges is not None:
        heads = torch.Size([ranges.query.numel()])
        for operand, range_ in ranges._asdict().items():
            _check_scale(range_, heads, operand, require)


def _expected_parts(entry: LayerHeader, is_embedding: bool) -> set[str]:
    fmt = entry.spec.weight
    if isinstance(fmt, IntegerFormat):
        parts = {"weight_codes"}
        parts |= {"weight_vector_scale"} if fmt.has_vectors else set()
        parts |= {"weight_coarse_scale"} if fmt.has_coarse_scale else set()
    else:
        parts = {"weight_values"}
    return parts | ({"activation_range"} if needs_range(entry.spec) and not is_embedding else set())


def _check_integers(parts: LayerTensors, fmt: IntegerFormat, shape: torch.Size, require: _Require) -> None:
    size = fmt.vector_size or shape[1]
    lead = torch.Size([shape[0], *shape[2:], padded_length(shape[1], fmt.vector_size) // size if size else 0])
    assert parts.weight_codes is not None
    _check_codes(parts.weight_codes, fmt, torch.Size([*lead, size]), shape[1], require)
    if parts.weight_vector_scale is not None and fmt.two_level:
        _check_integer_scale(parts.weight_vector_scale, fmt, lead, require)
    elif parts.weight_vector_scale is not None:
        _check_scale(parts.weight_vector_scale, lead, "weight_vector_scale", require, fp16=fmt.scale == "fp16")
    if parts.weight_coarse_scale is not None:
        gamma = torch.Size([shape[0]])
        _check_scale(parts.weight_coarse_scale, gamma, "weight_coarse_scale", require, fp16=fmt.coarse_fp16)


def _check_codes(codes: Tensor, fmt: IntegerFormat, shape: torch.Size, length: int, require: _Require) -> None:
    part = "weight_codes"
    _check_shape(codes, torch.int8, shape, part, require)
    inside = codes.numel() == 0 or (int(codes.min()) >= fmt.qmin and int(codes.max()) <= fmt.qmax)
    require(inside, part, f"must hold codes from {fmt.qmin} to {fmt.qmax}")
    require(not bool(codes.flatten(-2)[..., length:].any()), part, "must hold zeros where tails are padded")


def _check_integer_scale(scale: Tensor, fmt: IntegerFormat, shape: torch.Size, require: _Require) -> None:
    part = "weight_vector_scale"
    _check_shape(scale, torch.int16, shape, part, require)
    inside = scale.numel() == 0 or (int(scale.min()) >= fmt.scale_min and int(scale.max()) <= fmt.scale_top)
    require(inside, part, f"must hold scales from {fmt.scale_min} to {fmt.scale_top}")


def _check_scale(scale: Tensor, shape: torch.Size, part: str, require: _Require, *, fp16: bool = False) -> None:
    """Float scales: zero is the scale of zeros."""
    _check_shape(scale, torch.float32, shape, part, require)
    require(bool(torch.isfinite(scale).all() and (scale >= 0).all()), part, "must be finite and not negative")
    require(not fp16 or torch.equal(scale.half().float(), scale), part, "must hold fp16 values")


def _check_shape(tensor: Tensor, dtype: torch.dtype, shape: torch.Size, part: str, require: _Require) -> None:
    require(tensor.dtype == dtype, part, f"must be {dtype}, not {tensor.dtype}")
    require(tensor.shape == shape, part, f"must be {tuple(shape)}, not {tuple(tensor.shape)}")
