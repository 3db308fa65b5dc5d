"""Figures as text."""

from __future__ import annotations

import math

import pytest

from vsquant.report.numbers import (
    difference_text,
    error_text,
    finite_or_none,
    metric_text,
    size_text,
    time_text,
)
from vsquant.results import Difference


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (65.94, "%", "65.9"),
        (0.0, "%", "0.0"),
        (100.0, "%", "100.0"),
        (12.345, "", "12.35"),
        (345.67, "", "345.7"),
        (12345.6, "", "12346"),
        (3.2e8, "", "3.2e+08"),
        (math.inf, "", "∞"),
        (math.nan, "%", "n/a"),
    ],
)
def test_metrics(value: float, unit: str, text: str) -> None:
    assert metric_text(value, unit) == text


@pytest.mark.parametrize(
    ("value", "error", "unit", "text"),
    [
        (-0.84, 0.31, "%", "−0.8±0.3"),
        (-0.043, 0.021, "%", "−0.04±0.02"),
        (0.5, 0.2, "%", "+0.5±0.2"),
        (0.0, 0.0, "%", "+0.0±0.0"),
        (-3.0, math.nan, "%", "−3.0"),
        (1.234, 0.05, "", "+1.23±0.05"),
        (2e7, 1e6, "", "+2.0e+07±1.0e+06"),
        (math.inf, math.nan, "", "+∞"),
        (math.nan, math.nan, "", "n/a"),
    ],
)
def test_differences(value: float, error: float, unit: str, text: str) -> None:
    assert difference_text(Difference(value=value, standard_error=error), unit) == text


def test_an_unknown_error_is_not_shown() -> None:
    assert error_text(math.nan, "%") == ""
    assert error_text(0.94, "%") == "±0.9"


def test_sizes_and_times() -> None:
    assert [size_text(size) for size in (0, 1023, 1536, 3 * 2**20, 5 * 2**50)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 MiB",
        "5120.0 TiB",
    ]
    assert [time_text(seconds) for seconds in (8.46, 720, 12240)] == ["8.5 s", "12 min", "3.4 h"]


def test_json_has_no_infinities() -> None:
    assert finite_or_none(1.5) == 1.5
    assert finite_or_none(math.inf) is None
    assert finite_or_none(math.nan) is None
