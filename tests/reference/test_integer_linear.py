"""S against Python integers, widths that are never exceeded, and y step by step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsquant import LayerSpec, reference
from vsquant.errors import NonFiniteError, ShapeError, SpecError
from vsquant.reference import integer_sum, linear, quantize, round_product
from vsquant.spec.formats import IntegerFormat

F32 = np.float32
SPECS = [
    "w4a4-s4/6-v4-tensor",
    "w4a4u-s4/6-v4-token",
    "w3a8-s4/8-v16-tensor",
    "w2a2-s2/2-v2-token",
    "w8a8u-s10/10-v7-tensor",
    "w4a4-s4/4-v4-p3-tensor",
    "w4a4u-s4/6-v4-p1-token",
    "w4a4-s4/6-v4-p20-tensor",
    "w4a4-s4/6-v4-p6-tensor-full-top-g16",
    "w4a8-s4/x-v4-tensor",
    "w8a4u-sx/4-v4-token",
    "w8a8-tensor",
    "w8a8u-token-full",
]


def rows(seed: int, count: int, length: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, length)) * np.exp(rng.standard_normal((count, length)))).astype(F32)


def operands(x: np.ndarray, w: np.ndarray, spec: LayerSpec, mode: str = "requantize"):
    """Both operands as `linear` quantizes them."""
    share = "row" if spec.gamma == "token" else "tensor"
    return quantize(x, spec.activation, share, mode), quantize(w, spec.weight, "row", mode)


def flat(q: reference.Quantized, row: int) -> tuple[list[int], list[int]]:
    """One row's codes and, element by element, the vector scale above each."""
    codes = [int(c) for c in q.codes[row].ravel()[: q.length]]
    if q.vector_scale is None:
        return codes, [1] * q.length
    return codes, [int(q.vector_scale[row, i // q.format.vector_size]) for i in range(q.length)]


def by_hand(qx: reference.Quantized, qw: reference.Quantized, n: int, k: int, bits: int | None) -> int:
    """Eq. (7) element by element in Python's integers: rho is the same for all elements of one vector."""
    shift = 0 if bits is None else max(0, qx.format.scale_width_bits + qw.format.scale_width_bits - bits)
    total = 0
    for q_a, sigma_a, q_w, sigma_w in zip(*flat(qx, n), *flat(qw, k), strict=True):
        p = sigma_a * sigma_w
        if shift:
            p = min((p + 2 ** (shift - 1)) // 2**shift, 2**bits - 1)
        total += p * q_a * q_w
    return total


@pytest.mark.parametrize("mode", ["paper", "requantize"])
@pytest.mark.parametrize("length", [1, 4, 19])
@pytest.mark.parametrize("text", SPECS)
def test_sums_are_those_of_python_integers(text, length, mode):
    spec = LayerSpec.parse(text)
    mode = "requantize" if spec.weight.scale_top_pow2 else mode
    x, w = rows(1, 3, length), rows(2, 4, length)
    S = linear(x, w, spec, mode).S
    qx, qw = operands(x, w, spec, mode)
    assert S.dtype == np.int64
    assert S.tolist() == [[by_hand(qx, qw, n, k, spec.product_bits) for k in range(4)] for n in range(3)]


def extreme(fmt: IntegerFormat, length: int, code: int) -> reference.Quantized:
    """A row whose every code is ``code`` under the largest vector scale."""
    size = fmt.vector_size or length
    codes = np.zeros((1, -(-length // size), size), dtype=np.int32)
    codes.reshape(1, -1)[:, :length] = code
    sigma = np.full(codes.shape[:2], fmt.scale_top, dtype=np.int32) if fmt.two_level else None
    return reference.Quantized(
        format=fmt, length=length, codes=codes, vector_scale=sigma, coarse_scale=np.ones(1, dtype=F32)
    )


@pytest.mark.parametrize("length", [1, 5, 37])
@pytest.mark.parametrize("text", SPECS)
def test_no_sum_exceeds_accumulator_bits_and_the_largest_needs_them_all(text, length):
    spec = LayerSpec.parse(text)
    pairs = itertools.product(*((fmt.qmin, fmt.qmax) for fmt in (spec.activation, spec.weight)))
    sums = [
        integer_sum(extreme(spec.activation, length, a), extreme(spec.weight, length, w), spec.product_bits).item()
        for a, w in pairs
    ]
    bits = spec.accumulator_bits(length)
    assert -(2 ** (bits - 1)) <= min(sums) <= max(sums) < 2 ** (bits - 1)
    assert min(sums) < -(2 ** (bits - 2)) or max(sums) >= 2 ** (bits - 2)


@pytest.mark.parametrize(("width", "bits"), [(8, 1), (8, 4), (10, 6), (9, 9), (9, 12)])
def test_rounding_a_scale_product_is_half_up_and_saturates(width, bits):
    products = np.arange(2**width)
    shift = max(0, width - bits)
    ours = round_product(products[None], shift, bits)[0].tolist()
    if shift == 0:
        assert ours == products.tolist()
    else:
        half = 2 ** (shift - 1)
        assert ours == [min((p + half) // 2**shift, 2**bits - 1) for p in products.tolist()]
        assert ours[half - 1] == 0 and ours[half] == 1 and ours[-1] == 2**bits - 1


@settings(max_examples=150, derandomize=True, deadline=None, database=None)
@given(text=st.sampled_from(SPECS), seed=st.integers(0, 10**6), with_bias=st.booleans())
def test_outputs_follow_eq_7_one_rounding_at_a_time(text, seed, with_bias):
    spec = LayerSpec.parse(text)
    x, w = rows(seed, 3, 11), rows(seed + 1, 4, 11)
    bias = rows(seed + 2, 1, 4)[0] if with_bias else None
    S, y = linear(x, w, spec, bias=bias)
    qx, qw = operands(x, w, spec)
    exact_bits = qx.format.scale_width_bits + qw.format.scale_width_bits
    shift = 0 if spec.product_bits is None else max(0, exact_bits - spec.product_bits)
    assert y.dtype == F32
    for n, k in np.ndindex(3, 4):
        gamma = F32(qx.coarse_scale[n if len(qx.coarse_scale) > 1 else 0] * qw.coarse_scale[k])
        expected = F32(F32(gamma * F32(int(S[n, k]))) * F32(2**shift))
        expected = expected if bias is None else F32(expected + bias[k])
        assert y[n, k].tobytes() == expected.tobytes()


def test_exact_products_give_the_dequantized_operands_product():
    spec = LayerSpec.parse("w4a4-s4/6-v4-tensor")
    x, w = rows(3, 5, 24), rows(4, 6, 24)
    qx, qw = operands(x, w, spec)
    exact = qx.dequantize().astype(np.float64) @ qw.dequantize().astype(np.float64).T
    magnitude = np.abs(qx.dequantize()).astype(np.float64) @ np.abs(qw.dequantize()).astype(np.float64).T
    # x^ and w^ are rounded twice each (sigma*gamma and q*(.)), y three times: seven roundings of 2^-24.
    assert (np.abs(linear(x, w, spec).y - exact) <= 7.01 * 2.0**-24 * magnitude).all()


def test_static_gamma_comes_from_the_given_range():
    spec = LayerSpec.parse("w4a4u-s4/6-v4")
    x, w = np.abs(rows(5, 3, 8)), rows(6, 2, 8)
    qx = quantize(x, spec.activation, "tensor", coarse_range=0.25)
    _, qw = operands(x, w, spec)
    result = linear(x, w, spec, activation_range=0.25)
    assert result.S.tolist() == [[by_hand(qx, qw, n, k, None) for k in range(2)] for n in range(3)]
    assert qx.coarse_scale.tolist() == [float(F32(F32(0.25) / F32(15)) / F32(63))]


@pytest.mark.parametrize(
    ("shape_x", "shape_w", "out"), [((0, 8), (3, 8), (0, 3)), ((2, 8), (0, 8), (2, 0)), ((2, 0), (3, 0), (2, 3))]
)
@pytest.mark.parametrize("text", ["w4a4-s4/6-v4-p6-tensor", "w4a4-s4/6-v4-token", "w8a8-tensor", "w4a8-s4/x-v4-token"])
def test_empty_operands(text, shape_x, shape_w, out):
    result = linear(np.ones(shape_x, dtype=F32), np.ones(shape_w, dtype=F32), LayerSpec.parse(text))
    assert result.S.shape == result.y.shape == out
    assert not result.S.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w4a4-s4/6", r"w4a4-s4/6-v16 has a static gamma: activation_range must be given \(or use -tensor or -token\)"),
        ("w4a16-s4/x", "needs a quantized activation; a16 keeps it in floating point"),
        ("w4a4-sfp16/4-tensor", "needs integer vector scales or none on the weight, not fp16"),
        ("w4a4-s4/fp32", "needs integer vector scales or none on the activation, not fp32"),
        ("nvfp4", "needs an integer weight format, not the comparison format 'nvfp4'"),
    ],
)
def test_specs_without_an_integer_sum_are_refused(text, message):
    with pytest.raises(SpecError, match=message):
        linear(np.ones((2, 16), dtype=F32), np.ones((3, 16), dtype=F32), LayerSpec.parse(text))


def test_operands_of_different_lengths_are_refused():
    with pytest.raises(ShapeError, match=r"x and w must share their last dimension, not \(2, 16\) and \(3, 17\)"):
        linear(np.ones((2, 16), dtype=F32), np.ones((3, 17), dtype=F32), LayerSpec.parse("w4a4-s4/6-tensor"))


@pytest.mark.parametrize(("poisoned", "named"), [("x", "x"), ("w", "w")])
def test_nan_names_the_operand(poisoned, named):
    x, w = np.ones((2, 16), dtype=F32), np.ones((3, 16), dtype=F32)
    (x if poisoned == "x" else w)[1, 3] = np.nan
    with pytest.raises(NonFiniteError, match=f"^{named} must be finite to be quantized, but it holds NaN"):
        linear(x, w, LayerSpec.parse("w4a4-s4/6-tensor"))


def test_paper_is_refused_with_top():
    with pytest.raises(SpecError, match="'paper' must not be combined with -top"):
        linear(np.ones((2, 4), dtype=F32), np.ones((3, 4), dtype=F32), LayerSpec.parse("w4a4-s4/6-tensor-top"), "paper")
