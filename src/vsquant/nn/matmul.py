"""Quantized matrix products of two activations, as in attention."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.errors import CalibrationError, NonFiniteError, ScaleRangeError, ShapeError, SpecError
from vsquant.nn.layer import Float32Module, needs_range, share_of
from vsquant.nn.rounded_products import rounded_matmul, straight_through
from vsquant.reference.integer_linear import activation_scale_mode
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.spec.widths import product_shift


class QuantMatmul(Float32Module):
    """``a @ b`` with both operands in the spec's activation format, vectors along the contracted dimension.

    ``a`` is (N, H, M, K), ``b`` is (N, H, K, L); gamma is per head H (of one sample where it is found at run time, per
    row of ``a`` and column of ``b`` under ``-token``). ``unsigned_a`` marks operands that are never negative by
    construction (attention probabilities).
    """

    range_a: Tensor | None
    range_b: Tensor | None

    def __init__(
        self,
        *,
        name: str,
        spec: LayerSpec,
        scale_mode: ScaleMode,
        unsigned_a: bool,
        ranges: tuple[Tensor, Tensor] | None,
    ) -> None:
        super().__init__()
        if spec.activation is None:
            raise SpecError(
                f"matmul {name!r}: both operands are activations, so the spec must quantize them, not {spec}"
            )
        if needs_range(spec) and ranges is None:
            raise CalibrationError(f"matmul {name!r} has static activation scales ({spec}), so it must be calibrated")
        self.name = name
        self.spec = spec
        self.scale_mode: ScaleMode = scale_mode
        self.format_a, self.format_b = operand_formats(spec.activation, unsigned_a=unsigned_a)
        self.register_buffer("range_a", None if ranges is None else ranges[0])
        self.register_buffer("range_b", None if ranges is None else ranges[1])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """``a`` (N, H, M, K) times ``b`` (N, H, K, L), in the dtype of ``a``."""
        left, right = a.to(torch.float32), b.transpose(-1, -2).to(torch.float32)
        if self.spec.product_bits is None:
            return self._simulate(left, right).to(a.dtype)
        y = self._round(left, right, self.spec.product_bits)
        return straight_through(y, lambda: self._simulate(left, right), left, right).to(a.dtype)

    def extra_repr(self) -> str:
        """The spec, for ``print(model)``."""
        return str(self.spec)

    def _simulate(self, left: Tensor, right: Tensor) -> Tensor:
        """(N, H, M, K) times (N, H, L, K) on dequantized values."""
        left = self._fake_quantize(left, self.format_a, self.range_a)
        right = self._fake_quantize(right, self.format_b, self.range_b)
        return left @ right.transpose(-1, -2)

    def _round(self, left: Tensor, right: Tensor, product_bits: int) -> Tensor:
        """(N, H, M, K) times (N, H, L, K) by eqs. (7)-(8)."""
        assert isinstance(self.format_a, IntegerFormat) and isinstance(self.format_b, IntegerFormat)
        shift = product_shift(self.format_b, self.format_a, product_bits)
        left_codes = self._quantize(left, self.format_a, self.range_a)
        right_codes = self._quantize(right, self.format_b, self.range_b)
        y = rounded_matmul(left_codes, right_codes, shift=shift, product_bits=product_bits)
        return y.view(*left.shape[:-1], right.shape[-2])

    def _fake_quantize(self, x: Tensor, fmt: TensorFormat, range_: Tensor | None) -> Tensor:
        mode = activation_scale_mode(self.scale_mode)
        try:
            rows = kernels.fake_quantize(
                x.flatten(0, 1), fmt, share=share_of(self.spec), coarse_range=_per_group(range_, x), scale_mode=mode
            )
        except (NonFiniteError, ScaleRangeError, ShapeError) as error:
            raise type(error)(f"operand of matmul {self.name!r}: {error}") from error
        return rows.view(x.shape)

    def _quantize(self, x: Tensor, fmt: IntegerFormat, range_: Tensor | None) -> kernels.QuantizedTensor:
        mode = activation_scale_mode(self.scale_mode)
        try:
            return kernels.quantize(
                x.flatten(0, 1), fmt, share=share_of(self.spec), coarse_range=_per_group(range_, x), scale_mode=mode
            )
        except (NonFiniteError, ScaleRangeError, ShapeError) as error:
            raise type(error)(f"operand of matmul {self.name!r}: {error}") from error


def operand_formats(fmt: TensorFormat, *, unsigned_a: bool) -> tuple[TensorFormat, TensorFormat]:
    """The formats of both operands: signed, except ``a`` where it is never negative."""
    if isinstance(fmt, FloatFormat):
        return fmt, fmt
    return replace(fmt, signed=not unsigned_a), replace(fmt, signed=True)


def _per_group(range_: Tensor | None, x: Tensor) -> Tensor | None:
    """A range per head as a range per (sample, head)."""
    return None if range_ is None else range_.repeat(x.shape[0])
