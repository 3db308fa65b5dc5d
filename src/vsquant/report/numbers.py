"""Figures as text: one way to print metrics, differences, errors, sizes and times everywhere."""

from __future__ import annotations

import math
from typing import Final

from vsquant.results import Difference

MINUS: Final = "−"
_COARSE_ERROR: Final = 0.095
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def metric_text(value: float, unit: str) -> str:
    """A metric: one decimal in percent, else about four significant digits."""
    if not math.isfinite(value):
        return "∞" if value == math.inf else "n/a"
    if unit == "%":
        return _signed(f"{value:.1f}")
    if abs(value) >= 1e6:
        return _signed(f"{value:.1e}")
    return _signed(f"{value:.{_decimals(value)}f}")


def error_text(error: float, unit: str, value: float = 0.0) -> str:
    """``±`` and a standard error to the precision its metric ``value`` is shown with; empty where there is none."""
    if not math.isfinite(error):
        return ""
    if unit == "%":
        return f"±{error:.{1 if error == 0 or error >= _COARSE_ERROR else 2}f}"
    return f"±{error:.1e}" if abs(value) >= 1e6 else f"±{error:.{_decimals(max(abs(value), error))}f}"


def difference_text(difference: Difference, unit: str) -> str:
    """``−0.8±0.3``: a signed difference with its standard error, two decimals where the error is below a tenth."""
    value, error = difference.value, difference.standard_error
    if not math.isfinite(value):
        return "+∞" if value == math.inf else "n/a"
    if unit == "%":
        fine = math.isfinite(error) and 0 < error < _COARSE_ERROR
        text = f"{value:+.{2 if fine else 1}f}"
    else:
        text = f"{value:+.1e}" if abs(value) >= 1e6 else f"{value:+.{_decimals(value)}f}"
    return _signed(text) + error_text(error, unit, value)


def size_text(size_bytes: float) -> str:
    """Bytes in the largest binary unit that leaves a number of at least one: ``1.5 MiB``."""
    exponent = 0
    while size_bytes >= 1024 and exponent < len(_SIZES) - 1:
        size_bytes /= 1024
        exponent += 1
    return f"{size_bytes:.{0 if exponent == 0 else 1}f} {_SIZES[exponent]}"


def time_text(seconds: float) -> str:
    """Seconds as ``8.5 s``, ``12 min`` or ``3.4 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def finite_or_none(value: float) -> float | None:
    """``value`` for JSON, which has no infinities."""
    return value if math.isfinite(value) else None


def _decimals(value: float) -> int:
    """Decimals that show about four significant digits."""
    size = abs(value)
    return 2 if size < 100 else 1 if size < 1000 else 0


def _signed(text: str) -> str:
    return text.replace("-", MINUS) if text.startswith("-") else text
