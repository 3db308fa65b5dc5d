"""Quantized weights: integers and scales in the layer's layout, and back to float32."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.errors import NonFiniteError, ScaleRangeError
from vsquant.kernels.numerics import pad_tail
from vsquant.optimize import PLAIN_SEARCH, SearchOptions, search_weight
from vsquant.reference.integer_linear import activation_scale_mode
from vsquant.spec.formats import FloatFormat, TensorFormat
from vsquant.spec.layer import ScaleMode


@dataclass(frozen=True, kw_only=True)
class QuantizedWeight:
    """A layer's weight as stored.

    ``codes`` are (K, C/V, V) for linear layers and embeddings and (K, R, S, C/V, V) or (K, S, C/V, V) for
    convolutions, V = C where the weight has no vectors; ``vector_scale`` has one value per vector; ``coarse_scale`` is
    gamma, one per output channel (or embedding row). Comparison formats store their float32 ``values`` instead.
    """

    codes: Tensor | None
    vector_scale: Tensor | None
    coarse_scale: Tensor | None
    values: Tensor | None = None

    @classmethod
    def from_positions(cls, quantized: kernels.QuantizedTensor, shape: torch.Size) -> QuantizedWeight:
        """The weight of a layer of ``shape`` from codes (K, positions, vectors, V), as `by_position` lays them out."""
        codes, vector_scale, coarse_scale = quantized
        lead = (shape[0], *shape[2:])
        return cls(
            codes=codes.reshape(*lead, *codes.shape[-2:]),
            vector_scale=None if vector_scale is None else vector_scale.reshape(*lead, vector_scale.shape[-1]),
            coarse_scale=None if coarse_scale is None else coarse_scale.reshape(-1),
        )

    def rows(self, rows: slice) -> QuantizedWeight:
        """The weight of some of the output channels."""
        parts = (self.codes, self.vector_scale, self.coarse_scale, self.values)
        codes, vector_scale, coarse_scale, values = (None if part is None else part[rows] for part in parts)
        return QuantizedWeight(codes=codes, vector_scale=vector_scale, coarse_scale=coarse_scale, values=values)

    def dequantize(self, shape: torch.Size) -> Tensor:
        """Float32 weight of the layer's own ``shape``, (K, C) or (K, C, R, S) or (K, C, S), by eq. (6)."""
        if self.values is not None:
            # A copy of its own: kernels choose by layout and alignment, and the last bit of a sum depends on which.
            return self.values.clone(memory_format=torch.contiguous_format)
        assert self.codes is not None
        codes = self.codes.reshape(shape[0], -1, *self.codes.shape[-2:])
        scale = None if self.vector_scale is None else self.vector_scale.reshape(codes.shape[:-1])
        coarse = None if self.coarse_scale is None else self.coarse_scale.unsqueeze(1)
        rows = kernels.dequantize(kernels.QuantizedTensor(codes, scale, coarse), shape[1])
        return _from_rows(rows, shape)


def element_steps(weight: QuantizedWeight, shape: torch.Size) -> Tensor:
    """The scale fl(sigma*gamma) of every element, float32 in the layer's own ``shape``."""
    assert weight.codes is not None
    return replace(weight, codes=torch.ones_like(weight.codes)).dequantize(shape)


def element_codes(weight: QuantizedWeight, shape: torch.Size) -> Tensor:
    """The code of every element, as float32 in the layer's own ``shape``."""
    return QuantizedWeight(codes=weight.codes, vector_scale=None, coarse_scale=None).dequantize(shape)


def with_element_codes(weight: QuantizedWeight, codes: Tensor) -> QuantizedWeight:
    """The weight with other codes: integers in the layer's own shape, as `element_codes` gives them."""
    assert weight.codes is not None
    vectors = pad_tail(by_position(codes), weight.codes.shape[-1])
    return replace(weight, codes=vectors.reshape(weight.codes.shape).to(weight.codes.dtype))


def quantize_weight(
    weight: Tensor,
    fmt: TensorFormat,
    *,
    name: str,
    scale_mode: ScaleMode = "requantize",
    coarse_range: Tensor | None = None,
    search: SearchOptions = PLAIN_SEARCH,
) -> QuantizedWeight:
    """Quantize a weight (K, C, *kernel), vectors along C at each kernel position, gamma over the whole of K's row.

    ``coarse_range`` (K,) replaces the maximum for formats without vectors (clipped per-channel quantization).
    ``search`` has the options of scale mode ``search``.

    Raises:
        NonFiniteError, ScaleRangeError: the message names the layer.
        SpecError: ``scale_mode`` is not defined for ``fmt``.
    """
    rows = by_position(weight.detach().to(torch.float32))
    try:
        if isinstance(fmt, FloatFormat):
            share = rows.reshape(1, -1, rows.shape[-1]) if fmt.tensor_scale else rows
            values = kernels.fake_quantize(share, fmt).view(rows.shape)
            values = _from_rows(values, weight.shape)
            return QuantizedWeight(codes=None, vector_scale=None, coarse_scale=None, values=values)
        if scale_mode == "search" and fmt.two_level:
            quantized = search_weight(rows, fmt, search)
        else:
            mode = activation_scale_mode(scale_mode)
            quantized = kernels.quantize(rows, fmt, coarse_range=coarse_range, scale_mode=mode)
    except (NonFiniteError, ScaleRangeError) as error:
        g16 = isinstance(error, ScaleRangeError) and not isinstance(fmt, FloatFormat) and fmt.coarse_fp16
        advice = ", which means without -g16" if g16 else ""
        raise type(error)(f"weight of layer {name!r}: {error}{advice}") from error
    return QuantizedWeight.from_positions(quantized, weight.shape)


def by_position(weight: Tensor) -> Tensor:
    """(K, C, *kernel) to (K, kernel positions, C)."""
    return weight.flatten(2).transpose(1, 2) if weight.dim() > 2 else weight.unsqueeze(1)


def integer_operand(weight: QuantizedWeight, vector_size: int) -> kernels.PartialSumOperand:
    """Codes (K, kernel*vectors, V) and integer vector scales (K, kernel*vectors) for per-vector partial sums."""
    assert weight.codes is not None and weight.vector_scale is not None
    outputs = weight.codes.shape[0]
    return kernels.PartialSumOperand(
        weight.codes.reshape(outputs, -1, vector_size), weight.vector_scale.reshape(outputs, -1)
    )


def _from_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    return rows.transpose(1, 2).reshape(shape) if len(shape) > 2 else rows.reshape(shape)
