"""Comparison formats: every code, every tie, saturation, and the published scale rules against plain float64."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from vsquant.errors import NonFiniteError, ScaleRangeError, ShapeError
from vsquant.reference.float_formats import (
    E2M1_VALUES,
    E4M3_VALUES,
    decode_elements,
    encode_elements,
    nearest_even,
    quantize_float,
    shared_exponent_scale,
)
from vsquant.spec.comparison import INT4_G128, MXFP4, MXINT8, NVFP4, NVFP4_4OVER6

F32 = np.float32
ALL = pytest.mark.parametrize("fmt", [NVFP4, NVFP4_4OVER6, MXFP4, MXINT8, INT4_G128], ids=lambda fmt: fmt.name)


def test_e2m1_codes_round_trip_and_agree_with_the_bit_fields():
    codes = np.arange(16, dtype=np.int32)
    values = decode_elements(codes, NVFP4)
    expected = []
    for code in range(16):
        sign, exponent, mantissa = code >> 3, (code >> 1) & 3, code & 1
        magnitude = mantissa * 0.5 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
        expected.append(-magnitude if sign else magnitude)
    assert values.tolist() == expected
    assert encode_elements(values, NVFP4).tolist() == codes.tolist()


def test_e4m3_values_are_those_of_torch():
    bits = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).to(torch.float32)
    assert E4M3_VALUES.tolist() == bits.tolist()
    assert E4M3_VALUES[-1] == 448
    assert nearest_even(E4M3_VALUES, E4M3_VALUES).tolist() == list(range(127))


@pytest.mark.parametrize("values", [E2M1_VALUES, E4M3_VALUES], ids=["e2m1", "e4m3"])
def test_ties_go_to_the_even_code_and_neighbours_of_ties_do_not(values):
    for code, (low, high) in enumerate(itertools.pairwise(values)):
        middle = F32((low + high) / 2)
        assert Fraction(float(middle)) == (Fraction(float(low)) + Fraction(float(high))) / 2
        around = np.array([np.nextafter(middle, F32(0)), middle, np.nextafter(middle, F32(np.inf))], dtype=F32)
        even = code if code % 2 == 0 else code + 1
        assert nearest_even(around, values).tolist() == [code, even, code + 1]


def test_e4m3_rounding_agrees_with_torch_on_every_float_pattern_of_a_dense_sample():
    patterns = np.arange(0, 0x43E0_0000, 9973, dtype=np.uint32).view(F32)
    patterns = patterns[patterns <= 448]
    torch_values = torch.from_numpy(patterns.copy()).to(torch.float8_e4m3fn).to(torch.float32).numpy()
    np.testing.assert_array_equal(E4M3_VALUES[nearest_even(patterns, E4M3_VALUES)], torch_values)


def test_values_beyond_the_largest_saturate():
    big = np.array([448.5, 1e6, np.inf], dtype=F32)
    assert E4M3_VALUES[nearest_even(big, E4M3_VALUES)].tolist() == [448, 448, 448]
    assert encode_elements(np.array([5.0, 5.1, 7, 1e30, -1e30], dtype=F32), NVFP4).tolist() == [6, 7, 7, 7, 15]
    assert encode_elements(np.array([1.99, 2.0, -9.0], dtype=F32), MXINT8).tolist() == [127, 127, -127]


def test_shared_exponent_is_the_exact_floor_of_log2():
    exponents = np.arange(-149, 128)
    powers = np.ldexp(F32(1), exponents).astype(F32)
    below = np.nextafter(powers[1:], F32(0))
    for emax in (0, 2):
        expected = [2.0 ** min(max(int(e) - emax, -127), 127) for e in exponents]
        assert shared_exponent_scale(powers, emax).tolist() == expected
        assert shared_exponent_scale(below, emax).tolist() == expected[:-1]
    assert shared_exponent_scale(np.zeros(1, dtype=F32), 2).tolist() == [2.0**-127]


def test_mxfp4_golden():
    x = np.array([[7.9, 4.0, -1.0, 0.25, 0.74, 0.0]], dtype=F32)
    result = quantize_float(x, MXFP4)
    assert result.vector_scale.tolist() == [[1.0]]
    assert result.coarse_scale is None
    assert result.codes.shape == (1, 1, 32)
    assert result.codes[0, 0, :7].tolist() == [7, 6, 10, 0, 1, 0, 0]
    assert result.dequantize().tolist() == [[6.0, 4.0, -1.0, 0.0, 0.5, 0.0]]


def test_mxint8_golden():
    x = np.array([[3.0, -3.99, 1 / 64, 1 / 32, 3 / 64]], dtype=F32)
    result = quantize_float(x, MXINT8)
    assert result.vector_scale.tolist() == [[2.0]]
    assert result.codes[0, 0, :5].tolist() == [96, -127, 0, 1, 2]
    assert result.dequantize().tolist() == [[3.0, -127 / 32, 0.0, 1 / 32, 2 / 32]]


def test_int4_g128_golden():
    x = np.array([[7.0, -3.5, 2.5, -1.0]], dtype=F32)
    result = quantize_float(x, INT4_G128)
    assert result.vector_scale.tolist() == [[1.0]]
    assert result.codes[0, 0, :4].tolist() == [7, -4, 2, -1]


def test_nvfp4_golden():
    x = np.zeros((2, 20), dtype=F32)
    x[0, 0], x[0, 1], x[0, 17], x[1, 0] = 2688.0, -1000.0, 12.0, 6.0
    by_row = quantize_float(x, NVFP4, "row")
    assert by_row.coarse_scale is not None
    assert by_row.coarse_scale.tolist() == [1.0, float(F32(6) / F32(2688))]
    assert by_row.vector_scale.tolist() == [[448.0, 2.0], [448.0, 0.0]]
    assert by_row.codes[0, 0, :2].tolist() == [7, 8 | 4]
    assert by_row.codes[0, 1, 1] == 7
    shared = quantize_float(x, NVFP4, "tensor")
    assert shared.coarse_scale is not None
    assert shared.coarse_scale.tolist() == [1.0]
    assert shared.vector_scale.tolist() == [[448.0, 2.0], [1.0, 0.0]]
    assert shared.dequantize()[1, 0] == 6.0
    assert shared.dequantize()[0, 17] == 12.0


@pytest.mark.parametrize("share", ["row", "tensor"])
def test_nvfp4_equals_its_formulas_element_by_element(share):
    x = np.random.default_rng(5).standard_normal((5, 37)).astype(F32) * F32(0.03)
    result = quantize_float(x, NVFP4, share)
    assert result.coarse_scale is not None
    restored = result.dequantize()
    for row, column in np.ndindex(x.shape):
        alpha_tensor = np.abs(x).max() if share == "tensor" else np.abs(x[row]).max()
        g = F32(alpha_tensor) / F32(6 * 448)
        start = column // 16 * 16
        ratio = F32(F32(np.abs(x[row, start : start + 16]).max() / F32(6)) / g)
        s = float(torch.tensor(min(float(ratio), 448.0)).to(torch.float8_e4m3fn).float())
        step = F32(s) * g
        target = float(F32(x[row, column] / step))
        errors = [abs(abs(target) - float(v)) for v in E2M1_VALUES]
        code = min(range(8), key=lambda c: (errors[c], c % 2))
        assert result.vector_scale[row, column // 16] == s
        assert restored[row, column] == F32(math.copysign(float(E2M1_VALUES[code]), target)) * step


def test_best_of_two_golden():
    """The block 10 20 30 40 is exact as 1 2 3 4; 10 20 40 60 as 1 2 4 6; equal errors keep the first scale."""
    x = np.zeros((1, 64), dtype=F32)
    x[0, :4], x[0, 16:20], x[0, 32], x[0, 48] = (10, 20, 30, 40), (10, 20, 40, 60), 1536.0, 24.0
    result = quantize_float(x, NVFP4_4OVER6)
    assert result.coarse_scale is not None and result.coarse_scale.tolist() == [1.0]
    assert result.vector_scale.tolist() == [[10.0, 10.0, 256.0, 4.0]]
    assert result.codes[0, :2, :4].tolist() == [[2, 4, 5, 6], [2, 4, 6, 7]]
    assert result.codes[0, 2:, 0].tolist() == [7, 7]
    np.testing.assert_array_equal(result.dequantize(), x)


def test_best_of_two_leaves_room_for_the_second_scale_of_the_largest_block():
    """The largest block has the E4M3 scale 256 for 6, hence 384 for 4: under 448 for 6 it would saturate."""
    x = np.array([[1536.0, 1152.0, 384.0]], dtype=F32)
    result = quantize_float(x, NVFP4_4OVER6)
    assert result.vector_scale.tolist() == [[384.0]]
    np.testing.assert_array_equal(result.dequantize(), x)


@pytest.mark.parametrize("share", ["row", "tensor"])
def test_best_of_two_takes_the_better_of_both_scales_block_by_block(share):
    x = np.random.default_rng(6).standard_normal((4, 37)).astype(F32) * F32(0.03)
    result = quantize_float(x, NVFP4_4OVER6, share)
    assert result.coarse_scale is not None
    restored, seconds = result.dequantize(), 0
    for row, block in np.ndindex(4, 3):
        alpha_tensor = np.abs(x).max() if share == "tensor" else np.abs(x[row]).max()
        g = F32(alpha_tensor) / F32(6 * 256)
        values = x[row, block * 16 : block * 16 + 16]
        found = []
        for reach in (6, 4):
            ratio = float(F32(F32(np.abs(values).max()) / F32(reach)) / g)
            s = float(torch.tensor(min(ratio, 448.0)).to(torch.float8_e4m3fn).float())
            step = F32(s) * g
            codes = [min(range(8), key=lambda c: (abs(abs(v / step) - E2M1_VALUES[c]), c % 2)) for v in values]
            wanted = [F32(math.copysign(float(E2M1_VALUES[c]), v)) * step for c, v in zip(codes, values, strict=True)]
            error = sum((float(v) - float(w)) ** 2 for v, w in zip(values, wanted, strict=True))
            found.append((error, s, wanted))
        error, s, wanted = min(found, key=lambda candidate: candidate[0])
        seconds += s == found[1][1]
        assert result.vector_scale[row, block] == s
        assert restored[row, block * 16 : block * 16 + 16].tolist() == [float(value) for value in wanted]
    assert 0 < seconds < 12


def test_best_of_two_loses_less_than_one_scale_on_the_like_of_weights():
    x = np.random.default_rng(7).standard_normal((64, 512)).astype(F32)
    one, two = (np.square(quantize_float(x, fmt).dequantize() - x).sum() for fmt in (NVFP4, NVFP4_4OVER6))
    assert two < 0.95 * one


@ALL
def test_error_stays_within_half_a_step_of_the_nearest_representable(fmt):
    x = np.random.default_rng(1).standard_normal((6, 300)).astype(F32)
    result = quantize_float(x, fmt)
    scale = result.vector_scale if result.coarse_scale is None else result.vector_scale * result.coarse_scale[:, None]
    step = np.repeat(scale, fmt.vector_size, axis=1)[:, :300].astype(np.float64)
    codes = np.arange(-127, 128) if fmt.element == "int8" else np.arange(-7, 8)
    codes = np.arange(16) if fmt.element == "e2m1" else codes
    grid = np.sort(decode_elements(codes.astype(np.int32), fmt).astype(np.float64))
    best = np.abs(x[..., None] - step[..., None] * grid).min(axis=2)
    assert (np.abs(x - result.dequantize()) <= best * (1 + 1e-5) + 1e-7).all()


@ALL
@pytest.mark.parametrize("shape", [(1, 1), (3, 33), (2, 128), (0, 16), (2, 129)])
def test_awkward_shapes_keep_their_size_and_pad_with_zero_codes(fmt, shape):
    x = np.random.default_rng(2).standard_normal(shape).astype(F32)
    result = quantize_float(x, fmt)
    blocks = -(-shape[1] // fmt.vector_size)
    assert result.codes.shape == (shape[0], blocks, fmt.vector_size)
    assert result.vector_scale.shape == (shape[0], blocks)
    assert result.dequantize().shape == shape
    assert not result.codes.reshape(shape[0], blocks * fmt.vector_size)[:, shape[1] :].any()


@ALL
def test_zeros_stay_zero(fmt):
    result = quantize_float(np.zeros((2, 40), dtype=F32), fmt)
    assert not result.codes.any()
    assert not result.dequantize().any()


def test_a_negative_element_that_rounds_to_zero_keeps_its_sign_bit():
    x = np.array([[4.0, -0.1, 0.1]], dtype=F32)
    assert quantize_float(x, MXFP4).codes[0, 0, :3].tolist() == [6, 8, 0]


@ALL
def test_a_row_of_one_tensor_does_not_depend_on_others_unless_shared(fmt):
    x = np.random.default_rng(3).standard_normal((4, 64)).astype(F32)
    alone = quantize_float(x[:1], fmt).dequantize()
    np.testing.assert_array_equal(alone, quantize_float(x, fmt, "row").dequantize()[:1])


def test_subnormal_blocks_are_exact_where_the_format_is():
    tiny = F32(2.0**-149)
    x = np.array([[tiny, tiny * 3, 0.0]], dtype=F32)
    assert quantize_float(x, MXFP4).codes[0, 0, :3].tolist() == [0, 0, 0]
    x = np.array([[2.0**-126, 2.0**-127, -(2.0**-128)]], dtype=F32)
    np.testing.assert_array_equal(quantize_float(x, MXFP4).dequantize(), x)
    np.testing.assert_array_equal(quantize_float(x, MXINT8).dequantize(), x)


@ALL
@pytest.mark.parametrize(("value", "kind"), [(np.nan, "NaN"), (np.inf, "Inf")])
def test_nan_and_inf_name_the_tensor(fmt, value, kind):
    x = np.zeros((2, 3), dtype=F32)
    x[1, 2] = value
    with pytest.raises(NonFiniteError, match=rf"encoder\.weight .*{kind}"):
        quantize_float(x, fmt, name="encoder.weight")


@pytest.mark.parametrize("value", [1e-9, 1e-4, 1e6])
def test_int4_scales_outside_fp16_name_the_channel(value):
    x = np.ones((3, 4), dtype=F32)
    x[2] = value
    with pytest.raises(ScaleRangeError, match=r"fp16 .*channel 2"):
        quantize_float(x, INT4_G128)


def test_only_float32_rows_are_taken():
    for wrong in (np.zeros(4, dtype=F32), np.zeros((2, 4))):
        with pytest.raises(ShapeError, match=r"w must be a float32 array of shape \(rows, length\)"):
            quantize_float(wrong, MXFP4, name="w")
