"""How ranges are observed: a streaming histogram, and the calibrators that choose a range from it."""

from vsquant.calibrate.calibrators import CALIBRATORS, calibrated_range
from vsquant.calibrate.observer import RangeObserver
from vsquant.calibrate.statistics import RangeStatistics
from vsquant.calibrate.weights import range_scale, weight_range

__all__ = ["CALIBRATORS", "RangeObserver", "RangeStatistics", "calibrated_range", "range_scale", "weight_range"]
