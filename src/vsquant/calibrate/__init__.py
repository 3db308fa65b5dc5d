"""How ranges are observed: a streaming histogram, and the calibrators that choose a range from it."""

from vsquant.calibrate.calibrators import CALIBRATORS, calibrated_range
from vsquant.calibrate.moments import SecondMoment
from vsquant.calibrate.observer import RangeObserver
from vsquant.calibrate.statistics import RangeStatistics
from vsquant.calibrate.vectors import RowSample, VectorMethod, vector_range
from vsquant.calibrate.weights import range_scale, weight_range

__all__ = [
    "CALIBRATORS",
    "RangeObserver",
    "RangeStatistics",
    "RowSample",
    "SecondMoment",
    "VectorMethod",
    "calibrated_range",
    "range_scale",
    "vector_range",
    "weight_range",
]
