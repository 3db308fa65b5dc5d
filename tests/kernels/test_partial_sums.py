"""Per-vector partial sums: exact integers, whatever the widths, the blocks and the threads."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from vsquant.kernels import PartialSumOperand, partial_sums
from vsquant.reference import round_product


def operand(rows: int, vectors: int, size: int, *, code: int, sigma: int, dtype: torch.dtype, seed: int):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-code if dtype == torch.int8 else 0, code + 1, (rows, vectors, size))
    return PartialSumOperand(
        torch.from_numpy(codes).to(dtype),
        torch.from_numpy(rng.integers(0, sigma + 1, (rows, vectors))).to(torch.int16),
    )


def expected(a: PartialSumOperand, w: PartialSumOperand, shift: int, bits: int) -> np.ndarray:
    """Eqs. (7)-(8) in int64."""
    dots = np.einsum("njv,kjv->njk", a.codes.numpy().astype(np.int64), w.codes.numpy().astype(np.int64))
    products = a.vector_scale.numpy().astype(np.int64)[:, :, None] * w.vector_scale.numpy().astype(np.int64).T[None]
    rounded = np.stack([round_product(p, shift, bits) for p in products]) if len(products) else products
    return (dots * rounded).sum(axis=1)


@pytest.mark.parametrize(("shift", "bits"), [(0, 20), (4, 6), (9, 1), (1, 9)])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
@pytest.mark.parametrize(("n", "k", "vectors", "size"), [(1, 1, 1, 2), (7, 5, 3, 16), (0, 5, 3, 4), (4, 0, 3, 4)])
def test_sums_are_exact(n, k, vectors, size, dtype, shift, bits):
    a = operand(n, vectors, size, code=127 if dtype == torch.int8 else 255, sigma=63, dtype=dtype, seed=1)
    w = operand(k, vectors, size, code=127, sigma=15, dtype=torch.int8, seed=2)
    sums = partial_sums(a, w, shift=shift, product_bits=bits)
    assert sums.dtype == torch.float64
    np.testing.assert_array_equal(sums.numpy(), expected(a, w, shift, bits))


@pytest.mark.parametrize("size", [256, 257, 1024])
def test_vectors_too_long_for_float32_are_summed_exactly_too(size):
    codes = torch.full((2, 3, size), 255, dtype=torch.uint8)
    codes[0, 0, 0] = 254
    ones = PartialSumOperand(codes, torch.full((2, 3), 1023, dtype=torch.int16))
    np.testing.assert_array_equal(
        partial_sums(ones, ones, shift=0, product_bits=20).numpy(), expected(ones, ones, 0, 20)
    )


def test_rows_in_blocks_give_the_same_sums(monkeypatch):
    module = sys.modules["vsquant.kernels.partial_sums"]
    a = operand(50, 4, 8, code=7, sigma=63, dtype=torch.int8, seed=3)
    w = operand(6, 4, 8, code=7, sigma=15, dtype=torch.int8, seed=4)
    whole = partial_sums(a, w, shift=4, product_bits=6)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 7 * 24)
    assert torch.equal(partial_sums(a, w, shift=4, product_bits=6), whole)
