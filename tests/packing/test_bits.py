"""Bit streams against their definition in Python's own integers, exhaustively where small, and back."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsquant.errors import PackingError
from vsquant.packing import (
    codes_shape,
    pack_codes,
    pack_vector_scale,
    packed_shapes,
    unpack_codes,
    unpack_vector_scale,
    why_not_packed,
)
from vsquant.packing.bits import pack_bits, stream_bytes, unpack_bits
from vsquant.spec import IntegerFormat, LayerSpec
from vsquant.spec.formats import MAX_SCALE_BITS, MIN_ELEMENT_BITS

W4S4 = IntegerFormat(bits=4, scale=4)
WIDTHS = range(MIN_ELEMENT_BITS, MAX_SCALE_BITS + 1)


def pack(codes, scale, fmt, shape):
    """Both streams of a weight, the second None where vector scales are no integers."""
    return pack_codes(codes, fmt, shape), None if scale is None else pack_vector_scale(scale, fmt, shape)


def _stream(numbers, bits):
    """The definition: Σ n_i·2^(i·b) in little-endian bytes."""
    total = sum((int(number) % 2**bits) << (i * bits) for i, number in enumerate(numbers))
    return list(total.to_bytes(stream_bytes(len(numbers), bits), "little"))


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("count", range(20))
def test_streams_are_their_definition(bits, count):
    numbers = np.random.default_rng(count).integers(0, 2**bits, size=(5, count), dtype=np.uint16)
    packed = pack_bits(numbers, bits)
    assert packed.dtype == np.uint8
    assert packed.tolist() == [_stream(row, bits) for row in numbers]
    unpacked = unpack_bits(packed, bits, count)
    assert unpacked.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert np.array_equal(unpacked, numbers)


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_pair_of_neighbours(bits):
    first, second = (grid.reshape(-1) for grid in np.meshgrid(*2 * [np.arange(2**bits, dtype=np.uint16)]))
    packed = pack_bits(np.stack([first, second], axis=1), bits)
    expected = first.astype(np.uint32) + (second.astype(np.uint32) << bits)
    for j in range(packed.shape[1]):
        assert np.array_equal(packed[:, j], expected >> 8 * j & 0xFF)
    assert np.array_equal(unpack_bits(packed, bits, 2), np.stack([first, second], axis=1))


@pytest.mark.parametrize(
    ("fmt", "codes", "scale", "stored"),
    [
        (W4S4, [1, -1, 7, -7, 0, 3], [9], ([0xF1, 0x97, 0x30], [0x09])),
        (
            IntegerFormat(bits=3, scale=6, vector_size=2),
            [1, -1, 3, -3, 2],
            [1, 63, 32],
            ([0xF9, 0x2A], [0xC1, 0x0F, 2]),
        ),
        (
            IntegerFormat(bits=8, scale=10, vector_size=2),
            [-127, 5, 0, 1, 2, 3],
            [1, 1023, 512],
            ([0x81, 5, 0, 1, 2, 3], [0x01, 0xFC, 0x0F, 0x20]),
        ),
        (
            IntegerFormat(bits=2, scale=2, vector_size=2, full_range=True, scale_top_pow2=True),
            [-2, -1, 0, 1],
            [4, 1],
            ([0b01_00_11_10], [0b00_11]),
        ),
    ],
)
def test_bytes_worked_out_by_hand(fmt, codes, scale, stored):
    shape = (1, len(codes))
    padded = np.zeros(codes_shape(fmt, shape), np.int8)
    padded.reshape(-1)[: len(codes)] = codes
    packed, packed_scale = pack(padded, np.array([scale], np.int16), fmt, shape)
    assert (packed.tolist(), packed_scale.tolist()) == ([stored[0]], [stored[1]])
    assert np.array_equal(unpack_codes(packed, fmt, shape), padded)
    assert unpack_vector_scale(packed_scale, fmt, shape).tolist() == [scale]


def test_a_convolution_runs_through_kernel_positions_and_then_channels():
    shape = (1, 3, 2, 2)
    codes = np.zeros((1, 2, 2, 1, 16), np.int8)
    codes[..., :3] = np.arange(-6, 6).reshape(1, 2, 2, 1, 3)
    scale = np.arange(1, 5, dtype=np.int16).reshape(1, 2, 2, 1)
    packed, packed_scale = pack(codes, scale, W4S4, shape)
    assert packed.tolist() == [_stream(range(-6, 6), 4)] == [[0xBA, 0xDC, 0xFE, 0x10, 0x32, 0x54]]
    assert packed_scale.tolist() == [[0x21, 0x43]]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("scale", WIDTHS)
@pytest.mark.parametrize("vector", [16, 32, 64])
def test_an_element_takes_n_plus_m_over_v_bits(bits, scale, vector):
    fmt = IntegerFormat(bits=bits, scale=scale, vector_size=vector)
    shape = (8, 8 * vector, 3, 3)
    codes, scales = (math.prod(part) for part in packed_shapes(fmt, shape))
    assert 8 * (codes + scales) / math.prod(shape) == bits + scale / vector == fmt.bits_per_element


@st.composite
def _weights(draw):
    scale = draw(st.sampled_from([None, "fp16", *WIDTHS]))
    integer = isinstance(scale, int)
    signed = draw(st.booleans())
    fmt = IntegerFormat(
        bits=draw(st.integers(2, 8)),
        signed=signed,
        scale=scale,
        vector_size=None if scale is None else draw(st.integers(2, 20)),
        full_range=signed and draw(st.booleans()),
        scale_top_pow2=integer and draw(st.booleans()),
    )
    kernel = draw(st.lists(st.integers(0, 3), max_size=2))
    return fmt, (draw(st.integers(0, 4)), draw(st.integers(0, 40)), *kernel), draw(st.integers(0, 99))


@given(_weights())
def test_unpack_is_the_inverse(make_codes, weight):
    fmt, shape, seed = weight
    codes, scale = make_codes(fmt, codes_shape(fmt, shape), seed)
    codes.reshape(*codes.shape[:-2], math.prod(codes.shape[-2:]))[..., shape[1] :] = 0
    packed, packed_scale = pack(codes, scale, fmt, shape)
    assert (packed.shape, None if packed_scale is None else packed_scale.shape) == packed_shapes(fmt, shape)
    back = unpack_codes(packed, fmt, shape)
    assert back.dtype == codes.dtype and np.array_equal(back, codes)
    if scale is not None:
        assert np.array_equal(unpack_vector_scale(packed_scale, fmt, shape), scale)


def test_comparison_formats_are_refused_by_name():
    for name in ("nvfp4", "mxfp4", "mxint8", "int4-g128"):
        assert why_not_packed(LayerSpec.parse(name).weight) == f"{name} is a comparison format, which is simulated only"
    assert why_not_packed(W4S4) is None
    with pytest.raises(PackingError, match="must have a packed layout, but nvfp4 is a comparison format"):
        pack_codes(np.zeros((1, 1, 16), np.int8), LayerSpec.parse("nvfp4").weight, (1, 16))


CODES = np.ones((2, 1, 16), np.int8)
SCALE = np.ones((2, 1), np.int16)


@pytest.mark.parametrize(
    ("codes", "scale", "shape", "message"),
    [
        (CODES * 8, SCALE, (2, 16), "codes must be from -7 to 7, not 8"),
        (CODES, SCALE * 16, (2, 16), "vector_scale must be from 0 to 15, not 16"),
        (CODES, -SCALE, (2, 16), "vector_scale must be from 0 to 15, not -1"),
        (CODES, SCALE, (2, 15), "codes must be zero where tails are padded"),
        (CODES, SCALE, (2, 17), r"codes must be \(2, 2, 16\), not \(2, 1, 16\)"),
        (CODES, SCALE, (2,), r"the weight's shape must be \(K, C, kernel...\), not \(2,\)"),
        (CODES, SCALE, (2, -16), r"the weight's shape must be \(K, C, kernel...\), not \(2, -16\)"),
        (CODES * 1.0, SCALE, (2, 16), "codes must be integers, not float64"),
        (CODES, SCALE[:1], (2, 16), r"vector_scale must be \(2, 1\), not \(1, 1\)"),
    ],
)
def test_what_cannot_be_packed_is_refused(codes, scale, shape, message):
    with pytest.raises(PackingError, match=message):
        pack(codes, scale, W4S4, shape)


def test_streams_that_no_codes_give_are_refused():
    fmt = IntegerFormat(bits=4, scale=None, vector_size=None)
    packed = pack_codes(CODES[..., :1] * 0, fmt, (2, 1))
    for stream, message in (
        (packed + np.uint8(0x10), "packed codes must end in zero bits"),
        (packed + np.uint8(0x08), "codes must be from -7 to 7, not -8"),
        (packed.view(np.int8), "packed codes must be uint8, not int8"),
        (packed[:, :0], r"packed codes must be \(2, 1\), not \(2, 0\)"),
    ):
        with pytest.raises(PackingError, match=message):
            unpack_codes(stream, fmt, (2, 1))
    with pytest.raises(PackingError, match="packed vector_scale must end in zero bits"):
        unpack_vector_scale(np.full((1, 1), 0x10, np.uint8), W4S4, (1, 16))
    with pytest.raises(PackingError, match="vector scales must be integers to be packed, not None"):
        unpack_vector_scale(packed, fmt, (2, 1))
    with pytest.raises(PackingError, match="vector scales must be integers to be packed, not 'fp16'"):
        pack_vector_scale(SCALE, IntegerFormat(bits=4, scale="fp16"), (2, 16))


def test_absurd_shapes_are_refused_before_memory_is_taken():
    stream = np.zeros((2, 8), np.uint8)
    for shape in ((2, 10**30), (10**12, 16), (2, 16, 10**9), (2, 1, 10**6, 10**6)):
        with pytest.raises(PackingError, match="packed codes must be"):
            unpack_codes(stream, W4S4, shape)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_a_large_weight_is_packed_and_unpacked_in_well_under_two_seconds(make_codes, bits):
    fmt = IntegerFormat(bits=bits, scale=4)
    codes, scale = make_codes(fmt, (4096, 688, 16))
    start = time.process_time()
    streams = pack(codes, scale, fmt, (4096, 11008))
    unpack_codes(streams[0], fmt, (4096, 11008)), unpack_vector_scale(streams[1], fmt, (4096, 11008))
    assert time.process_time() - start < 2
