"""The post-processing unit's constants and widths; its codes beside those of eqs. (1)-(7) in floating point."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsquant import reference
from vsquant.errors import ScaleRangeError, SpecError, WidthError
from vsquant.hardware import Lane, PostProcessingUnit
from vsquant.spec import LayerSpec

F32 = np.float32
parse = LayerSpec.parse


def unit(text="w4a4-s4/4", following="w4a4u-s4/6", **options):
    return PostProcessingUnit.between(Lane.for_spec(parse(text)), parse(following), **options)


def constants(ppu, weight_coarse, bias=None, *, activation=0.01, output=0.02, relu=False):
    return ppu.constants(
        weight_coarse=np.asarray(weight_coarse, dtype=F32),
        activation_coarse=activation,
        output_coarse=output,
        bias=bias,
        relu=relu,
    )


@given(st.lists(st.floats(2.0**-60, 2.0**3, width=32), min_size=1, max_size=8))
def test_multipliers_are_the_nearest_of_full_mantissa(coarse):
    ppu = unit("w4a4-s4/4-p6")
    made = constants(ppu, coarse)
    ratio = np.asarray(coarse, dtype=F32).astype(np.float64) * 0.01 * 2**2 / (0.02 / 2**ppu.fraction_bits)
    value = np.ldexp(made.multiplier.astype(np.float64), -made.shift)
    kept = made.multiplier > 0
    assert (made.multiplier[kept] >> (ppu.multiplier_bits - 1) == 1).all()
    assert (np.abs(value - ratio)[kept] <= ratio[kept] * 2.0**-ppu.multiplier_bits).all()
    largest_sum = max(map(abs, ppu.lane.accumulator_range))
    assert (ratio[~kept] * largest_sum <= 0.5).all()
    assert made.shift.max() < 1 << ppu.shift_bits


def test_a_mantissa_that_rounds_up_carries_into_the_exponent():
    made = constants(unit(), [0.5 * (1 - 2.0**-20)], activation=1, output=256.0)
    assert (made.multiplier.tolist(), made.shift.tolist()) == ([1 << 15], [16])


def test_a_channel_whose_weights_are_zero_gives_its_bias():
    ppu = unit(following="w4a4-s4/6")
    made = constants(ppu, [0.0], np.array([0.5], dtype=F32))
    assert reference.post_process(np.array([[123]]), made).values.tolist() == [[round(0.5 / 0.02 * 256)]]


@pytest.mark.parametrize(
    "text", ["4/4U/4/6", "8/8/6/10", "4/8/6/10", "3/4/4/4", "w4a4-s4/4-p4", "w8a8", "w2a2u-s2/x-v2"]
)
def test_widths_hold_the_worst_sum_and_no_fewer_bits_hold_the_largest_value(text):
    ppu = unit(text, text)
    low, high = ppu.lane.accumulator_range
    largest_multiplier = (1 << ppu.multiplier_bits) - 1
    assert -(1 << (ppu.product_bits - 1)) <= low * largest_multiplier
    assert high * largest_multiplier < 1 << (ppu.product_bits - 1)
    needed = (ppu.output.qmax * ppu.output.scale_top) << ppu.fraction_bits
    assert needed < 1 << (ppu.value_bits - 1) <= 2 * needed
    worst = np.array([[low], [high]])
    made = dataclasses.replace(
        constants(ppu, [1.0]), multiplier=np.array([largest_multiplier]), shift=np.array([ppu.product_bits - 1])
    )
    assert set(reference.rescale(worst, made.multiplier, made.shift).ravel().tolist()) <= {-1, 0, 1}


@settings(max_examples=60)
@given(
    st.sampled_from(["w4a4u-s4/6-v4", "w4a4-s4/4-v4", "w8a8-s6/10-v4", "w3a3-s3/3-v4", "w8a8u", "w4a4"]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.sampled_from([4, 8, 12]),
)
def test_codes_differ_from_floating_point_only_beside_ties(text, seed, relu, fraction_bits):
    """A value is off by 1 unit + 2^-16 of it before bias at most (and 2^-20 of float): it bounds differences."""
    spec = parse(text)
    ppu = unit("w4a4-s4/4", text, fraction_bits=fraction_bits)
    rng = np.random.default_rng(seed)
    sums = rng.integers(-30000, 30000, (40, 8))
    coarse = np.exp(rng.normal(-6, 1, 8)).astype(F32)
    bias = rng.standard_normal(8).astype(F32)
    y = F32(0.01) * coarse * sums.astype(F32) + bias
    y = np.maximum(y, 0) if relu else y
    largest = float(np.abs(y).max() * rng.uniform(0.5, 1.2) + 1e-3)
    expected = reference.quantize(y, spec.activation, "tensor", coarse_range=largest)
    gamma = float(expected.coarse_scale[0])
    made = constants(ppu, coarse, bias, activation=float(F32(0.01)), output=gamma, relu=relu)
    found = reference.post_process(sums, made)
    units = 2.0**-fraction_bits
    off = units + (2.0**-16 + 2.0**-20) * (np.abs(y) + np.abs(bias)) / gamma
    inside = np.abs(y) / gamma < ppu.output.qmax * ppu.output.scale_top
    assert (np.abs(found.values * units - y / gamma)[inside] <= off[inside]).all()
    vectors = np.pad(off, ((0, 0), (0, -8 % expected.codes.shape[2]))).reshape(expected.codes.shape)
    sigma, same = np.ones(expected.codes.shape[:2]), np.ones(expected.codes.shape[:2], dtype=bool)
    if spec.activation.two_level:
        sigma = np.maximum(expected.vector_scale, 1)
        same = found.vector_scale == expected.vector_scale
        assert (np.abs(found.vector_scale - expected.vector_scale) <= 1).all()
    quotient = y.astype(np.float64).reshape(expected.codes.shape) / gamma / sigma[..., None]
    from_tie = np.abs(np.abs(quotient) % 1 - 0.5)
    differ = (found.codes != expected.codes) & same[..., None]
    assert (from_tie[differ] <= (vectors / sigma[..., None])[differ]).all()


@pytest.mark.parametrize(
    ("following", "scale_mode", "reason"),
    [
        ("w4a4-s4/4-tensor", "requantize", "a dynamic gamma is known only when the whole tensor is"),
        ("w4a4-s4/4-token", "requantize", "must have a static activation scale, not w4a4-s4/4-v16-token"),
        ("w4a4-s4/4", "paper", "its codes divide by a floating-point scale of each vector"),
        ("w4a4-s4/4", "best-of-three", "it would have to try several scales for each vector"),
        ("w4a4-sfp16/fp16", "requantize", "not fp16"),
        ("w4a16-s4/x", "requantize", "a16 keeps it in floating point"),
        ("mxfp4", "requantize", "not the comparison format 'mxfp4'"),
    ],
)
def test_what_the_unit_does_not_have_is_refused_with_the_reason(following, scale_mode, reason):
    with pytest.raises(SpecError, match=reason):
        unit(following=following, scale_mode=scale_mode)


def test_constants_and_widths_out_of_range_are_refused():
    with pytest.raises(ScaleRangeError, match="output_coarse must be positive, not 0"):
        constants(unit(), [1.0], output=0.0)
    with pytest.raises(ScaleRangeError, match=r"one unit of a sum must be less than 2\^16 units"):
        constants(unit(), [1.0], activation=1.0, output=1e-4)
    with pytest.raises(WidthError, match="a bias must fit 32 bits in units of gamma_out"):
        constants(unit(), [1.0], np.array([1e9], dtype=F32))
    with pytest.raises(SpecError, match="fraction_bits must be at least 1, not 0"):
        unit(fraction_bits=0)
    with pytest.raises(WidthError, match=r"at most 63, not 48 \+ 16; lower max_reduction_length"):
        unit("w8a8u-s10/10")


def test_the_parameters_of_the_rtl():
    assert unit("4/4U/4/6", "4/4U/4/6").verilog_parameters() == {
        "V": 16,
        "ACC_BITS": 30,
        "MULT_BITS": 16,
        "SHIFT_BITS": 6,
        "BIAS_BITS": 32,
        "T_BITS": 19,
        "FRACTION_BITS": 8,
        "CODE_BITS": 4,
        "CODE_SIGNED": 0,
        "SCALE_BITS": 6,
    }
