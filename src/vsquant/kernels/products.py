"""The eager backend of integer products: S of eqs. (7)-(8) exactly, by floating-point products that cannot round.

Codes times their vector scales are integers, and so is every partial sum of a product of two such matrices. Where the
widths of the formats (eq. 9) say that no sum reaches 2^24 or 2^53, float32 or float64 products are exact in whatever
order they add; longer reductions are cut and their parts added as int64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor

from vsquant.kernels.numerics import pad_tail, split_dim
from vsquant.kernels.partial_sums import PartialSumOperand, partial_sums
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.widths import max_reduction_length, product_shift

FLOAT32_BITS: Final = 25
"""Two's complement width whose every integer float32 holds: 24 bits and a sign."""
FLOAT64_BITS: Final = 54
HALF_PRECISION_INTEGERS: Final = 256
"""Integers up to here survive the bfloat16 or TF32 that PyTorch may be told to take for float32 operands."""
_PART_ELEMENTS: Final = 1 << 22


class Formats(NamedTuple):
    """The formats of both operands, and P of eq. (8) if there is one."""

    activation: IntegerFormat
    weight: IntegerFormat
    product_bits: int | None

    @property
    def integer_sums(self) -> bool:
        """Whether S is an integer: no floating-point vector scale anywhere."""
        return not any(isinstance(fmt.scale, str) for fmt in (self.activation, self.weight))

    @property
    def shift(self) -> int:
        """Eq. (8)'s d; 0 where scale products are exact."""
        return product_shift(self.weight, self.activation, self.product_bits)

    def longest(self, width_bits: int) -> int:
        """Most elements whose S fits ``width_bits``."""
        return max_reduction_length(self.weight, self.activation, self.product_bits, width_bits)

    def exact_dtype(self, length: int) -> torch.dtype:
        """The float of folded operands: float32 where it holds every partial sum over ``length`` elements."""
        if not self.integer_sums or length > self.longest(FLOAT32_BITS):
            return torch.float64
        largest = max(max(fmt.qmax, -fmt.qmin) * fmt.scale_top for fmt in (self.activation, self.weight))
        return torch.float32 if largest <= HALF_PRECISION_INTEGERS else torch.float64


class Operand(NamedTuple):
    """Codes (..., rows, vectors, V) and vector scales (..., rows, vectors), None where there are none; V is the whole
    length where a format has no vectors.
    """

    codes: Tensor
    scale: Tensor | None

    @property
    def length(self) -> int:
        """Elements of a row, padding included."""
        return self.codes.shape[-1] * self.codes.shape[-2]

    def first(self, vectors: int) -> Operand:
        """The first vectors of every row."""
        return Operand(self.codes[..., :vectors, :], None if self.scale is None else self.scale[..., :vectors])


def fold(operand: Operand, dtype: torch.dtype, length: int) -> Tensor:
    """q*sigma, or q*s, of the first ``length`` elements: (..., rows, length)."""
    values = operand.codes.to(dtype)
    if operand.scale is not None:
        values = values * operand.scale.to(dtype).unsqueeze(-1)
    return values.flatten(-2)[..., :length]


def product_sums(a: Operand, w: Operand, formats: Formats) -> Tensor:
    """fl(S), float32 (..., rows_a, rows_w); the operands' lengths may differ by zeros that pad them.

    With fp16 or fp32 vector scales S is no integer, but a float64 sum: see `scaled_sums`.
    """
    if formats.shift:
        return rounded_sums(a, w, formats)
    if not formats.integer_sums:
        return scaled_sums(a, w, formats)
    length = min(a.length, w.length)
    dtype = formats.exact_dtype(length)
    right = fold(w, dtype, length)
    sums = a.codes.new_empty(*a.codes.shape[:-2], w.codes.shape[-3], dtype=torch.float32)
    for rows in row_parts(a.codes.shape[-3], math.prod(sums.shape[:-2]) * sums.shape[-1]):
        part = Operand(a.codes[..., rows, :, :], None if a.scale is None else a.scale[..., rows, :])
        sums[..., rows, :] = folded_sums(fold(part, dtype, length), right, formats)
    return sums


def folded_sums(left: Tensor, right: Tensor, formats: Formats) -> Tensor:
    """fl(S) of folded operands (..., rows_a, length) and (..., rows_w, length), cut where float64 would round."""
    length = left.shape[-1]
    longest = formats.longest(FLOAT64_BITS)
    if length <= longest:
        return (left @ right.transpose(-1, -2)).to(torch.float32)
    parts = (slice(start, start + longest) for start in range(0, length, longest))
    products = [(left[..., part] @ right[..., part].transpose(-1, -2)).to(torch.int64) for part in parts]
    return torch.stack(products).sum(dim=0).to(torch.float32)


def rounded_sums(a: Operand, w: Operand, formats: Formats) -> Tensor:
    """fl(S) with scale products rounded by eq. (8): partial sums, group by group where there are groups."""
    if a.codes.dim() > 3:
        if len(a.codes) == 0:
            return a.codes.new_empty(0, a.codes.shape[1], w.codes.shape[1], dtype=torch.float32)
        pairs = zip(_groups(a), _groups(w), strict=True)
        return torch.stack([rounded_sums(left, right, formats) for left, right in pairs])
    assert a.scale is not None and w.scale is not None and formats.product_bits is not None
    vectors, size = a.codes.shape[1:]
    longest = formats.longest(FLOAT64_BITS) // size
    parts = [
        partial_sums(
            PartialSumOperand(a.codes[:, part], a.scale[:, part]),
            PartialSumOperand(w.codes[:, part], w.scale[:, part]),
            shift=formats.shift,
            product_bits=formats.product_bits,
        )
        for part in (slice(start, start + longest) for start in range(0, vectors, longest))
    ]
    if len(parts) == 1:
        return parts[0].to(torch.float32)
    return torch.stack([part.to(torch.int64) for part in parts]).sum(dim=0).to(torch.float32)


def scaled_sums(a: Operand, w: Operand, formats: Formats) -> Tensor:
    """fl(S) under floating-point vector scales: (s_a * s_w) * (sum of q_a * q_w) in float64, added vector after vector,
    every operation rounded. The inner sums are exact, and so is each product of two float32 scales.
    """
    size = formats.activation.vector_size or formats.weight.vector_size
    assert size is not None
    (left, scale_a), (right, scale_w) = _by_vectors(a, size), _by_vectors(w, size)
    vectors = min(left.shape[-2], right.shape[-2])  # beyond lies padding
    sums = a.codes.new_zeros(*left.shape[:-2], right.shape[-3], dtype=torch.float64)
    for v in range(vectors):
        partial = left[..., v, :].double() @ right[..., v, :].double().transpose(-1, -2)
        sums += partial.mul_(scale_a[..., v].unsqueeze(-1) * scale_w[..., v].unsqueeze(-2))
    return sums.to(torch.float32)


def _by_vectors(operand: Operand, size: int) -> tuple[Tensor, Tensor]:
    """Codes (..., rows, vectors, V) and float64 scales (..., rows, vectors), ones where the operand has no vectors."""
    if operand.scale is not None:
        return operand.codes, operand.scale.double()
    codes = pad_tail(operand.codes.flatten(-2), size)
    codes = split_dim(codes, codes.dim() - 1, (codes.shape[-1] // size, size))
    return codes, codes.new_ones(codes.shape[:-1], dtype=torch.float64)


def row_parts(rows: int, outputs: int) -> Iterator[slice]:
    """Slices of rows whose outputs, ``outputs`` a row, fill a block of memory."""
    step = max(1, _PART_ELEMENTS // max(1, outputs))
    return (slice(start, start + step) for start in range(0, rows, step))


def _groups(operand: Operand) -> Iterator[Operand]:
    assert operand.scale is not None
    return (Operand(codes, scale) for codes, scale in zip(operand.codes, operand.scale, strict=True))
