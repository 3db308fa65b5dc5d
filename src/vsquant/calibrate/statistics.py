"""What an observer saw of one activation: a frozen record that calibrators read and caches keep."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vsquant.errors import CalibrationError

FloatArray: TypeAlias = NDArray[np.float32]
CountArray: TypeAlias = NDArray[np.int64]

_FIELDS: Final[Mapping[str, type[np.generic]]] = {
    "minimum": np.float32,
    "maximum": np.float32,
    "counts": np.int64,
    "negative_counts": np.int64,
    "bin_width": np.float32,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class RangeStatistics:
    """Extremes and a histogram of |x|, per group (a group is what shares one coarse scale).

    Invariants: bin b of group g counts the elements with ``b * bin_width[g] <= |x| < (b + 1) * bin_width[g]``;
    ``bin_width`` is the smallest power of two (at least the smallest normal float32) for which the largest |x| has a
    bin, so the histogram depends on the observed elements alone, not on their order or batches. ``negative_counts`` is
    the part of ``counts`` that negative elements hold, bin 0 aside. Every group has the same number of elements.
    """

    name: str
    minimum: FloatArray
    """(groups,) smallest element; +inf where nothing was observed."""
    maximum: FloatArray
    """(groups,) largest element; -inf where nothing was observed."""
    counts: CountArray
    """(groups, bins) elements by magnitude."""
    negative_counts: CountArray
    """(groups, bins) elements <= -bin_width by magnitude; bin 0 is 0."""
    bin_width: FloatArray
    """(groups,) width of a bin; 0 where only zeros were observed."""

    def __post_init__(self) -> None:
        groups, bins = self.counts.shape
        shapes = {"minimum": (groups,), "maximum": (groups,), "negative_counts": (groups, bins), "bin_width": (groups,)}
        arrays = self.to_arrays()
        for field, shape in shapes.items():
            if arrays[field].shape != shape:
                raise CalibrationError(
                    f"{field} of the statistics of {self.name!r} must have shape {shape}, not {arrays[field].shape}; "
                    "observe the calibration data again"
                )
        for field, dtype in _FIELDS.items():
            if arrays[field].dtype != dtype:
                raise CalibrationError(
                    f"{field} of the statistics of {self.name!r} must be {np.dtype(dtype)}, not {arrays[field].dtype}; "
                    "observe the calibration data again"
                )

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.counts.shape[0])

    @property
    def total(self) -> int:
        """Elements observed in each group."""
        return int(self.counts[0].sum())

    @property
    def is_non_negative(self) -> bool:
        """Whether something was observed and none of it was negative: then an unsigned format loses nothing."""
        return self.total > 0 and bool((self.minimum >= 0).all())

    @property
    def largest_magnitude(self) -> FloatArray:
        """(groups,) exact max |x|."""
        return np.maximum(self.maximum, -self.minimum)

    @property
    def positive_counts(self) -> CountArray:
        """(groups, bins) histogram of max(x, 0): negative elements count as zeros, in bin 0."""
        counts = self.counts - self.negative_counts
        counts[:, 0] += self.negative_counts.sum(axis=1)
        return counts

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The record as named arrays (everything but ``name``), for storage without pickle."""
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "counts": self.counts,
            "negative_counts": self.negative_counts,
            "bin_width": self.bin_width,
        }

    @classmethod
    def from_arrays(cls, name: str, arrays: Mapping[str, NDArray[np.generic]]) -> RangeStatistics:
        """Inverse of `to_arrays`.

        Raises:
            CalibrationError: a field is missing, or has a wrong shape or type.
        """
        missing = sorted(set(_FIELDS) - set(arrays))
        if missing:
            raise CalibrationError(
                f"stored statistics of {name!r} must hold {sorted(_FIELDS)}, not only {sorted(arrays)}; "
                "observe the calibration data again"
            )
        return cls(
            name=name,
            minimum=np.asarray(arrays["minimum"]),
            maximum=np.asarray(arrays["maximum"]),
            counts=np.asarray(arrays["counts"]),
            negative_counts=np.asarray(arrays["negative_counts"]),
            bin_width=np.asarray(arrays["bin_width"]),
        )

    def fingerprint(self) -> str:
        """SHA-256 of the record's content, name included: equal exactly when the records are."""
        digest = hashlib.sha256(self.name.encode())
        for field, array in self.to_arrays().items():
            digest.update(f"\0{field}{array.shape}{array.dtype.str}\0".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()
