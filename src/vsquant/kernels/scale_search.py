"""The operator ``vsquant::search_scales``: the vector scales and codes of least squared error under a given gamma.

Scale mode ``search`` of the definition, for formats with integer vector scales: sigma_j is the smallest of the argmin
over 1..top of sum_i h_i (x_ij - x^_ij)^2, in float64 and index order; codes follow by eq. (3) with fl(sigma*gamma).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vsquant.errors import ShapeError, SpecError
from vsquant.kernels import eager
from vsquant.kernels.format_text import format_text, parse_format
from vsquant.kernels.numerics import BLOCK_ELEMENTS, pad_tail, require_finite
from vsquant.kernels.vector_errors import codes as vector_codes
from vsquant.kernels.vector_errors import squared_error
from vsquant.spec.formats import IntegerFormat

torch.library.define(
    "vsquant::search_scales",
    "(Tensor x, Tensor coarse_scale, Tensor? importance, str format) -> "
    "(Tensor codes, Tensor vector_scale, Tensor error)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


class SearchedScales(NamedTuple):
    """Codes (groups, rows, vectors, V), sigma and the float64 error of each vector (groups, rows, vectors)."""

    codes: Tensor
    vector_scale: Tensor
    error: Tensor


def search_scales(
    x: Tensor, fmt: IntegerFormat, coarse_scale: Tensor, importance: Tensor | None = None
) -> SearchedScales:
    """The vector scales of least error, for ``x`` (groups, rows, length) with vectors along ``length``.

    ``coarse_scale`` is gamma, (groups,); ``importance`` is h, (1 or groups, length), finite and not negative, 1 where
    it is not given. The error of a vector is sum_i h_i (x_i - x^_i)^2.

    Raises:
        SpecError: ``fmt`` has no integer vector scales.
        ShapeError: an argument does not fit ``x``, or a weight of ``importance`` is negative, NaN or Inf.
        NonFiniteError: ``x`` or ``coarse_scale`` holds NaN or Inf.
    """
    if not fmt.two_level:
        raise SpecError(f"scales can be searched where they are integers (-sM), not {fmt.scale}")
    _check_shapes(x, coarse_scale, importance)
    x, coarse_scale = x.detach().to(torch.float32), coarse_scale.to(torch.float32)
    require_finite(x)
    require_finite(coarse_scale)
    weights = None if importance is None else importance.to(torch.float64)
    if weights is not None and not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise ShapeError("importance must be finite and not negative")
    codes, sigma, error = torch.ops.vsquant.search_scales.default(x, coarse_scale, weights, format_text(fmt))
    return SearchedScales(codes, sigma, error)


def _check_shapes(x: Tensor, coarse_scale: Tensor, importance: Tensor | None) -> None:
    if x.dim() != 3:
        raise ShapeError(f"x must be (groups, rows, length), not of shape {tuple(x.shape)}")
    if coarse_scale.shape != x.shape[:1]:
        raise ShapeError(f"coarse_scale must be one per group ({x.shape[0]}), not of shape {tuple(coarse_scale.shape)}")
    allowed = ((1, x.shape[2]), (x.shape[0], x.shape[2]))
    if importance is not None and tuple(importance.shape) not in allowed:
        raise ShapeError(f"importance must be of shape {allowed[0]} or {allowed[1]}, not {tuple(importance.shape)}")


@torch.library.impl("vsquant::search_scales", "default")
def _search_scales(
    x: Tensor, coarse_scale: Tensor, importance: Tensor | None, format: str
) -> tuple[Tensor, Tensor, Tensor]:
    fmt = parse_format(format)
    assert isinstance(fmt, IntegerFormat) and fmt.vector_size is not None
    padded = pad_tail(x.contiguous(), fmt.vector_size)
    shape = (*padded.shape[:2], padded.shape[2] // fmt.vector_size)
    vectors = padded.view(-1, fmt.vector_size)
    gamma = coarse_scale.view(-1, 1, 1).expand(shape).reshape(-1)
    h = None if importance is None else _vectors_of(importance, shape, fmt.vector_size)
    codes = torch.empty_like(vectors, dtype=eager.code_dtype(fmt))
    sigma = torch.empty_like(gamma, dtype=torch.int16)
    error = torch.empty_like(gamma, dtype=torch.float64)
    for block in _blocks(len(vectors), fmt.vector_size):
        elements, weights = vectors[block].t().contiguous(), None if h is None else h[block].t().contiguous()
        best, error[block] = _search(elements, gamma[block], weights, fmt)
        sigma[block] = torch.where(gamma[block] > 0, best, fmt.scale_min)
        codes[block] = vector_codes(elements, best * gamma[block], fmt).t()
    return codes.view(*shape, fmt.vector_size), sigma.view(shape), error.view(shape)


def _vectors_of(importance: Tensor, shape: tuple[int, ...], size: int) -> Tensor:
    """(all vectors, V) of h, expanded without being copied where it can be."""
    padded = pad_tail(importance, size).view(-1, 1, shape[2], size)
    return padded.expand(*shape, size).reshape(-1, size)


def _blocks(count: int, size: int) -> Iterator[slice]:
    step = max(1, BLOCK_ELEMENTS // size // 4)  # float64 and temporaries
    return (slice(start, start + step) for start in range(0, count, step))


def _search(x: Tensor, gamma: Tensor, h: Tensor | None, fmt: IntegerFormat) -> tuple[Tensor, Tensor]:
    """The smallest best sigma (as float32) and its error of every column of ``x`` (V, vectors)."""
    best, least = torch.ones_like(gamma), torch.full_like(gamma, torch.inf, dtype=torch.float64)
    for candidate in range(1, fmt.scale_top + 1):
        error = squared_error(x, gamma * candidate, h, fmt)
        better = error < least
        best, least = torch.where(better, candidate, best), torch.where(better, error, least)
    return best, least


@torch.library.register_fake("vsquant::search_scales")  # type: ignore[untyped-decorator]  # torch.library is not typed
def _search_scales_shapes(
    x: Tensor, coarse_scale: Tensor, importance: Tensor | None, format: str
) -> tuple[Tensor, Tensor, Tensor]:
    fmt = parse_format(format)
    assert isinstance(fmt, IntegerFormat) and fmt.vector_size is not None
    groups, rows, length = x.shape
    shape = (groups, rows, -(-length // fmt.vector_size))
    return (
        x.new_empty((*shape, fmt.vector_size), dtype=eager.code_dtype(fmt)),
        x.new_empty(shape, dtype=torch.int16),
        x.new_empty(shape, dtype=torch.float64),
    )
