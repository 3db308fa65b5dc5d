"""Layers with ``-pP``: eqs. (7)-(8) by per-vector partial sums on integers, so that P is never ignored."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vsquant import kernels
from vsquant.nn.geometry import ConvGeometry
from vsquant.nn.weights import QuantizedWeight, integer_operand
from vsquant.spec.layer import LayerSpec


def straight_through(y: Tensor, simulate: Callable[[], Tensor], *inputs: Tensor) -> Tensor:
    """``y`` with the gradient of the same layer without rounded products, where an input asks for one."""
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in inputs)):
        return y
    simulated = simulate()
    return y + (simulated - simulated.detach())


def rounded_linear(
    activation: kernels.QuantizedTensor, weight: QuantizedWeight, bias: Tensor | None, spec: LayerSpec
) -> Tensor:
    """Float32 outputs (samples, rows, K) of a linear layer from codes (samples, rows, vectors, V)."""
    codes, vector_scale, coarse_scale = activation
    assert vector_scale is not None and coarse_scale is not None
    operand = kernels.PartialSumOperand(codes.flatten(0, 1), vector_scale.flatten(0, 1))
    sums = _sums(operand, weight, spec)
    sums = sums.view(*codes.shape[:2], sums.shape[1])
    return _outputs(sums, coarse_scale.unsqueeze(-1), weight, bias, spec)


def rounded_matmul(
    left: kernels.QuantizedTensor, right: kernels.QuantizedTensor, *, shift: int, product_bits: int
) -> Tensor:
    """Float32 (groups, M, L) of a product of two activations; codes (groups, M, vectors, V) and (groups, L, ...)."""
    assert left.vector_scale is not None and left.coarse_scale is not None
    assert right.vector_scale is not None and right.coarse_scale is not None
    scale = left.coarse_scale.unsqueeze(2) * right.coarse_scale.unsqueeze(1)
    y = scale.new_empty(*left.codes.shape[:2], right.codes.shape[1])
    for group, product in enumerate(y):
        sums = kernels.partial_sums(
            kernels.PartialSumOperand(left.codes[group], left.vector_scale[group]),
            kernels.PartialSumOperand(right.codes[group], right.vector_scale[group]),
            shift=shift,
            product_bits=product_bits,
        )
        torch.mul(scale[group], sums.to(torch.float32), out=product)
    return y.mul_(2.0**shift)


def rounded_conv(
    activation: kernels.QuantizedTensor,
    shape: torch.Size,
    weight: QuantizedWeight,
    bias: Tensor | None,
    spec: LayerSpec,
    geometry: ConvGeometry,
) -> Tensor:
    """Float32 outputs (N, K, *spatial') of a convolution; ``shape`` is the input's, channels last.

    The windows of one sample are gathered at a time, to bound the memory.
    """
    codes, vector_scale, coarse_scale = activation
    assert vector_scale is not None and coarse_scale is not None
    lead = (*shape[:-1], geometry.groups)
    codes, vector_scale = codes.view(*lead, *codes.shape[-2:]), vector_scale.view(*lead, vector_scale.shape[-1])
    assert weight.codes is not None
    y = coarse_scale.new_empty(shape[0], *geometry.output_size(shape[1:-1]), len(weight.codes))
    for sample, gamma in enumerate(coarse_scale):
        sums = _conv_sums(codes[sample], vector_scale[sample], weight, spec, geometry)
        y[sample] = _outputs(sums, gamma, weight, bias, spec)
    return y.movedim(-1, 1)


def _conv_sums(
    codes: Tensor, vector_scale: Tensor, weight: QuantizedWeight, spec: LayerSpec, geometry: ConvGeometry
) -> Tensor:
    """Sums (*spatial', K) of one sample; codes (*spatial, groups, vectors, V)."""
    windows, scales = (_windows(t, geometry) for t in (codes, vector_scale))
    dims = len(geometry.kernel)
    positions, outputs = windows.shape[:dims], weight.codes.shape[0] // geometry.groups  # type: ignore[union-attr]
    parts = []
    for group in range(geometry.groups):
        operand = kernels.PartialSumOperand(
            windows.select(2 * dims, group).reshape(positions.numel(), -1, codes.shape[-1]),
            scales.select(2 * dims, group).reshape(positions.numel(), -1),
        )
        rows = slice(group * outputs, (group + 1) * outputs)
        parts.append(_sums(operand, weight.rows(rows), spec))
    return torch.cat(parts, dim=1).view(*positions, outputs * geometry.groups)


def _windows(x: Tensor, geometry: ConvGeometry) -> Tensor:
    """(*spatial, ...) to (*spatial', *kernel, ...): what each output position sees, after padding."""
    dims = len(geometry.kernel)
    for dim, pair in enumerate(geometry.padding_for(x.shape[:dims])):
        x = _pad_dim(x, dim, pair, geometry.padding_mode)
    for dim in range(dims):
        kernel, stride, dilation = geometry.kernel[dim], geometry.stride[dim], geometry.dilation[dim]
        positions = (x.shape[2 * dim] - (kernel - 1) * dilation - 1) // stride + 1
        index = torch.arange(positions).unsqueeze(1) * stride + torch.arange(kernel) * dilation
        windows = x.index_select(2 * dim, index.flatten().to(x.device))
        x = windows.reshape(*x.shape[: 2 * dim], positions, kernel, *x.shape[2 * dim + 1 :])
    order = [*range(0, 2 * dims, 2), *range(1, 2 * dims, 2)]
    return x.permute(*order, *range(2 * dims, x.dim()))


def _pad_dim(x: Tensor, dim: int, pair: tuple[int, int], mode: str) -> Tensor:
    """One spatial dimension of integers padded: by zeros, or by the positions that ``mode`` copies."""
    if mode == "zeros":
        return F.pad(x, [0, 0] * (x.dim() - 1 - dim) + list(pair))
    positions = torch.arange(x.shape[dim], dtype=torch.float32).view(1, 1, -1)
    return x.index_select(dim, F.pad(positions, pair, mode=mode).flatten().long().to(x.device))


def _sums(operand: kernels.PartialSumOperand, weight: QuantizedWeight, spec: LayerSpec) -> Tensor:
    assert spec.product_bits is not None
    stored = integer_operand(weight, operand.codes.shape[-1])
    return kernels.partial_sums(operand, stored, shift=spec.product_shift, product_bits=spec.product_bits)


def _outputs(
    sums: Tensor, activation_scale: Tensor, weight: QuantizedWeight, bias: Tensor | None, spec: LayerSpec
) -> Tensor:
    """Eq. (7): fl(fl(gamma_a*gamma_w) * fl(S)) * 2^d + b, channels last."""
    assert weight.coarse_scale is not None
    y = (activation_scale * weight.coarse_scale) * sums.to(torch.float32) * 2.0**spec.product_shift
    return y if bias is None else y + bias
