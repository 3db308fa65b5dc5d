"""Eqs. (7)-(8) by per-vector partial sums: the exact integer S of layers whose scale products are rounded."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

BLOCK_ELEMENTS: Final = 1 << 22
FLOAT32_EXACT: Final = 1 << 24


class PartialSumOperand(NamedTuple):
    """Integer codes (rows, vectors, V) and integer vector scales (rows, vectors) of one operand."""

    codes: Tensor
    vector_scale: Tensor


def partial_sums(a: PartialSumOperand, w: PartialSumOperand, *, shift: int, product_bits: int) -> Tensor:
    """S_nk = sum_j rho(sigma_a * sigma_w) * sum_i q_a * q_w as float64 (rows_a, rows_w), every value an exact integer.

    ``shift`` is eq. (8)'s d; with d = 0 nothing is rounded. Rows of ``a`` are taken in blocks to bound the memory.
    """
    dtype = _exact_dtype(a.codes.dtype, w.codes.dtype, w.codes.shape[-1])
    codes_w = w.codes.to(dtype).permute(1, 2, 0).contiguous()
    scale_w = w.vector_scale.to(torch.float32).t().unsqueeze(1)
    vectors, _, outputs = codes_w.shape
    sums = torch.empty(a.codes.shape[0], outputs, dtype=torch.float64, device=a.codes.device)
    rows = max(1, BLOCK_ELEMENTS // max(1, vectors * outputs))
    for start in range(0, a.codes.shape[0], rows):
        block = slice(start, start + rows)
        codes_a = a.codes[block].to(dtype).transpose(0, 1)
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


def _exact_dtype(a: torch.dtype, w: torch.dtype, size: int) -> torch.dtype:
    """The float that holds a vector's dot product: int8 codes reach 128, uint8 ones 255."""
    largest_a, largest_w = (128 if codes == torch.int8 else 255 for codes in (a, w))
    return torch.float32 if size * largest_a * largest_w <= FLOAT32_EXACT else torch.float64
