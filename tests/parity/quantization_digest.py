"""Prints a digest of everything quantization gives on a grid of formats, shapes, dtypes and numbers.

Run by test_instruction_sets.py once per instruction set; equal lines mean equal bits. Large tensors are quantized by
one thread and by two.
Usage: python quantization_digest.py [eager]
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterable

import torch

from vsquant import kernels
from vsquant.errors import ScaleRangeError
from vsquant.kernels import eager
from vsquant.spec.formats import IntegerFormat

SCALES = [(None, None), *itertools.product((2, 4, 6, 10, "fp16", "fp32"), (16, 48)), (4, 8), (5, 3)]
SHAPES = [(1, 1, 16), (2, 3, 40), (3, 2, 257), (9, 1, 272)]
LARGE_SHAPES = [(1, 20, 4096), (2, 300, 70)]
"""Several pieces for the threads to share."""


def formats() -> list[IntegerFormat]:
    """Every kind of element and scale, with and without the options."""
    result = []
    for (bits, signed), (scale, size) in itertools.product(
        [(2, True), (4, True), (8, True), (4, False), (8, False)], SCALES
    ):
        plain = {"bits": bits, "signed": signed, "scale": scale, "vector_size": size}
        result.append(IntegerFormat(**plain))
        if signed and bits == 4:
            options = {"coarse_fp16": not isinstance(scale, str), "scale_top_pow2": isinstance(scale, int)}
            result.append(IntegerFormat(**plain, full_range=True, **options))
    return result


def large_formats() -> list[IntegerFormat]:
    """One for every path through the kernels."""
    plain = IntegerFormat(bits=8, signed=False, scale=None, vector_size=None)
    return [
        plain,
        *(IntegerFormat(bits=4, scale=scale, vector_size=size) for scale, size in ((4, 16), ("fp32", 32), (6, 5))),
    ]


def inputs() -> list[torch.Tensor]:
    """Tensors of the shapes: normal, halves with zeros of both signs, and magnitudes from subnormal to large."""
    result = []
    for seed, shape in enumerate(SHAPES):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        spread = torch.randint(-140, 100, shape, generator=torch.Generator().manual_seed(seed))
        result += [x, (x * 4).round() / 2, torch.ldexp(x, spread), x.to(torch.bfloat16), x.to(torch.float16)]
    return result


def results(x: torch.Tensor, fmt: IntegerFormat, mode: str, *, plain: bool) -> list[torch.Tensor | None]:
    """Codes, scales and values for every kind of gamma; outputs begin as NaN. ``plain``: from the eager kernels."""
    found: list[torch.Tensor | None] = []
    for share, range_ in (("group", None), ("row", None), ("group", torch.tensor([1.5]))):
        options = {"share": share, "coarse_range": range_, "scale_mode": mode}
        try:
            if plain:
                found += eager.fake_quantize(x, range_, fmt, share, mode), *eager.quantize(x, range_, fmt, share, mode)
            else:
                out = torch.full_like(x, torch.nan)
                found += kernels.fake_quantize(x, fmt, **options, out=out), *kernels.quantize(x, fmt, **options)
        except ScaleRangeError:
            found.append(None)
    return found


def bytes_of(x: torch.Tensor | None) -> bytes:
    """Dtype, shape and elements, zeros of both signs apart."""
    if x is None:
        return b"none"
    return f"{x.dtype} {tuple(x.shape)}".encode() + x.contiguous().view(torch.uint8).numpy().tobytes()


def digest(pairs: Iterable[tuple[torch.Tensor, IntegerFormat]], threads: int) -> str:
    """Of all that the formats make of the tensors."""
    torch.set_num_threads(threads)
    found = hashlib.sha256()
    for x, fmt in pairs:
        for mode in ("requantize",) if fmt.scale_top_pow2 else ("requantize", "paper"):
            for tensor in results(x, fmt, mode, plain="eager" in sys.argv):
                found.update(bytes_of(tensor))
    return found.hexdigest()


def main() -> None:
    """Digest the whole grid."""
    large = [torch.randn(shape, generator=torch.Generator().manual_seed(9)) for shape in LARGE_SHAPES]
    one, two = (digest(itertools.product(large, large_formats()), threads) for threads in (1, 2))
    assert one == two, "two threads must give the bits of one"
    sys.stdout.write(digest(itertools.product(inputs(), formats()), 1) + one)


if __name__ == "__main__":
    main()
