"""Matrix products of two activations on integers, as in attention."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.errors import NonFiniteError, ScaleRangeError, SpecError
from vsquant.nn.layer import Float32Module, share_of
from vsquant.nn.matmul import QuantMatmul
from vsquant.reference.integer_linear import activation_scale_mode
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec, ScaleMode


class IntegerMatmul(Float32Module):
    """``a @ b`` on integers, both operands quantized as they arrive; the operands are those of `QuantMatmul`."""

    range_a: Tensor | None
    range_b: Tensor | None

    def __init__(
        self,
        *,
        name: str,
        spec: LayerSpec,
        scale_mode: ScaleMode,
        formats: tuple[IntegerFormat, IntegerFormat],
        ranges: tuple[Tensor, Tensor] | None,
    ) -> None:
        super().__init__()
        self.name = name
        self.spec = spec
        self.scale_mode: ScaleMode = scale_mode
        self.format_a, self.format_b = formats
        self.register_buffer("range_a", None if ranges is None else ranges[0])
        self.register_buffer("range_b", None if ranges is None else ranges[1])
        self._backend = self.choices["matmul"].backend

    @classmethod
    def of(cls, product: QuantMatmul) -> IntegerMatmul:
        """The integer twin of a simulated product.

        Raises:
            SpecError: the operands are in a comparison format.
        """
        left, right = product.format_a, product.format_b
        if not isinstance(left, IntegerFormat) or not isinstance(right, IntegerFormat):
            raise SpecError(
                f"matmul {product.name!r} must have an integer format to run on integers, not the comparison format "
                f"{product.spec}, which is simulated only"
            )
        ranges = (product.range_a, product.range_b)
        return cls(
            name=product.name,
            spec=product.spec,
            scale_mode=product.scale_mode,
            formats=(left, right),
            ranges=None if ranges[0] is None or ranges[1] is None else (ranges[0], ranges[1]),
        )

    @property
    def choices(self) -> Mapping[str, kernels.Choice]:
        """The backend that runs the product, and why another does not."""
        return {"matmul": kernels.choose("matmul", self.format_b, self.format_a, scale_mode=self.scale_mode)}

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """``a`` (N, H, M, K) times ``b`` (N, H, K, L), in the dtype of ``a``."""
        left, right = _rows(a), _rows(b.transpose(-1, -2))
        if left.dtype != right.dtype or left.dtype == torch.float64:
            left, right = left.to(torch.float32), right.to(torch.float32)
        ranges = self._ranges(a.shape[0])
        try:
            y = kernels.matmul(
                left,
                right,
                self.format_a,
                self.format_b,
                ranges=ranges,
                share=share_of(self.spec),
                scale_mode=activation_scale_mode(self.scale_mode),
                product_bits=self.spec.product_bits,
                backend=self._backend,
            )
        except (NonFiniteError, ScaleRangeError) as error:
            raise type(error)(f"operand of matmul {self.name!r}: {error}") from error
        return y.view(*a.shape[:-1], b.shape[-1]).to(a.dtype)

    def input_codes(self, a: Tensor, b: Tensor) -> Tensor:
        """The codes of both operands: to be counted and compared."""
        operands = ((_rows(a), self.format_a), (_rows(b.transpose(-1, -2)), self.format_b))
        ranges = self._ranges(a.shape[0]) or (None, None)
        codes = [
            kernels.quantize(
                rows,
                fmt,
                share=share_of(self.spec),
                coarse_range=range_,
                scale_mode=activation_scale_mode(self.scale_mode),
            ).codes.flatten()
            for (rows, fmt), range_ in zip(operands, ranges, strict=True)
        ]
        return torch.cat([each.to(torch.int16) for each in codes])

    def _ranges(self, samples: int) -> tuple[Tensor, Tensor] | None:
        """A range for every (sample, head), None where gamma is found at run time."""
        if self.range_a is None or self.range_b is None:
            return None
        return self.range_a.repeat(samples), self.range_b.repeat(samples)

    def extra_repr(self) -> str:
        """The spec, for ``print(model)``."""
        return str(self.spec)


def _rows(x: Tensor) -> Tensor:
    """(N, H, rows, length) as (N * H, rows, length)."""
    return x.flatten(0, 1).contiguous()
