"""Eq. (11): how near its erf and GELU are to the real ones, where they end, and who else states the coefficients."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from vsquant import reference
from vsquant.reference import functions

F32 = np.float32
NATIVE = Path(__file__).parents[2] / "native" / "core" / "isa" / "epilogue.inl"


def exact_erf(x: np.ndarray) -> np.ndarray:
    return np.array([math.erf(value) for value in x.astype(np.float64)])


def test_erf_is_within_its_bound() -> None:
    x = np.linspace(-4.5, 4.5, 90_001, dtype=F32)
    ours = reference.erf(x)
    assert ours.dtype == F32
    assert np.abs(ours - exact_erf(x)).max() <= 5e-7
    assert np.array_equal(ours, -reference.erf(-x))


def test_gelu_is_within_the_bound_of_its_erf() -> None:
    """erf is within 5e-7, and y/2 * (1 + erf) rounds a few times more: |y| * (2.5e-7 + 3 * 2^-24)."""
    y = np.linspace(-8, 8, 80_001, dtype=F32)
    exact = y.astype(np.float64) * 0.5 * (1 + exact_erf(y / math.sqrt(2)))
    assert (np.abs(reference.gelu(y) - exact) <= np.abs(y) * (2.5e-7 + 3 * 2.0**-24)).all()


def test_values_of_eq_11() -> None:
    y = np.array([0.0, -0.0, 1.0, -1.0, 6.0, -6.0, 3e38, -3e38, np.inf], F32)
    right = np.array([0.0, -0.0, 0.8413447, -0.15865529, 6.0, -0.0, 3e38, -0.0, np.inf], F32)
    assert reference.gelu(y).tobytes() == right.tobytes()
    assert np.isnan(reference.gelu(np.array([-np.inf, np.nan], F32))).all()


@pytest.mark.parametrize(("bits", "halved"), [(0x00000002, 0x00000001), (0x80000006, 0x80000003)])
def test_subnormals_are_kept(bits: int, halved: int) -> None:
    y = np.array([bits], np.uint32).view(F32)
    assert reference.gelu(y).view(np.uint32).tolist() == [halved]


def test_native_code_states_the_same_coefficients() -> None:
    body = re.search(r"Floats erf_quotient\(.*?\n}", NATIVE.read_text(encoding="utf-8"), re.DOTALL)
    assert body is not None
    stated = [float(number) for number in re.findall(r"(-?\d\.\d+e-\d+)f", body[0])]
    assert stated == [*functions.ERF_NUMERATOR, *functions.ERF_DENOMINATOR]
