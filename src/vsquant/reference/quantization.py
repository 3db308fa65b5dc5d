"""`quantize`: the one entry for every tensor format."""

from __future__ import annotations

from typing import overload

from vsquant.errors import SpecError
from vsquant.reference.float_formats import FloatQuantized, quantize_float
from vsquant.reference.integer_formats import Importance, PerGroup, Quantized, Rows, Share, quantize_integer
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat
from vsquant.spec.layer import ScaleMode


@overload
def quantize(
    x: Rows,
    fmt: IntegerFormat,
    share: Share = "row",
    scale_mode: ScaleMode = "requantize",
    *,
    coarse_range: PerGroup | float | None = None,
    importance: Importance | None = None,
    name: str = "x",
) -> Quantized: ...


@overload
def quantize(
    x: Rows,
    fmt: FloatFormat,
    share: Share = "row",
    scale_mode: ScaleMode = "requantize",
    *,
    coarse_range: None = None,
    importance: None = None,
    name: str = "x",
) -> FloatQuantized: ...


def quantize(
    x: Rows,
    fmt: TensorFormat,
    share: Share = "row",
    scale_mode: ScaleMode = "requantize",
    *,
    coarse_range: PerGroup | float | None = None,
    importance: Importance | None = None,
    name: str = "x",
) -> Quantized | FloatQuantized:
    """Quantize float32 ``x`` (rows, length) to codes (rows, vectors, V), vector scales and coarse scales.

    Integer formats follow eqs. (1)-(5), see `quantize_integer`; comparison formats their own standards, see
    `quantize_float`, for which ``scale_mode`` has no meaning. ``share`` says whether a coarse scale serves a row or the
    whole tensor, ``coarse_range`` is the calibrated range A of eq. (4), ``importance`` is h of scale mode ``search``.

    Raises:
        ShapeError, NonFiniteError, ScaleRangeError, SpecError: as the two functions say.
    """
    if isinstance(fmt, IntegerFormat):
        return quantize_integer(x, fmt, share, scale_mode, coarse_range=coarse_range, importance=importance, name=name)
    if coarse_range is not None:
        raise SpecError(f"coarse_range must be None for {fmt.name}: its scales come from the values themselves")
    if importance is not None:
        raise SpecError(f"importance must be None for {fmt.name}: its scales are not searched")
    return quantize_float(x, fmt, share, name=name)
