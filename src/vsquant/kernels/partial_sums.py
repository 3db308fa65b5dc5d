"""Eqs. (7)-(8) by per-vector partial sums: the exact integer S of layers whose scale products are rounded."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from vsquant.errors import SpecError

BLOCK_ELEMENTS: Final = 1 << 22
FLOAT32_EXACT: Final = 1 << 24
FLOAT64_EXACT: Final = 1 << 53


class PartialSumOperand(NamedTuple):
    """Integer codes (rows, vectors, V) and integer vector scales (rows, vectors) of one operand."""

    codes: Tensor
    vector_scale: Tensor


def partial_sums(a: PartialSumOperand, w: PartialSumOperand, *, shift: int, product_bits: int) -> Tensor:
    """S_nk = sum_j rho(sigma_a * sigma_w) * sum_i q_a * q_w as float64 (rows_a, rows_w), every value an exact integer.

    ``shift`` is eq. (8)'s d; with d = 0 nothing is rounded. Rows of ``a`` are taken in blocks to bound the memory.

    Raises:
        SpecError: one vector's dot product could exceed the integers that float32 holds exactly.
    """
    codes_w = w.codes.to(torch.float32).permute(1, 2, 0).contiguous()
    scale_w = w.vector_scale.to(torch.float32).t().unsqueeze(1)
    vectors, size, outputs = codes_w.shape
    _require_exact(a.codes, w.codes, size)
    sums = torch.empty(a.codes.shape[0], outputs, dtype=torch.float64, device=a.codes.device)
    rows = max(1, BLOCK_ELEMENTS // max(1, vectors * outputs))
    for start in range(0, a.codes.shape[0], rows):
        block = slice(start, start + rows)
        codes_a = a.codes[block].to(torch.float32).transpose(0, 1)
        scale_a = a.vector_scale[block].to(torch.float32).t().unsqueeze(2)
        product = round_product(scale_a * scale_w, shift, product_bits)
        sums[block] = torch.bmm(codes_a, codes_w).double().mul_(product).sum(dim=0)
    return sums


def round_product(product: Tensor, shift: int, product_bits: int) -> Tensor:
    """Eq. (8): rho(p) = min(floor((p + 2^(d-1)) / 2^d), 2^P - 1) on exact integers kept as float32; p where d = 0."""
    if shift == 0:
        return product
    half, inverse = 2.0 ** (shift - 1), 2.0**-shift
    return product.add_(half).mul_(inverse).floor_().clamp_(max=2.0**product_bits - 1)


def _require_exact(a: Tensor, w: Tensor, size: int) -> None:
    """int8 codes reach 127 (128 under ``-full``), int16 ones 255: they hold 8-bit unsigned codes."""
    largest_a, largest_w = (128 if codes.dtype == torch.int8 else 255 for codes in (a, w))
    bound = size * largest_a * largest_w
    if bound >= FLOAT32_EXACT:
        raise SpecError(f"a vector's dot product must stay below 2^24 to be exact, not reach {bound}: use a smaller V")
