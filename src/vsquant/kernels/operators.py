"""Quantization as operators of PyTorch: ``vsquant::fake_quantize`` and ``vsquant::quantize``, and what they refuse.

The schemas are fixed. Behind them stand the eager kernels for every device and, where the native library is loaded,
its kernels for the CPU; both give the same bits. Formats travel as texts (`format_text`), so that an exported graph
reads ``fake_quantize(x, A, "4u-s6-v16", "group", "requantize")``. Comparison formats and scale mode ``best-of-three``
have operators of their own, which are eager everywhere.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from vsquant.errors import ShapeError, SpecError
from vsquant.kernels import eager, native
from vsquant.kernels.format_text import format_text, parse_format
from vsquant.reference.integer_formats import check_scale_mode
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat
from vsquant.spec.layer import ScaleMode

Share: TypeAlias = Literal["group", "row"]
"""Which vectors share gamma: those of a whole group (a sample, an output channel, a head) or of each row (a token)."""

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
"""What the operators take; others are converted to float32 and back around them."""

_ARGUMENTS: Final = "Tensor x, Tensor? coarse_range, str format, str share, str scale_mode"
_SCHEMAS: Final = {
    "fake_quantize": f"({_ARGUMENTS}) -> Tensor",
    "fake_quantize.out": f"({_ARGUMENTS}, *, Tensor(a!) out) -> ()",  # one that returned `out` could not be compiled
    "quantize": f"({_ARGUMENTS}) -> (Tensor codes, Tensor vector_scale, Tensor coarse_scale)",
    "quantize.out": (
        f"({_ARGUMENTS}, *, Tensor(a!) out_codes, Tensor(b!) out_vector_scale, Tensor(c!) out_coarse_scale) -> ()"
    ),
    "fake_quantize_comparison": "(Tensor x, str format, str share) -> Tensor",
    "fake_quantize_best_of_three": "(Tensor x, Tensor? coarse_range, str format, str share) -> Tensor",
    "quantize_best_of_three": (
        "(Tensor x, Tensor? coarse_range, str format, str share) -> "
        "(Tensor codes, Tensor vector_scale, Tensor coarse_scale)"
    ),
}
for _name, _schema in _SCHEMAS.items():
    torch.library.define(f"vsquant::{_name}", _schema, tags=(torch.Tag.pt2_compliant_tag,))


def fake_quantize(
    x: Tensor,
    fmt: TensorFormat,
    *,
    share: Share = "group",
    coarse_range: Tensor | None = None,
    scale_mode: ScaleMode = "requantize",
    out: Tensor | None = None,
) -> Tensor:
    """Quantize and dequantize, eqs. (1)-(6): x^ with the shape and dtype of ``x``, computed in float32.

    ``x`` is (groups, rows, length) with vectors along ``length``; ``coarse_range`` is the calibrated range A > 0 of
    eq. (4), float32 of shape (1,) or (groups,), and makes gamma static. The gradient is straight-through. ``out``, of
    the shape and dtype of ``x`` and contiguous, takes the result; it may be ``x`` itself, and it takes no gradient.

    Raises:
        ShapeError: ``x`` is not three-dimensional, ``coarse_range`` has neither one value nor one per group, or
            ``out`` does not fit ``x``.
        NonFiniteError: ``x`` holds NaN or Inf.
        ScaleRangeError: a scale kept as fp16 would be zero, subnormal or infinite.
        SpecError: ``scale_mode`` is not defined for ``fmt``, or a gradient is asked of ``out``.
    """
    _check_shapes(x, coarse_range)
    if out is not None:
        _check_out(out, x)
    if x.dtype not in DTYPES:
        y = fake_quantize(x.to(torch.float32), fmt, share=share, coarse_range=coarse_range, scale_mode=scale_mode)
        return y.to(x.dtype) if out is None else out.copy_(y)
    text = format_text(fmt)
    if isinstance(fmt, FloatFormat):
        y = torch.ops.vsquant.fake_quantize_comparison(x, text, share)
        return y if out is None else out.copy_(y)
    scale_mode = _scale_mode_of(fmt, scale_mode)
    if scale_mode == "best-of-three":
        y = torch.ops.vsquant.fake_quantize_best_of_three(x, coarse_range, text, share)
        return y if out is None else out.copy_(y)
    try:
        if out is not None:
            torch.ops.vsquant.fake_quantize.out(x, coarse_range, text, share, scale_mode, out=out)
            return out
        result: Tensor = torch.ops.vsquant.fake_quantize.default(x, coarse_range, text, share, scale_mode)
    except ValueError as error:
        raise native.translated(error) from None
    return result


def quantize(
    x: Tensor,
    fmt: IntegerFormat,
    *,
    share: Share = "group",
    coarse_range: Tensor | None = None,
    scale_mode: ScaleMode = "requantize",
    out: eager.QuantizedTensor | None = None,
) -> eager.QuantizedTensor:
    """Codes and scales of eqs. (1)-(5) for ``x`` (groups, rows, length); arguments and errors as `fake_quantize`.

    Codes are int8, uint8 where they are 8-bit unsigned; integer vector scales are int16. ``out`` is such a result, and
    takes this one.
    """
    _check_shapes(x, coarse_range)
    scale_mode = _scale_mode_of(fmt, scale_mode)
    x = x.detach() if x.dtype in DTYPES else x.detach().to(torch.float32)
    if scale_mode == "best-of-three":
        return _best_of_three(x, coarse_range, fmt, share, out)
    arguments = (x, coarse_range, format_text(fmt), share, scale_mode)
    try:
        if out is not None:
            codes, vector_scale, coarse_scale = _plain(out)
            torch.ops.vsquant.quantize.out(
                *arguments, out_codes=codes, out_vector_scale=vector_scale, out_coarse_scale=coarse_scale
            )
            return out
        codes, vector_scale, coarse_scale = torch.ops.vsquant.quantize.default(*arguments)
    except ValueError as error:
        raise native.translated(error) from None
    return eager.QuantizedTensor(
        codes, vector_scale if fmt.has_vectors else None, coarse_scale if fmt.has_coarse_scale else None
    )


def _best_of_three(
    x: Tensor, coarse_range: Tensor | None, fmt: IntegerFormat, share: Share, out: eager.QuantizedTensor | None
) -> eager.QuantizedTensor:
    found = torch.ops.vsquant.quantize_best_of_three(x, coarse_range, format_text(fmt), share)
    if out is None:
        return eager.QuantizedTensor(*found)
    for given, result in zip(_plain(out), found, strict=True):
        given.copy_(result)
    return out


def _plain(quantized: eager.QuantizedTensor) -> tuple[Tensor, Tensor, Tensor]:
    """As operators pass a result: an empty tensor stands for scales that a format has not."""
    codes, vector_scale, coarse_scale = quantized
    none = codes.new_empty(0, dtype=torch.float32)
    return codes, none if vector_scale is None else vector_scale, none.clone() if coarse_scale is None else coarse_scale


def _check_shapes(x: Tensor, coarse_range: Tensor | None) -> None:
    if x.dim() != 3:
        raise ShapeError(f"x must be (groups, rows, length), not of shape {tuple(x.shape)}")
    if coarse_range is not None and (coarse_range.dim() != 1 or coarse_range.shape[0] not in (1, x.shape[0])):
        raise ShapeError(
            f"coarse_range must be one value or one per group ({x.shape[0]}), not of shape {tuple(coarse_range.shape)}"
        )


def _scale_mode_of(fmt: IntegerFormat, scale_mode: ScaleMode) -> ScaleMode:
    """The scale mode that operators are told: without integer vector scales there are no three to choose from."""
    check_scale_mode(fmt, scale_mode)
    if scale_mode == "search":
        raise SpecError(
            "scale_mode must be 'paper' or 'requantize', not 'search', which is for weights; use search_scales"
        )
    return "requantize" if scale_mode == "best-of-three" and not fmt.two_level else scale_mode


def _check_out(out: Tensor, x: Tensor) -> None:
    if out.shape != x.shape or out.dtype != x.dtype or not out.is_contiguous():
        raise ShapeError(
            f"out must be contiguous and {x.dtype} of shape {tuple(x.shape)} as x is, "
            f"not {out.dtype} of shape {tuple(out.shape)} with strides {out.stride()}"
        )
    if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
        raise SpecError("out must not be given where a gradient is wanted; leave it out, or use torch.no_grad()")


def _integer_format(text: str) -> IntegerFormat:
    fmt = parse_format(text)
    if not isinstance(fmt, IntegerFormat):
        raise SpecError(f"a tensor format must have integer elements here, not those of {fmt.name!r}")
    return fmt


@torch.library.impl("vsquant::fake_quantize", "default")
def _fake_quantize(x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str) -> Tensor:
    return eager.fake_quantize(x, coarse_range, _integer_format(format), share, scale_mode)


@torch.library.impl("vsquant::fake_quantize.out", "default")
def _fake_quantize_out(
    x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str, *, out: Tensor
) -> None:
    out.copy_(eager.fake_quantize(x, coarse_range, _integer_format(format), share, scale_mode))


def _eager_quantize(
    x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str
) -> tuple[Tensor, Tensor, Tensor]:
    codes, scale, coarse = _plain(eager.quantize(x, coarse_range, _integer_format(format), share, scale_mode))
    return codes, scale, coarse.contiguous()


@torch.library.impl("vsquant::quantize", "default")
def _quantize(
    x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str
) -> tuple[Tensor, Tensor, Tensor]:
    return _eager_quantize(x, coarse_range, format, share, scale_mode)


@torch.library.impl("vsquant::quantize.out", "default")
def _quantize_out(
    x: Tensor,
    coarse_range: Tensor | None,
    format: str,
    share: str,
    scale_mode: str,
    *,
    out_codes: Tensor,
    out_vector_scale: Tensor,
    out_coarse_scale: Tensor,
) -> None:
    results = _plain(eager.quantize(x, coarse_range, _integer_format(format), share, scale_mode))
    given = (("out_codes", out_codes), ("out_vector_scale", out_vector_scale), ("out_coarse_scale", out_coarse_scale))
    for (name, out), result in zip(given, results, strict=True):
        if out.shape != result.shape or out.dtype != result.dtype:
            raise ShapeError(
                f"{name} must be {result.dtype} of shape {tuple(result.shape)}, not {out.dtype} {tuple(out.shape)}"
            )
        out.copy_(result)


@torch.library.impl("vsquant::fake_quantize_comparison", "default")
def _fake_quantize_comparison(x: Tensor, format: str, share: str) -> Tensor:
    fmt = parse_format(format)
    if not isinstance(fmt, FloatFormat):
        raise SpecError(f"a comparison format must read like 'mxfp4:e2m1-e8m0-v32', not {format!r}")
    return eager.fake_quantize(x, None, fmt, share, "requantize")


@torch.library.impl("vsquant::fake_quantize_best_of_three", "default")
def _fake_quantize_best_of_three(x: Tensor, coarse_range: Tensor | None, format: str, share: str) -> Tensor:
    return eager.fake_quantize(x, coarse_range, _integer_format(format), share, "best-of-three")


@torch.library.impl("vsquant::quantize_best_of_three", "default")
def _quantize_best_of_three(
    x: Tensor, coarse_range: Tensor | None, format: str, share: str
) -> tuple[Tensor, Tensor, Tensor]:
    return _eager_quantize(x, coarse_range, format, share, "best-of-three")


@torch.library.register_fake("vsquant::fake_quantize")  # type: ignore[untyped-decorator]  # torch.library is not typed
def _fake_quantize_shape(x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.register_fake("vsquant::fake_quantize.out")  # type: ignore[untyped-decorator]
def _fake_quantize_out_shape(
    x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str, *, out: Tensor
) -> None:
    pass


@torch.library.register_fake("vsquant::quantize.out")  # type: ignore[untyped-decorator]
def _quantize_out_shapes(
    x: Tensor,
    coarse_range: Tensor | None,
    format: str,
    share: str,
    scale_mode: str,
    *,
    out_codes: Tensor,
    out_vector_scale: Tensor,
    out_coarse_scale: Tensor,
) -> None:
    pass


@torch.library.register_fake("vsquant::quantize")  # type: ignore[untyped-decorator]
def _quantize_shapes(
    x: Tensor, coarse_range: Tensor | None, format: str, share: str, scale_mode: str
) -> tuple[Tensor, Tensor, Tensor]:
    fmt = _integer_format(format)
    groups, rows, length = x.shape
    size = fmt.vector_size or length
    vectors = (length + size - 1) // size if fmt.has_vectors or length != 0 else 0
    codes = x.new_empty((groups, rows, vectors, size), dtype=eager.code_dtype(fmt))
    scale_dtype = torch.int16 if fmt.two_level else torch.float32
    vector_scale = x.new_empty((groups, rows, vectors) if fmt.has_vectors else (0,), dtype=scale_dtype)
    per_row = share == "row" and (coarse_range is None or (not fmt.has_vectors and fmt.full_range))
    coarse = x.new_empty((groups, rows if per_row else 1) if fmt.has_coarse_scale else (0,), dtype=torch.float32)
    return codes, vector_scale, coarse


@torch.library.register_fake("vsquant::fake_quantize_comparison")  # type: ignore[untyped-decorator]
def _fake_quantize_comparison_shape(x: Tensor, format: str, share: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.register_fake("vsquant::fake_quantize_best_of_three")  # type: ignore[untyped-decorator]
def _fake_quantize_best_of_three_shape(x: Tensor, coarse_range: Tensor | None, format: str, share: str) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.register_fake("vsquant::quantize_best_of_three")  # type: ignore[untyped-decorator]
def _quantize_best_of_three_shapes(
    x: Tensor, coarse_range: Tensor | None, format: str, share: str
) -> tuple[Tensor, Tensor, Tensor]:
    shapes: tuple[Tensor, Tensor, Tensor] = _quantize_shapes(x, coarse_range, format, share, "best-of-three")
    return shapes


def _straight_through(ctx: object, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
    return grad, None, None, None, None


def _straight_through_best_of_three(ctx: object, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return grad, None, None, None


def _straight_through_comparison(ctx: object, grad: Tensor) -> tuple[Tensor, None, None]:
    return grad, None, None


torch.library.register_autograd("vsquant::fake_quantize", _straight_through)
torch.library.register_autograd("vsquant::fake_quantize_best_of_three", _straight_through_best_of_three)
torch.library.register_autograd("vsquant::fake_quantize_comparison", _straight_through_comparison)
