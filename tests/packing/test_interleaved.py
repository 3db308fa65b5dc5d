"""The interleaved layout against its written definition, index by index, and back."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsquant.errors import PackingError
from vsquant.packing import deinterleave, interleave, is_depthwise, weight_sums, why_not_interleaved
from vsquant.spec import IntegerFormat, LayerSpec
from vsquant.spec.formats import MAX_ELEMENT_BITS, MAX_SCALE_BITS, MIN_ELEMENT_BITS, MIN_SCALE_BITS

W4S4 = IntegerFormat(bits=4, scale=4)
W8 = IntegerFormat(bits=8, vector_size=None, scale=None)
FP16 = IntegerFormat(bits=4, scale="fp16")
SCALES = [None, *range(MIN_SCALE_BITS, MAX_SCALE_BITS + 1)]


def _element(block, channel, element, fmt):
    """The code that products.hpp finds for one channel and one element of a block."""
    if fmt.bits <= 4:
        h, rest = divmod(element, 8)
        byte = int(block[h * 64 + channel * 4 + rest % 4])
        return (byte >> 4 if rest >= 4 else byte & 15) - 8
    return int(block[element // 4 * 64 + channel * 4 + element % 4])


@pytest.fixture(scope="session")
def make_weight(make_codes):
    """Codes and vector scales as `make_codes`, and float scales where the format has such."""

    def make(fmt, shape, seed=0):
        codes, scale = make_codes(fmt, shape, seed)
        if isinstance(fmt.scale, str):
            scale = np.random.default_rng(seed).integers(1, 2048, size=shape[:-1]).astype(np.float32) / 1024
        return codes, scale

    return make


def _scale(stored, channel, fmt):
    if fmt.scale <= 4:
        byte = int(stored[channel % 8])
        return (byte >> 4 if channel >= 8 else byte & 15) + fmt.scale_min
    return int(stored[channel]) + fmt.scale_min


@pytest.mark.parametrize(
    ("bits", "scale", "top"),
    [
        (bits, scale, top)
        for bits in range(MIN_ELEMENT_BITS, MAX_ELEMENT_BITS + 1)
        for scale in SCALES
        for top in (False, True)
        if scale is not None or not top
    ],
)
def test_every_code_and_scale_lies_where_the_page_says(make_codes, bits, scale, top):
    vector = None if scale is None else 32
    fmt = IntegerFormat(bits=bits, scale=scale, vector_size=vector, full_range=top, scale_top_pow2=top)
    groups, outputs, positions, channels = 2, 36, 3, 40
    vectors, size = (1, channels) if vector is None else (2, vector)
    codes, sigma = make_codes(fmt, (outputs, positions, vectors, size))
    packed = interleave(codes, sigma, fmt, groups=groups)
    padded = np.zeros((outputs, positions, -(-vectors * size // 16) * 16), np.int64)
    padded[..., : vectors * size] = codes.reshape(outputs, positions, -1)
    blocks = padded.shape[-1] // 16
    assert packed.codes.shape == (4, positions * blocks, 128 if bits <= 4 else 256)
    for k, r, c in product(range(outputs), range(positions), range(padded.shape[-1])):
        group, inside = divmod(k, outputs // groups)
        panel = group * 2 + inside // 16
        assert _element(packed.codes[panel, r * blocks + c // 16], inside % 16, c % 16, fmt) == padded[k, r, c]
    if scale is None:
        assert packed.vector_scale.shape == (0,)
        return
    for k, r, j in product(range(outputs), range(positions), range(vectors)):
        group, inside = divmod(k, outputs // groups)
        stored = packed.vector_scale[group * 2 + inside // 16, r * vectors + j]
        assert _scale(stored, inside % 16, fmt) == sigma[k, r, j]


@pytest.mark.parametrize("scale", [4, "fp16", "fp32"])
@pytest.mark.parametrize("bits", [4, 7])
@pytest.mark.parametrize("size", [5, 24])
def test_vectors_of_other_sizes_are_padded_to_whole_blocks(make_weight, size, bits, scale):
    fmt = IntegerFormat(bits=bits, scale=scale, vector_size=size)
    wide = IntegerFormat(bits=bits, scale=scale, vector_size=-(-size // 16) * 16)
    codes, sigma = make_weight(fmt, (20, 3, 2, size))
    padded = np.pad(codes, ((0, 0), (0, 0), (0, 0), (0, wide.vector_size - size)))
    ours, theirs = interleave(codes, sigma, fmt), interleave(padded, sigma, wide)
    assert ours.codes.shape == (2, 3 * 2 * wide.vector_size // 16, 128 if bits <= 4 else 256)
    assert np.array_equal(ours.codes, theirs.codes)
    assert np.array_equal(ours.vector_scale, theirs.vector_scale)
    assert np.array_equal(ours.sums, theirs.sums)


@pytest.mark.parametrize(("scale", "dtype"), [("fp16", np.float16), ("fp32", np.float32)])
def test_float_scales_lie_channel_by_channel(make_weight, scale, dtype):
    fmt = IntegerFormat(bits=4, scale=scale)
    codes, scales = make_weight(fmt, (36, 3, 2, 16))
    packed = interleave(codes, scales, fmt, groups=2)
    assert packed.vector_scale.dtype == dtype
    assert packed.vector_scale.shape == (4, 6, 16)
    for k, r, j in product(range(36), range(3), range(2)):
        group, inside = divmod(k, 18)
        assert packed.vector_scale[group * 2 + inside // 16, r * 2 + j, inside % 16] == dtype(scales[k, r, j])
    assert packed.sums.tolist() == codes.reshape(36, -1).sum(1).tolist()


def test_the_pages_example():
    codes = np.arange(16, dtype=np.int8).reshape(1, 1, 16) % 15 - 7
    packed = interleave(codes, np.array([[11]], np.int16), W4S4)
    assert packed.codes[0, 0, :4].tolist() == [0x51, 0x62, 0x73, 0x84]
    assert packed.codes[0, 0, 4:8].tolist() == [0x88] * 4
    assert packed.codes[0, 0, 64:68].tolist() == [0xD9, 0xEA, 0xFB, 0x1C]
    assert packed.vector_scale.tolist() == [[[11, 0, 0, 0, 0, 0, 0, 0]]]
    assert packed.sums.tolist() == [int(codes.sum()) * 11]


def test_padding_is_zero_codes_and_stored_zeros(make_codes):
    codes, scale = make_codes(W4S4, (3, 1, 16))
    packed = interleave(codes, scale, W4S4)
    assert (packed.codes.reshape(2, 16, 4)[:, 3:] == 0x88).all()
    assert (packed.vector_scale[0, 0, 3:] == 0).all() and (packed.vector_scale[0, 0, :3] < 16).all()
    top = IntegerFormat(bits=5, scale=4, scale_top_pow2=True)
    codes, scale = make_codes(top, (3, 1, 16))
    packed = interleave(codes, scale, top)
    assert (packed.codes.reshape(4, 16, 4)[:, 3:] == 0).all() and (packed.vector_scale[0, 0, 3:] == 0).all()


@pytest.mark.parametrize("shape", [(16, 1, 16), (1, 1, 1), (7, 3, 3, 1, 5), (5, 0, 0), (0, 1, 16), (4, 2, 1, 17)])
def test_arrays_start_on_a_register_boundary(make_codes, shape):
    codes, _ = make_codes(W8, shape)
    packed = interleave(codes, None, W8)
    for array in (packed.codes, packed.sums):
        assert (array.ctypes.data % 64 == 0 or not array.size) and array.flags.c_contiguous
    back, none = deinterleave(packed.codes, packed.vector_scale, W8, shape)
    assert none is None and back.dtype == np.int8
    assert np.array_equal(back, codes)


def test_depthwise_weights_have_a_row_for_each_kernel_position(make_codes):
    codes, _ = make_codes(W8, (20, 3, 2, 1, 1))
    assert is_depthwise(codes.shape, 20) and not is_depthwise(codes.shape, 1)
    packed = interleave(codes, None, W8, groups=20)
    assert packed.codes.shape == (6, 32) and packed.codes.dtype == np.int8
    for k, r, s in product(range(20), range(3), range(2)):
        assert packed.codes[2 * r + s, k] == codes[k, r, s, 0, 0]
    assert not packed.codes[:, 20:].any()
    assert np.array_equal(packed.sums, codes.reshape(20, -1).sum(-1))
    back, _ = deinterleave(packed.codes, packed.vector_scale, W8, codes.shape, groups=20)
    assert np.array_equal(back, codes)


@st.composite
def _weights(draw):
    scale = draw(st.sampled_from([*SCALES, "fp16", "fp32"]))
    vector = None if scale is None else draw(st.sampled_from([2, 5, 8, 16, 20, 32, 48]))
    top = isinstance(scale, int) and draw(st.booleans())
    fmt = IntegerFormat(
        bits=draw(st.integers(2, 8)),
        scale=scale,
        vector_size=vector,
        full_range=draw(st.booleans()),
        scale_top_pow2=top,
    )
    groups = draw(st.integers(1, 3))
    vectors, size = (1, draw(st.integers(1, 40))) if vector is None else (draw(st.integers(1, 3)), vector)
    kernel = draw(st.lists(st.integers(1, 3), max_size=2))
    return fmt, (groups * draw(st.integers(1, 35)), *kernel, vectors, size), groups, draw(st.integers(0, 99))


@given(_weights())
def test_deinterleave_is_the_inverse(make_weight, weight):
    fmt, shape, groups, seed = weight
    codes, scale = make_weight(fmt, shape, seed)
    packed = interleave(codes, scale, fmt, groups=groups)
    back, back_scale = deinterleave(packed.codes, packed.vector_scale, fmt, shape, groups=groups)
    assert np.array_equal(back, codes)
    assert (back_scale is None) == (scale is None) and (scale is None or np.array_equal(back_scale, scale))


def test_sums_wrap_at_32_bits():
    codes = np.full((1, 70_000, 32), -127, np.int8)
    scale = np.full((1, 70_000), 1023, np.int16)
    exact = -127 * 32 * 1023 * 70_000
    assert weight_sums(codes, scale).tolist() == [(exact + 2**31) % 2**32 - 2**31]


def test_a_large_weight_is_interleaved_in_well_under_two_seconds(make_codes):
    codes, scale = make_codes(W4S4, (4096, 688, 16))
    start = time.process_time()
    interleave(codes, scale, W4S4)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("fmt", "reason"),
    [
        (W4S4, None),
        (W8, None),
        (IntegerFormat(bits=4, scale=4, vector_size=48), None),
        (IntegerFormat(bits=4, scale=4, vector_size=8), None),
        (IntegerFormat(bits=4, scale="fp16"), None),
        (IntegerFormat(bits=4, scale=4, signed=False), "weights must be signed"),
        (LayerSpec.parse("nvfp4").weight, "nvfp4 is a comparison format, which is simulated only"),
    ],
)
def test_what_has_no_interleaved_layout_says_why(fmt, reason):
    assert why_not_interleaved(fmt) == reason


def _ones(*shape, dtype=np.int8):
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("arguments", "fmt", "groups", "message"),
    [
        ((_ones(4, 1, 16) * 8, _ones(4, 1)), W4S4, 1, "codes must be from -7 to 7, not 8"),
        ((_ones(4, 1, 16) * -8, _ones(4, 1)), W4S4, 1, "codes must be from -7 to 7, not -8"),
        ((_ones(4, 1, 16), _ones(4, 1) * 16), W4S4, 1, "vector_scale must be from 0 to 15, not 16"),
        ((_ones(4, 1, 16), None), W4S4, 1, "vector_scale must be given for 4-bit vector scales, not None"),
        ((_ones(4, 1, 16), _ones(4, 2)), W4S4, 1, r"vector_scale must be \(4, 1\), not \(4, 2\)"),
        ((_ones(4, 1, 16), _ones(4, 1, dtype=float)), W4S4, 1, "vector_scale must be integers, not float64"),
        ((_ones(4, 1, 16, dtype=np.float32), _ones(4, 1)), W4S4, 1, "codes must be integers, not float32"),
        ((_ones(4, 1, 16), _ones(4, 1)), W8, 1, r"vector_scale must be None where vector scales are no integers"),
        ((_ones(4, 1, 16), None), FP16, 1, "vector_scale must be given for fp16 vector scales, not None"),
        ((_ones(4, 1, 16), _ones(4, 1)), FP16, 1, "vector_scale must be floats, not int8"),
        ((_ones(4, 1, 16), _ones(4, 2, dtype=float)), FP16, 1, r"vector_scale must be \(4, 1\), not \(4, 2\)"),
        (
            (_ones(4, 1, 8), _ones(4, 1)),
            W4S4,
            1,
            r"codes must be \(K, kernel..., vectors, V\), V = 16, not \(4, 1, 8\)",
        ),
        ((_ones(4, 2, 8), None), W8, 1, r"V = C, one vector, not \(4, 2, 8\)"),
        ((_ones(4, 16), _ones(4)), W4S4, 1, r"codes must be \(K, kernel..., vectors, V\), not \(4, 16\)"),
        ((_ones(4, 1, 16), _ones(4, 1)), W4S4, 3, "groups must divide 4 channels, not be 3"),
        ((_ones(4, 1, 16), _ones(4, 1)), W4S4, 0, "groups must divide 4 channels, not be 0"),
        (
            (_ones(4, 1, 16), _ones(4, 1)),
            IntegerFormat(bits=4, scale=4, signed=False),
            1,
            "the weight must have an interleaved layout, but weights must be signed",
        ),
    ],
)
def test_what_cannot_be_interleaved_is_refused(arguments, fmt, groups, message):
    with pytest.raises(PackingError, match=message):
        interleave(*arguments, fmt, groups=groups)


def test_arrays_of_another_shape_are_refused(make_codes):
    codes, scale = make_codes(W4S4, (17, 2, 16))
    packed = interleave(codes, scale, W4S4)
    with pytest.raises(PackingError, match=r"interleaved codes must be \(1, 2, 128\), not \(2, 2, 128\)"):
        deinterleave(packed.codes, packed.vector_scale, W4S4, (16, 2, 16))
    with pytest.raises(PackingError, match=r"interleaved vector_scale must be \(2, 2, 8\), not \(0,\)"):
        deinterleave(packed.codes, np.empty(0, np.uint8), W4S4, codes.shape)
    with pytest.raises(PackingError, match="interleaved codes must be uint8, not int8"):
        deinterleave(packed.codes.view(np.int8), packed.vector_scale, W4S4, codes.shape)
    with pytest.raises(PackingError, match="codes must be from -7 to 7, not -8"):
        deinterleave(packed.codes * 0, packed.vector_scale, W4S4, codes.shape)
