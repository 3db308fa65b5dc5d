"""The fused fake-quantization operator ``vsquant::fake_quantize`` and its registration with PyTorch.

The schema is fixed: a native backend replaces the kernel behind it, not the callers. Formats travel as texts
(`format_text`), so that an exported graph reads ``fake_quantize(x, A, "4u-s6-v16", "group", "requantize")``.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from vsquant.errors import ShapeError
from vsquant.kernels import eager
from vsquant.kernels.format_text import format_text, parse_format
from vsquant.reference.integer_formats import check_scale_mode
from vsquant.spec.formats import IntegerFormat, TensorFormat
from vsquant.spec.layer import ScaleMode

Share: TypeAlias = Literal["group", "row"]
"""Which vectors share gamma: those of a whole group (a sample, an output channel, a head) or of each row (a token)."""

NAME: Final = "vsquant::fake_quantize"

torch.library.define(
    NAME,
    "(Tensor x, Tensor? coarse_range, str format, str share, str scale_mode) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def fake_quantize(
    x: Tensor,
    fmt: TensorFormat,
    *,
    share: Share = "group",
    coarse_range: Tensor | None = None,
    scale_mode: ScaleMode = "requantize",
) -> Tensor:
    """Quantize and dequantize, eqs. (1)-(6): x^ with the shape and dtype of ``x``, computed in float32.

    ``x`` is (groups, rows, length) with vectors along ``length``; ``coarse_range`` is the calibrated range A > 0 of
    eq. (4), float32 of shape (1,) or (groups,), and makes gamma static. The gradient is straight-through.

    Raises:
        ShapeError: ``x`` is not three-dimensional, or ``coarse_range`` has neither one value nor one per group.
        NonFiniteError: ``x`` holds NaN or Inf.
        ScaleRangeError: a scale kept as fp16 would be zero, subnormal or infinite.
        SpecError: ``scale_mode`` is not defined for ``fmt``.
    """
    _check_shapes(x, coarse_range)
    if isinstance(fmt, IntegerFormat):
        check_scale_mode(fmt, scale_mode)
    result: Tensor = torch.ops.vsquant.fake_quantize(x, coarse_range, format_text(fmt), share, scale_mode)
    return result


def quantize(
    x: Tensor,
    fmt: IntegerFormat,
    *,
    share: Share = "group",
    coarse_range: Tensor | None = None,
    scale_mode: ScaleMode = "requantize",
) -> eager.QuantizedTensor:
    """Codes and scales of eqs. (1)-(5) for ``x`` (groups, rows, length); arguments and errors as `fake_quantize`."""
    _check_shapes(x, coarse_range)
    check_scale_mode(fmt, scale_mode)
    return eager.quantize(x, coarse_range, fmt, share, scale_mode)


def _check_shapes(x: Tensor, coarse_range: Tensor | None) -> None:
    if x.dim() != 3:
        raise ShapeError(f"x must be (groups, rows, length), not of shape {tuple(x.shape)}")
    if coarse_range is not None and (coarse_range.dim() != 1 or coarse_range.shape[0] not in (1, x.shape[0])):
        raise ShapeError(
            f"coarse_range must be one value or one per group ({x.shape[0]}), not of shape {tuple(coarse_range.shape)}"
        )


@torch.library.impl(NAME, "default")
def _eager(x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str) -> Tensor:
    return eager.fake_quantize(x, coarse_range, parse_format(format), share, scale_mode)


@torch.library.register_fake(NAME)  # type: ignore[untyped-decorator]  # torch.library is not typed
def _fake(x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _straight_through(ctx: object, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    return grad, None, None, None, None


torch.library.register_autograd(NAME, _straight_through)
