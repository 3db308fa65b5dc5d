"""Per-sample scores of one evaluation, their mean with its standard error, and paired differences.

Standard errors come from the cluster bootstrap: whole groups (article, image, document) are drawn with replacement, a
fixed number of times from a fixed seed, so that the same scores always have the same standard error and two
evaluations of the same samples are resampled alike.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vsquant.errors import ShapeError, StoreError

BOOTSTRAP_RESAMPLES: Final = 2000
BOOTSTRAP_SEED: Final = 20211
_DRAWS_AT_ONCE: Final = 1 << 21
_HEADER_LENGTH_BYTES: Final = 4

Aggregate: TypeAlias = Literal["mean", "exp_mean"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric's difference between two evaluations of the same samples, and its paired standard error.

    ``standard_error`` is NaN where all samples are of one group: nothing then tells how much the difference varies.
    """

    value: float
    standard_error: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What one evaluation measured, sample by sample.

    ``values[i]`` is sample i's score and ``weights[i]`` how much it counts (tokens for perplexity, else 1). Samples of
    one ``groups`` value (article, image, document) are resampled together. ``"mean"``: the metric is the weighted mean;
    ``"exp_mean"``: its exponential (perplexity of mean negative log-likelihoods). Percent metrics have values 0..100.

    Invariants: the three arrays are one-dimensional, equally long, not empty, and read-only; weights are positive.
    """

    metric: str
    unit: str
    higher_is_better: bool
    values: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        for name, dtype in (("values", np.float64), ("groups", np.int64), ("weights", np.float64)):
            array = np.array(getattr(self, name), dtype=dtype)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.values.ndim != 1 or not self.values.shape == self.groups.shape == self.weights.shape:
            raise ShapeError(
                "values, groups and weights must be one-dimensional and equally long, not "
                f"{self.values.shape}, {self.groups.shape}, {self.weights.shape}"
            )
        if self.values.size == 0:
            raise ShapeError("an evaluation must have at least one sample, not none")
        if not bool((self.weights > 0).all()):
            raise ShapeError(f"weights must be positive, not {self.weights.min()}; leave out samples that do not count")
        if self.aggregate not in ("mean", "exp_mean"):
            raise ShapeError(f"aggregate must be 'mean' or 'exp_mean', not {self.aggregate!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scores):
            return NotImplemented
        return self._heading == other._heading and all(
            np.array_equal(mine, theirs, equal_nan=mine.dtype.kind == "f")
            for mine, theirs in zip(self._arrays, other._arrays, strict=True)
        )

    def __hash__(self) -> int:
        return hash((self._heading, self.values.tobytes()))

    @property
    def _heading(self) -> tuple[str, str, bool, Aggregate]:
        return self.metric, self.unit, self.higher_is_better, self.aggregate

    @property
    def _arrays(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        return self.values, self.groups, self.weights

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.values.size)

    @property
    def group_count(self) -> int:
        """Number of groups that are resampled as wholes."""
        return int(np.unique(self.groups).size)

    def value(self) -> float:
        """The metric: the weighted mean of the samples' values, or its exponential under ``"exp_mean"``."""
        return float(self._metric_of(self._group_sums().sum(axis=0)))

    def standard_error(self) -> float:
        """Standard deviation of the metric over the bootstrap's resamples; NaN where there is only one group."""
        return _spread(self._metric_of(_resampled_sums(self._group_sums())))

    def difference(self, baseline: Scores) -> Difference:
        """``self - baseline`` in the metric's unit, with the standard error of the paired difference.

        Raises `ShapeError` unless both evaluations are of the same metric on the same samples (equal counts, groups and
        weights, in the same order).
        """
        self._require_paired(baseline)
        both = np.hstack([self._group_sums(), baseline._group_sums()])
        resampled = _resampled_sums(both)
        with np.errstate(invalid="ignore"):
            spread = _spread(self._metric_of(resampled[:, :2]) - baseline._metric_of(resampled[:, 2:]))
        return Difference(value=self.value() - baseline.value(), standard_error=spread)

    def to_bytes(self) -> bytes:
        """A self-describing, compressed form: header length (4 bytes, little endian), JSON header, zlib of arrays."""
        header = json.dumps(
            {
                "metric": self.metric,
                "unit": self.unit,
                "higher_is_better": self.higher_is_better,
                "aggregate": self.aggregate,
                "count": self.count,
            }
        ).encode()
        arrays = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in self._arrays)
        return len(header).to_bytes(_HEADER_LENGTH_BYTES, "little") + header + zlib.compress(arrays)

    @staticmethod
    def from_bytes(data: bytes) -> Scores:
        """The scores that `to_bytes` wrote; raises `StoreError` where ``data`` is damaged."""
        start = _HEADER_LENGTH_BYTES + int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
        try:
            header = json.loads(data[_HEADER_LENGTH_BYTES:start])
            arrays = zlib.decompress(data[start:])
            size = 8 * int(header["count"])
            return Scores(
                metric=header["metric"],
                unit=header["unit"],
                higher_is_better=header["higher_is_better"],
                values=np.frombuffer(arrays[:size], dtype="<f8"),
                groups=np.frombuffer(arrays[size : 2 * size], dtype="<i8"),
                weights=np.frombuffer(arrays[2 * size :], dtype="<f8"),
                aggregate=header["aggregate"],
            )
        except (ValueError, KeyError, TypeError, zlib.error) as error:
            raise StoreError(
                f"stored scores must be what Scores.to_bytes wrote, not damaged bytes ({error})"
            ) from error

    def _group_sums(self) -> npt.NDArray[np.float64]:
        """Per group, in ascending order of group: the sum of weighted values and the sum of weights, (groups, 2)."""
        _, index = np.unique(self.groups, return_inverse=True)
        sums = [np.bincount(index, weights=column) for column in (self.weights * self.values, self.weights)]
        return np.stack(sums, axis=1)

    def _metric_of(self, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The metric of sums of weighted values and of weights, (…, 2) -> (…)."""
        mean = sums[..., 0] / sums[..., 1]
        if self.aggregate == "mean":
            return np.asarray(mean)
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(mean))

    def _require_paired(self, baseline: Scores) -> None:
        if self._heading != baseline._heading:
            raise ShapeError(
                f"a paired difference must be of one metric, not of {self.metric!r} ({self.aggregate}) and "
                f"{baseline.metric!r} ({baseline.aggregate})"
            )
        if self.count != baseline.count:
            raise ShapeError(
                f"a paired difference must be on the same samples, not on {self.count} and {baseline.count}; "
                "evaluate both with the same limit"
            )
        if not np.array_equal(self.groups, baseline.groups) or not np.array_equal(self.weights, baseline.weights):
            raise ShapeError(
                "a paired difference must be on the same samples in the same order, not on samples of other groups "
                "or weights; evaluate both on the same data"
            )


def _resampled_sums(sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sums over groups drawn with replacement, (groups, columns) -> (resamples, columns).

    The draws depend on the number of groups alone, so any two evaluations with equal groups are resampled alike.
    """
    groups, columns = sums.shape
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    resampled = np.empty((BOOTSTRAP_RESAMPLES, columns))
    rows = max(1, _DRAWS_AT_ONCE // groups)
    for start in range(0, BOOTSTRAP_RESAMPLES, rows):
        stop = min(start + rows, BOOTSTRAP_RESAMPLES)
        draws = generator.integers(0, groups, size=(stop - start, groups))
        for column in range(columns):
            resampled[start:stop, column] = sums[:, column][draws].sum(axis=1)
    return resampled if groups > 1 else np.full_like(resampled, math.nan)


def _spread(resampled: npt.NDArray[np.float64]) -> float:
    with np.errstate(invalid="ignore"):
        return float(np.std(resampled, ddof=1))
