"""Equations (1)-(6) where a golden vector cannot say it: empty arrays, refusals, layouts."""

from __future__ import annotations

import numpy as np
import pytest

from vsquant import reference
from vsquant.errors import NonFiniteError, ScaleRangeError, ShapeError, SpecError
from vsquant.spec.comparison import COMPARISON_FORMATS
from vsquant.spec.formats import IntegerFormat

F32 = np.float32
S4 = IntegerFormat(bits=4, scale=4, vector_size=4)
FORMATS = [
    S4,
    IntegerFormat(bits=4, scale="fp16", vector_size=4),
    IntegerFormat(bits=4, scale="fp32", vector_size=4),
    IntegerFormat(bits=8, scale=None, vector_size=None),
    IntegerFormat(bits=4, scale=4, vector_size=4, full_range=True, scale_top_pow2=True, coarse_fp16=True),
    *sorted({pair[0] for pair in COMPARISON_FORMATS.values()}, key=lambda fmt: fmt.name),
]


@pytest.mark.parametrize("share", ["row", "tensor"])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_arrays_without_rows_or_columns_go_through(fmt, shape, share):
    q = reference.quantize(np.ones(shape, dtype=F32), fmt, share)
    assert q.dequantize().shape == shape
    assert q.dequantize().dtype == F32
    assert len(q.codes) == shape[0]


def test_a_scale_is_never_negative_zero():
    x = np.array([[-0.0, 0.0, -0.0, 0.0]], dtype=F32)
    for fmt in (S4, IntegerFormat(bits=4, signed=False, scale="fp32", vector_size=2), FORMATS[4]):
        q = reference.quantize(x, fmt)
        for scale in (q.vector_scale, q.coarse_scale):
            assert scale is None or not np.signbit(scale).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_nan_and_inf_name_the_tensor(fmt, value):
    x = np.ones((2, 8), dtype=F32)
    x[1, 5] = value
    kind = "NaN" if np.isnan(value) else "Inf"
    message = f"^stem.weight must be finite to be quantized, but it holds {kind}$"
    with pytest.raises(NonFiniteError, match=message):
        reference.quantize(x, fmt, name="stem.weight")


@pytest.mark.parametrize("wrong", [np.ones(4, dtype=F32), np.ones((2, 4)), np.ones((2, 3, 4), dtype=F32)])
def test_only_float32_rows_are_taken(wrong):
    with pytest.raises(
        ShapeError, match=r"^w must be a float32 array of shape \(rows, length\), not (float32|float64)"
    ):
        reference.quantize(wrong, S4, name="w")


@pytest.mark.parametrize("wrong", [[0.0], [-1.0], [np.inf], [np.nan], [1.0, 0.0, 1.0]])
def test_a_range_must_be_positive_and_finite(wrong):
    with pytest.raises(ShapeError, match="coarse_range must be positive and finite, not"):
        reference.quantize(np.ones((3, 4), dtype=F32), S4, coarse_range=np.array(wrong, dtype=F32))


def test_a_range_is_one_value_or_one_per_row():
    with pytest.raises(
        ShapeError, match=r"coarse_range must be one value or one per row \(3\), not an array of \(2,\)"
    ):
        reference.quantize(np.ones((3, 4), dtype=F32), S4, coarse_range=np.ones(2, dtype=F32))


def test_comparison_formats_take_no_range():
    with pytest.raises(SpecError, match="coarse_range must be None for nvfp4"):
        reference.quantize(np.ones((3, 16), dtype=F32), COMPARISON_FORMATS["nvfp4"][0], coarse_range=1.0)


@pytest.mark.parametrize("mode", ["best"])
def test_unknown_scale_modes_are_refused(mode):
    modes = "'paper', 'requantize', 'search' or 'best-of-three'"
    with pytest.raises(SpecError, match=f"scale_mode must be {modes}, not '{mode}'"):
        reference.quantize(np.ones((3, 4), dtype=F32), S4, scale_mode=mode)


@pytest.mark.parametrize(("value", "channel"), [(1e-6, 1), (1e7, 2)])
@pytest.mark.parametrize(
    "fmt", [FORMATS[1], FORMATS[4], IntegerFormat(bits=4, scale=None, vector_size=None, coarse_fp16=True)], ids=str
)
def test_scales_outside_fp16_name_tensor_and_channel(fmt, value, channel):
    x = np.ones((3, 8), dtype=F32)
    x[channel] = value
    with pytest.raises(ScaleRangeError, match=rf"a scale of w kept as fp16 must lie between .*channel {channel}\)"):
        reference.quantize(x, fmt, name="w")


def test_a_coarse_fp16_scale_is_rounded_up_so_that_no_vector_scale_exceeds_top():
    x = np.random.default_rng(0).standard_normal((200, 16)).astype(F32)
    plain = reference.quantize(x, S4)
    half = reference.quantize(x, IntegerFormat(bits=4, scale=4, vector_size=4, coarse_fp16=True))
    assert (half.coarse_scale >= plain.coarse_scale).all()
    assert (half.coarse_scale == half.coarse_scale.astype(np.float16)).all()
    assert (half.coarse_scale <= plain.coarse_scale * (1 + 2.0**-10)).all()


@pytest.mark.parametrize("size", [None, 4, 16])
def test_conv_weight_rows_pad_the_tail_at_every_position(size):
    weight = np.random.default_rng(1).standard_normal((5, 6, 3, 2)).astype(F32)
    rows = reference.conv_weight_rows(weight, size)
    padded = 6 if size is None else -(-6 // size) * size
    by_position = rows.reshape(5, 3, 2, padded)
    np.testing.assert_array_equal(by_position[..., :6], weight.transpose(0, 2, 3, 1))
    assert not by_position[..., 6:].any()


@pytest.mark.parametrize("size", [None, 4, 16])
def test_conv_activation_rows_are_positions(size):
    x = np.random.default_rng(2).standard_normal((6, 4, 3)).astype(F32)
    rows = reference.conv_activation_rows(x, size)
    padded = 6 if size is None else -(-6 // size) * size
    assert rows.shape == (12, padded)
    for i, j in np.ndindex(4, 3):
        np.testing.assert_array_equal(rows[3 * i + j, :6], x[:, i, j])
    assert not rows[:, 6:].any()


def test_empty_layers_have_rows_too():
    assert reference.conv_weight_rows(np.zeros((0, 6, 3, 3), dtype=F32), 4).shape == (0, 72)
    assert reference.conv_activation_rows(np.zeros((6, 0, 3), dtype=F32), 4).shape == (0, 8)
