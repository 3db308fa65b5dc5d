"""The kernels, native and eager, give the reference's codes, scales and values, whatever the format and the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from vsquant import kernels, reference
from vsquant.errors import ScaleRangeError
from vsquant.kernels import eager, native
from vsquant.kernels.eager import BLOCK_ELEMENTS
from vsquant.spec.comparison import COMPARISON_FORMATS, NVFP4
from vsquant.spec.formats import IntegerFormat

F32 = np.float32
TINY, HUGE = F32(2.0**-149), np.finfo(F32).max
SPECIAL = [0.0, -0.0, TINY, -TINY, 2.0**-126, 2.0**-127 * 1.5, HUGE, -HUGE, 1.0, -1.0, 0.5, 7.0, 127.0, 65504.0, 1e-30]
COMPARISON = sorted({pair[0] for pair in COMPARISON_FORMATS.values()}, key=lambda fmt: fmt.name)
REPEATABLE = {"derandomize": True, "deadline": None, "database": None}


class Eager:
    """The eager kernels, called as the operators are: with the native library these run its kernels."""

    @staticmethod
    def quantize(x, fmt, *, share, scale_mode, coarse_range):
        return eager.quantize(x, coarse_range, fmt, share, scale_mode)

    @staticmethod
    def fake_quantize(x, fmt, *, share, scale_mode, coarse_range):
        return eager.fake_quantize(x, coarse_range, fmt, share, scale_mode)


BACKENDS = [kernels, Eager] if native.status().available else [kernels]


@st.composite
def integer_formats(draw: st.DrawFn) -> IntegerFormat:
    """Every combination of options that a tensor can have."""
    scale = draw(st.sampled_from([None, "fp16", "fp32", *range(2, 11)]))
    signed = draw(st.booleans())
    return IntegerFormat(
        bits=draw(st.integers(2, 8)),
        signed=signed,
        scale=scale,
        vector_size=None if scale is None else draw(st.sampled_from([2, 3, 4, 7, 16, 32])),
        full_range=signed and draw(st.booleans()),
        scale_top_pow2=isinstance(scale, int) and draw(st.booleans()),
        coarse_fp16=not isinstance(scale, str) and draw(st.booleans()),
    )


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    """(groups, rows, length): any float32, drawn one by one or in bulk around several magnitudes."""
    shape = (draw(st.integers(0, 3)), draw(st.integers(0, 4)), draw(st.integers(0, 40)))
    if np.prod(shape) <= 60:
        elements = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(SPECIAL)
        return draw(arrays_of.arrays(F32, shape, elements=elements))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.standard_normal(shape) * 2.0 ** draw(st.sampled_from([-145, -138, -120, -20, 0, 0, 0, 3, 100]))
    x *= 2.0 ** rng.integers(-6, 7, shape) if draw(st.booleans()) else 1
    x = np.where(rng.random(shape) < draw(st.sampled_from([0, 0.3])), 0, x).astype(F32)
    return x.view(np.uint32).__and__(0xFFFF0000).view(F32) if draw(st.booleans()) else x


@st.composite
def ranges(draw: st.DrawFn, x: np.ndarray) -> np.ndarray | None:
    """No calibrated range, or one that saturates, fits, or is far too large; one value or one per group."""
    if not len(x) or draw(st.booleans()):
        return None
    count = draw(st.sampled_from([1, len(x)]))
    largest = float(np.abs(x).max(initial=0)) or 1.0
    factors = draw(st.lists(st.sampled_from([0.01, 0.5, 1.0, 3.0, 1e4]), min_size=count, max_size=count))
    return np.clip(np.array([largest * f for f in factors]), TINY, HUGE).astype(F32)


def by_group(x: np.ndarray, fmt: object, share: str, mode: str, range_: np.ndarray | None) -> list:
    """The reference on each group: a group is the reference's tensor."""
    each = [None] * len(x) if range_ is None else np.broadcast_to(range_, len(x))
    how = "tensor" if share == "group" else "row"
    options = [{} if limit is None else {"coarse_range": float(limit)} for limit in each]
    return [reference.quantize(rows, fmt, how, mode, **kw) for rows, kw in zip(x, options, strict=True)]


def assert_same_bits(ours: torch.Tensor, theirs: np.ndarray) -> None:
    assert ours.dtype == torch.float32 and ours.shape == theirs.shape
    np.testing.assert_array_equal(
        ours.contiguous().numpy().view(np.uint32), np.ascontiguousarray(theirs).view(np.uint32)
    )


def assert_same_values(ours: torch.Tensor, theirs: np.ndarray) -> None:
    """Equal numbers; a zero of a comparison format may differ in its sign."""
    assert ours.dtype == torch.float32 and ours.shape == theirs.shape
    np.testing.assert_array_equal(ours.numpy(), theirs)


def assert_parity(x: np.ndarray, fmt: IntegerFormat, share: str, mode: str, range_: np.ndarray | None) -> None:
    tensor = torch.from_numpy(x)
    options = {"share": share, "scale_mode": mode, "coarse_range": None if range_ is None else torch.from_numpy(range_)}
    try:
        expected = by_group(x, fmt, share, mode, range_)
    except ScaleRangeError:
        expected = None
    for backend in BACKENDS:
        if expected is None:
            for refused in (backend.quantize, backend.fake_quantize):
                with pytest.raises(ScaleRangeError, match=r"fp16 must lie between 2\^-14 and 65504"):
                    refused(tensor, fmt, **options)
        else:
            ours = backend.quantize(tensor, fmt, **options)
            assert_equal(ours, backend.fake_quantize(tensor, fmt, **options), expected, x.shape[2])


def assert_equal(ours: kernels.QuantizedTensor, values: torch.Tensor, expected: list, length: int) -> None:
    restored = kernels.dequantize(ours, length)
    assert len(ours.codes) == len(values) == len(expected)
    for group, theirs in enumerate(expected):
        assert_equal_group(ours, group, theirs)
        assert_same_bits(values[group], theirs.dequantize())
        assert_same_bits(restored[group], theirs.dequantize())


def assert_equal_group(ours: kernels.QuantizedTensor, group: int, theirs: reference.Quantized) -> None:
    if ours.codes[group].numel():
        np.testing.assert_array_equal(ours.codes[group].numpy(), theirs.codes)
    for mine, other in ((ours.vector_scale, theirs.vector_scale), (ours.coarse_scale, theirs.coarse_scale)):
        assert (mine is None) == (other is None)
        if mine is None or not ours.codes[group].numel():
            continue
        if other.dtype == np.int32:
            assert mine.dtype == torch.int16
            np.testing.assert_array_equal(mine[group].numpy(), other)
        else:
            assert_same_bits(mine[group].expand(other.shape), other)


@settings(max_examples=2000, **REPEATABLE)
@given(data=st.data(), fmt=integer_formats(), x=tensors(), share=st.sampled_from(["group", "row"]))
def test_any_format_on_any_tensor(data, fmt, x, share):
    mode = data.draw(st.sampled_from(["requantize"] if fmt.scale_top_pow2 else ["requantize", "paper"]))
    range_ = data.draw(ranges(x)) if share == "group" else None
    assert_parity(x, fmt, share, mode, range_)


@settings(max_examples=800, **REPEATABLE)
@given(x=tensors(), fmt=st.sampled_from(COMPARISON), share=st.sampled_from(["group", "row"]))
@example(x=np.full((1, 1, 3), -TINY), fmt=NVFP4, share="group")
@example(x=np.full((1, 1, 3), 4000 * TINY), fmt=NVFP4, share="group")
def test_comparison_formats_on_any_tensor(x, fmt, share):
    try:
        expected = by_group(x, fmt, share, "requantize", None)
    except ScaleRangeError:
        with pytest.raises(ScaleRangeError, match=r"fp16 must lie between 2\^-14 and 65504"):
            kernels.fake_quantize(torch.from_numpy(x), fmt, share=share)
        return
    values = kernels.fake_quantize(torch.from_numpy(x), fmt, share=share)
    for group, theirs in enumerate(expected):
        assert_same_values(values[group], theirs.dequantize())


S4 = IntegerFormat(bits=4, scale=4)
LARGE_FORMATS = [
    S4,
    IntegerFormat(bits=4, signed=False, scale=6, vector_size=32),
    IntegerFormat(bits=3, scale="fp16", vector_size=64),
    IntegerFormat(bits=8, signed=False, scale=None, vector_size=None),
    IntegerFormat(bits=6, scale=4, full_range=True, scale_top_pow2=True, coarse_fp16=True),
    *COMPARISON,
]
"""Formats that take different paths through the kernels."""


@pytest.mark.parametrize("fmt", LARGE_FORMATS, ids=str)
def test_tensors_of_several_cache_blocks(fmt):
    x = np.random.default_rng(0).standard_normal((2, 45, 3333)).astype(F32)
    assert x.size > BLOCK_ELEMENTS
    values = kernels.fake_quantize(torch.from_numpy(x), fmt)
    for group, theirs in enumerate(by_group(x, fmt, "group", "requantize", None)):
        assert_same_values(values[group], theirs.dequantize())
        if isinstance(fmt, IntegerFormat):
            assert_equal_group(kernels.quantize(torch.from_numpy(x), fmt), group, theirs)


def test_rows_longer_than_a_cache_block():
    fmt = IntegerFormat(bits=8, scale=None, vector_size=None)
    assert_parity(
        np.random.default_rng(1).standard_normal((1, 2, BLOCK_ELEMENTS + 5)).astype(F32), fmt, "row", "paper", None
    )


def every_bfloat16() -> np.ndarray:
    """All finite bfloat16 values as (1, 255, 256) float32, neighbours of one magnitude side by side."""
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    values = bits.view(F32)
    return values[np.isfinite(values)].reshape(1, 255, 256)


@pytest.mark.parametrize("mode", ["paper", "requantize"])
@pytest.mark.parametrize("share", ["group", "row"])
@pytest.mark.parametrize(
    "fmt",
    [
        S4,
        IntegerFormat(bits=2, scale=2, vector_size=4),
        IntegerFormat(bits=8, signed=False, scale=10, vector_size=2),
        IntegerFormat(bits=6, scale=None, vector_size=None),
        IntegerFormat(bits=4, scale="fp32"),
        IntegerFormat(bits=4, scale=4, full_range=True),
    ],
    ids=str,
)
def test_every_bfloat16_value(fmt, share, mode):
    assert_parity(every_bfloat16(), fmt, share, mode, None)
    if share == "group":
        assert_parity(every_bfloat16(), fmt, share, mode, np.array([3.0], dtype=F32))


@pytest.mark.parametrize("fmt", [fmt for fmt in COMPARISON if fmt.block_scale != "fp16"], ids=str)
@pytest.mark.parametrize("share", ["group", "row"])
def test_every_bfloat16_value_in_comparison_formats(fmt, share):
    (expected,) = by_group(every_bfloat16(), fmt, share, "requantize", None)
    values = kernels.fake_quantize(torch.from_numpy(every_bfloat16()), fmt, share=share)
    assert_same_values(values[0], expected.dequantize())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("fmt", [*LARGE_FORMATS, replace(S4, scale_top_pow2=True)], ids=str)
def test_other_dtypes_are_computed_in_float32_and_cast_at_the_end(fmt, dtype):
    x = torch.randn(3, 5, 150, generator=torch.Generator().manual_seed(3)).to(dtype)
    values = kernels.fake_quantize(x, fmt)
    assert values.dtype == dtype
    expected = np.stack([q.dequantize() for q in by_group(x.float().numpy(), fmt, "group", "requantize", None)])
    assert torch.equal(values, torch.from_numpy(expected).to(dtype))
