"""Equations (7)-(8): the integer linear layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, Integer

from vsquant.errors import ShapeError, SpecError
from vsquant.reference.integer_formats import F32, Quantized, Share, join_vectors, quantize_integer, split_vectors
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.spec.widths import integer_operand, product_shift


class LinearResult(NamedTuple):
    """The exact integer sums S of eq. (7) and the float32 outputs y."""

    S: Int64[np.ndarray, "n k"]
    y: Float32[np.ndarray, "n k"]


def linear(
    x: Float32[np.ndarray, "n c"],
    w: Float32[np.ndarray, "k c"],
    spec: LayerSpec,
    scale_mode: ScaleMode = "requantize",
    *,
    bias: Float32[np.ndarray, " k"] | None = None,
    activation_range: float | None = None,
) -> LinearResult:
    """A linear layer on integers, eqs. (1)-(8). ``x`` is one sample: ``-tensor`` shares gamma among all its rows.

    Raises:
        SpecError: the spec has no integer sum (``a16``, fp16/fp32 scales, comparison formats), or gamma is static
            and no ``activation_range`` (eq. 4's A) is given.
        ShapeError: ``x`` and ``w`` do not reduce over the same length.
    """
    weight_format = integer_operand(spec.weight, "weight")
    activation_format = integer_operand(spec.activation, "activation")
    if spec.gamma == "static" and activation_range is None:
        raise SpecError(f"{spec} has a static gamma: activation_range must be given (or use -tensor or -token)")
    if x.shape[1:] != w.shape[1:]:
        raise ShapeError(f"x and w must share their last dimension, not {x.shape} and {w.shape}")
    share: Share = "row" if spec.gamma == "token" else "tensor"
    qx = quantize_integer(x, activation_format, share, activation_scale_mode(scale_mode), coarse_range=activation_range)
    qw = quantize_integer(w, weight_format, "row", scale_mode, name="w")
    S = integer_sum(qx, qw, spec.product_bits)
    assert qx.coarse_scale is not None and qw.coarse_scale is not None
    scale = qx.coarse_scale[:, None] * qw.coarse_scale[None, :]
    y = scale * S.astype(F32) * F32(2.0**spec.product_shift)
    return LinearResult(S, y if bias is None else y + bias)


def integer_sum(qx: Quantized, qw: Quantized, product_bits: int | None) -> Int64[np.ndarray, "n k"]:
    """Eq. (7)'s S_nk = sum_j rho(sigma_a * sigma_w) * sum_i q_a * q_w, exact in int64."""
    size = qx.format.vector_size or qw.format.vector_size
    codes_x, scale_x = _vectors(qx, size)
    codes_w, scale_w = _vectors(qw, size)
    shift = product_shift(qw.format, qx.format, product_bits)
    S = np.zeros((len(codes_x), len(codes_w)), dtype=np.int64)
    for j in range(codes_x.shape[1]):
        product = scale_x[:, j, None] * scale_w[None, :, j]
        S += round_product(product, shift, product_bits) * (codes_x[:, j] @ codes_w[:, j].T)
    return S


def round_product(p: Integer[np.ndarray, "n k"], shift: int, product_bits: int | None) -> Integer[np.ndarray, "n k"]:
    """Eq. (8): rho(p) = min(floor((p + 2^(d-1)) / 2^d), 2^P - 1); p itself where d = 0."""
    if shift == 0 or product_bits is None:
        return p
    rounded: Integer[np.ndarray, "n k"] = np.minimum((p + (1 << (shift - 1))) >> shift, (1 << product_bits) - 1)
    return rounded


def activation_scale_mode(scale_mode: ScaleMode) -> ScaleMode:
    """The scale mode of activations: ``search`` is for weights only, activations then requantize."""
    return "requantize" if scale_mode == "search" else scale_mode


def _vectors(
    q: Quantized, size: int | None
) -> tuple[Int64[np.ndarray, "rows vectors V"], Int64[np.ndarray, "rows vectors"]]:
    """Codes and scales of an operand cut into the other operand's vectors where it has none of its own (sigma = 1)."""
    if q.vector_scale is not None:
        return q.codes.astype(np.int64), q.vector_scale.astype(np.int64)
    codes = split_vectors(join_vectors(q.codes, q.length), size).astype(np.int64)
    return codes, np.ones(codes.shape[:2], dtype=np.int64)
