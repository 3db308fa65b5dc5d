"""Equation (11): the function that chained layers apply, where PyTorch leaves its bits open."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import Float32

from vsquant.reference.integer_formats import F32

Values: TypeAlias = Float32[np.ndarray, "..."]

ERF_BOUND: Final = 4.0
"""Where the quotient reaches 1 in float32."""

ERF_NUMERATOR: Final = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
ERF_DENOMINATOR: Final = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)
"""Coefficients of powers of x^2, the highest first; each rounds to float32. Source: Eigen 3.4, SpecialFunctions,
``generic_fast_erf_float``.
"""

SQRT_HALF: Final = 0.70710678118654752


def gelu(y: Values) -> Values:
    """Eq. (11): fl(fl(y/2) * fl(1 + erf(fl(y * sqrt(1/2))))); NaN at -Inf, as 0 * Inf is."""
    with np.errstate(invalid="ignore", over="ignore"):
        value: Values = y * F32(0.5) * (F32(1) + erf(y * F32(SQRT_HALF)))
    return value


def erf(x: Values) -> Values:
    """Eq. (11)'s quotient of polynomials, within 5e-7 of erf; every operation rounded to float32."""
    bounded = np.clip(x, F32(-ERF_BOUND), F32(ERF_BOUND))
    square = bounded * bounded
    value: Values = bounded * _polynomial(square, ERF_NUMERATOR) / _polynomial(square, ERF_DENOMINATOR)
    return value


def _polynomial(x: Values, coefficients: Sequence[float]) -> Values:
    """By Horner's rule, with no fused multiply-add."""
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + F32(coefficient)
    return total
