"""Calibrators: from observed statistics to the range A of eq. (4), by max, percentile, entropy or squared error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vsquant.calibrate.statistics import CountArray, FloatArray, RangeStatistics
from vsquant.errors import CalibrationError
from vsquant.spec.formats import IntegerFormat

DoubleArray: TypeAlias = NDArray[np.float64]

ENTROPY_BINS: Final = 2048
"""Bins of the entropy calibrator, as in TensorRT; 32 for each level where that is more. Finer ones are merged."""

ENTROPY_SMALLEST_SHARE: Final = 16
"""The entropy calibrator tries no range below this part of the largest magnitude, as TensorRT (bin 128 of 2048)."""

MSE_CANDIDATES: Final = 1025
"""Ranges the mse calibrator tries, geometrically spaced."""

_MSE_SMALLEST_RATIO: Final = 2.0**-10
_ENTROPY_CANDIDATES: Final = 512


@dataclass(frozen=True, kw_only=True)
class Magnitudes:
    """What a calibrator sees of one group: the histogram of |x| (max(x, 0) for an unsigned format) and the codes."""

    counts: CountArray
    """(bins,) elements by magnitude."""
    width: float
    """Width of a bin, above zero."""
    largest: float
    """The exact largest magnitude, above zero."""
    qmax: int
    """The largest code of the format."""


class Calibrator(Protocol):
    """Chooses a range from one group's magnitudes; the result is in (0, largest]."""

    def __call__(self, seen: Magnitudes) -> float: ...


def max_range(seen: Magnitudes) -> float:
    """The exact largest magnitude: nothing is clipped."""
    return seen.largest


def percentile_range(seen: Magnitudes, *, percent: float) -> float:
    """The magnitude that ``percent`` of the elements do not exceed, interpolated within its bin."""
    cumulative = np.cumsum(seen.counts)
    wanted = percent / 100.0 * float(cumulative[-1])
    index = int(np.searchsorted(cumulative, wanted))
    before = float(cumulative[index] - seen.counts[index])
    fraction = (wanted - before) / float(seen.counts[index])
    return min((index + fraction) * seen.width, seen.largest)


def entropy_range(seen: Magnitudes) -> float:
    """The range whose quantized distribution has the least Kullback-Leibler divergence from the clipped one.

    As TensorRT does it (Migacz, "8-bit inference with TensorRT", GTC 2017), with qmax + 1 magnitude levels: a candidate
    keeps the first i bins, the reference P adds all that is clipped to its last bin, and Q spreads each level's count
    evenly over the level's non-empty bins. Zeros quantize without error, so bin 0 counts as much as bin 1.
    """
    levels = seen.qmax + 1
    counts, width = _merged(seen, max(ENTROPY_BINS, 32 * levels))
    counts[0] = counts[1]
    if not counts.any():
        return seen.largest
    used = int(np.flatnonzero(counts)[-1]) + 1
    if used <= levels:
        return seen.largest
    smallest = max(levels, used // ENTROPY_SMALLEST_SHARE)
    kept = np.unique(np.linspace(smallest, used, _ENTROPY_CANDIDATES).round().astype(np.int64))
    divergence = _divergences(counts, kept, levels)
    best = len(kept) - 1 - int(np.argmin(divergence[::-1]))
    return min(float(kept[best]) * width, seen.largest)


def mse_range(seen: Magnitudes) -> float:
    """The range of least expected squared error, clipping and rounding, of the N-bit per-tensor quantizer."""
    ratios = np.geomspace(_MSE_SMALLEST_RATIO, 1.0, MSE_CANDIDATES)
    candidates = ratios * seen.largest
    # The largest range comes first among equals: it clips least.
    return float(candidates[::-1][np.argmin(expected_squared_error(seen, candidates)[::-1])])


def expected_squared_error(seen: Magnitudes, ranges: DoubleArray) -> DoubleArray:
    """Sum of (m - clip(rint(m / s), 0, qmax) * s)^2 over the elements, s = range / qmax, m the centre of the bin.

    Args:
        seen: what was observed.
        ranges: (candidates,) ranges above zero.

    Returns:
        (candidates,) errors. Each is a sum over codes: elements of code q lie between (q - 1/2)s and (q + 1/2)s.
    """
    centres = (np.arange(len(seen.counts)) + 0.5) * seen.width
    moments = [_prefix(seen.counts * centres**power) for power in range(3)]
    steps = ranges / seen.qmax
    codes = np.arange(seen.qmax + 1)
    borders = (codes[1:] - 0.5) * steps[:, None]
    inner = np.ceil(borders / seen.width - 0.5).clip(0, len(centres)).astype(np.int64)
    edges = np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, len(centres))))
    zeroth, first, second = (np.diff(moment[edges], axis=1) for moment in moments)
    values = codes * steps[:, None]
    per_code = second - 2.0 * values * first + values**2 * zeroth
    return np.asarray(per_code.sum(axis=1))


CALIBRATORS: Final[Mapping[str, Calibrator]] = MappingProxyType(
    {
        "max": max_range,
        "percentile-99.9": partial(percentile_range, percent=99.9),
        "percentile-99.99": partial(percentile_range, percent=99.99),
        "percentile-99.999": partial(percentile_range, percent=99.999),
        "percentile-99.9999": partial(percentile_range, percent=99.9999),
        "entropy": entropy_range,
        "mse": mse_range,
    }
)
"""The calibrators by name; `create_calibrator` also knows every other "percentile-P"."""


def create_calibrator(name: str) -> Calibrator:
    """The calibrator called ``name``: one of `CALIBRATORS`, or "percentile-P" with 50 < P <= 100.

    Raises:
        CalibrationError: there is no such calibrator.
    """
    if name in CALIBRATORS:
        return CALIBRATORS[name]
    match = re.fullmatch(r"percentile-(\d+(?:\.\d+)?)", name)
    if match is None:
        raise CalibrationError(
            f"calibrator must be one of {', '.join(CALIBRATORS)} or percentile-P with 50 < P <= 100, not {name!r}"
        )
    percent = float(match[1])
    if not 50.0 < percent <= 100.0:
        raise CalibrationError(f"P of calibrator percentile-P must be above 50 and at most 100, not {match[1]}")
    return partial(percentile_range, percent=percent)


def calibrated_range(statistics: RangeStatistics, fmt: IntegerFormat, calibrator: str = "max") -> FloatArray:
    """The range A > 0 of each group, from which eq. (4) makes the static coarse scale fl(fl(A / qmax) / top).

    Args:
        statistics: what was observed; ranges are of |x|, of max(x, 0) where the format is unsigned.
        fmt: the activation's format.
        calibrator: a name `create_calibrator` knows.

    Returns:
        (groups,) float32 ranges, none above the exact largest magnitude.

    Raises:
        CalibrationError: unknown calibrator; nothing, or nothing but zeros, was observed.
    """
    choose = create_calibrator(calibrator)
    if statistics.total == 0:
        raise CalibrationError(
            f"layer {statistics.name!r} must see calibration data, not none at all; "
            "give batches that reach it, or skip the layer in the recipe"
        )
    counts = statistics.counts if fmt.signed else statistics.positive_counts
    largest = statistics.largest_magnitude if fmt.signed else np.maximum(statistics.maximum, np.float32(0))
    if not (largest > 0).all():
        raise CalibrationError(_all_zero_message(statistics, int(np.argmin(largest > 0)), fmt))
    ranges = [
        choose(Magnitudes(counts=group_counts, width=float(width), largest=float(top), qmax=fmt.qmax))
        for group_counts, width, top in zip(counts, statistics.bin_width, largest, strict=True)
    ]
    smallest = np.finfo(np.float32).smallest_subnormal
    return np.asarray(np.maximum(np.array(ranges, dtype=np.float32), smallest))


def _all_zero_message(statistics: RangeStatistics, group: int, fmt: IntegerFormat) -> str:
    where = f"layer {statistics.name!r}" + (f", group {group}," if statistics.groups > 1 else "")
    what = "a non-zero value" if fmt.signed else "a positive value"
    return f"{where} must see {what} in calibration, not only zeros; skip the layer in the recipe or give other batches"


def _merged(seen: Magnitudes, bins: int) -> tuple[CountArray, float]:
    """A copy of the histogram and its bin width; adjacent bins are merged by the factor that leaves about ``bins``."""
    factor = max(1, len(seen.counts) // bins)
    padded = np.pad(seen.counts, (0, -len(seen.counts) % factor))
    return padded.reshape(-1, factor).sum(axis=1), seen.width * factor


def _prefix(values: NDArray[np.float64] | CountArray) -> DoubleArray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _divergences(counts: CountArray, kept: CountArray, levels: int) -> DoubleArray:
    """KL(P || Q) of every candidate that keeps the first ``kept[c]`` bins, from prefix sums.

    With p the counts of P, q those of Q, T all elements and O the clipped ones, the divergence is
    (sum p log p - sum p log q) / T - log T + log(T - O); within a level log q is constant.
    """
    total = float(counts.sum())
    mass, filled, plogp = (
        _prefix(counts),
        _prefix((counts > 0).astype(np.int64)),
        _prefix(_xlogx(counts.astype(np.float64))),
    )
    edges = -(-np.arange(levels + 1) * kept[:, None] // levels)
    level_mass = np.diff(mass[edges], axis=1)
    level_filled = np.diff(filled[edges], axis=1)
    log_q = np.log(np.where(level_mass > 0, level_mass, 1.0) / np.maximum(level_filled, 1.0))
    clipped = total - mass[kept]
    last = counts[kept - 1].astype(np.float64)
    entropy = plogp[kept] - _xlogx(last) + _xlogx(last + clipped)
    cross = (level_mass * log_q).sum(axis=1) + clipped * log_q[:, -1]
    divergence = (entropy - cross) / total - np.log(total) + np.log(np.maximum(total - clipped, 1.0))
    # Clipped mass on a bin that Q leaves empty: the divergence is infinite.
    return np.where((clipped > 0) & (last == 0), np.inf, divergence)


def _xlogx(values: DoubleArray) -> DoubleArray:
    return np.asarray(values * np.log(np.where(values > 0, values, 1.0)))
