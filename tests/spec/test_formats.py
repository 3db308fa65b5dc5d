"""Tensor formats: code and scale ranges, storage, and what they refuse."""

from __future__ import annotations

import pytest

from vsquant.errors import SpecError
from vsquant.spec import FloatFormat, IntegerFormat, LayerSpec, padded_length


@pytest.mark.parametrize("bits", range(2, 9))
def test_code_ranges(bits):
    signed = IntegerFormat(bits=bits, scale=4)
    assert (signed.qmin, signed.qmax) == (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    full = IntegerFormat(bits=bits, scale=4, full_range=True)
    assert (full.qmin, full.qmax) == (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    unsigned = IntegerFormat(bits=bits, signed=False, scale=4)
    assert (unsigned.qmin, unsigned.qmax) == (0, 2**bits - 1)


@pytest.mark.parametrize("bits", range(2, 11))
def test_scale_ranges(bits):
    plain = IntegerFormat(bits=4, scale=bits)
    assert (plain.scale_min, plain.scale_top) == (0, 2**bits - 1)
    assert (plain.scale_storage_bits, plain.scale_width_bits) == (bits, bits)
    top = IntegerFormat(bits=4, scale=bits, scale_top_pow2=True)
    assert (top.scale_min, top.scale_top) == (1, 2**bits)
    assert (top.scale_storage_bits, top.scale_width_bits) == (bits, bits + 1)


@pytest.mark.parametrize(
    ("text", "weight_bits", "activation_bits"),
    [
        ("w4a8-s4/6", 4.25, 8.375),
        ("w4a8-s4/6-v32", 4.125, 8.1875),
        ("w4a8", 4.0, 8.0),
        ("w4a8-sfp16/fp32", 5.0, 10.0),
        ("nvfp4", 4.5, 4.5),
        ("mxfp4", 4.25, 4.25),
        ("mxint8", 8.25, 8.25),
    ],
)
def test_storage_per_element(text, weight_bits, activation_bits):
    spec = LayerSpec.parse(text)
    assert spec.weight.bits_per_element == weight_bits
    assert spec.activation is not None
    assert spec.activation.bits_per_element == activation_bits
    assert spec.weight.overhead_bits_per_element == weight_bits - spec.weight.bits


def test_int4_g128_storage():
    assert LayerSpec.parse("int4-g128").weight.bits_per_element == 4.125


@pytest.mark.parametrize(
    ("text", "two_level", "coarse"),
    [
        ("w4a8-s4", True, True),
        ("w4a8", False, True),
        ("w4a8-sfp32", False, False),
        ("nvfp4", False, True),
        ("mxfp4", False, False),
        ("int4-g128", False, False),
    ],
)
def test_kinds_of_scale(text, two_level, coarse):
    weight = LayerSpec.parse(text).weight
    assert weight.two_level is two_level
    assert weight.has_coarse_scale is coarse


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bits": 1}, "element bits must be 2..8, not 1"),
        ({"bits": True}, "element bits must be 2..8, not True"),
        ({"scale": 11}, "scale bits must be 2..10, 'fp16', 'fp32' or None, not 11"),
        ({"scale": "bf16"}, "a vector scale must be 2..10 bits, 'fp16', 'fp32' or None, not 'bf16'"),
        ({"scale": None}, "vector_size must be None where there are no vector scales, not 16"),
        ({"vector_size": None}, "vector_size must be 2..1024, not None"),
        ({"vector_size": 1025}, "vector_size must be 2..1024, not 1025"),
        ({"signed": False, "full_range": True}, "full_range (-full) must go with signed elements"),
        ({"scale": "fp16", "scale_top_pow2": True}, "scale_top_pow2 (-top) must go with integer vector scales"),
        ({"scale": "fp32", "coarse_fp16": True}, "coarse_fp16 (-g16) must go with a coarse scale; fp32 vector scales"),
    ],
)
def test_integer_format_refusals(fields, message):
    with pytest.raises(SpecError) as caught:
        IntegerFormat(**{"bits": 4, "scale": 4, **fields})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"element": "e3m0"}, "element must be one of ['e2m1', 'int4', 'int8'], not 'e3m0'"),
        ({"best_of_two": True}, "best_of_two must go with element 'e2m1', block_scale 'e4m3' and a tensor scale"),
        ({"block_scale": "e5m2"}, "block_scale must be one of ['e4m3', 'e8m0', 'fp16'], not 'e5m2'"),
        ({"vector_size": 0}, "vector_size must be 2..1024, not 0"),
    ],
)
def test_float_format_refusals(fields, message):
    with pytest.raises(SpecError) as caught:
        FloatFormat(**{"name": "mine", "element": "e2m1", "block_scale": "e8m0", "vector_size": 32, **fields})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("length", "vector_size", "padded"), [(0, 16, 0), (1, 16, 16), (16, 16, 16), (17, 16, 32), (17, None, 17)]
)
def test_padded_length(length, vector_size, padded):
    assert padded_length(length, vector_size) == padded
