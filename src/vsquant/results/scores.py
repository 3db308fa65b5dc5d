"""Per-sample scores of one evaluation, their mean with its standard error, and paired differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vsquant.errors import ShapeError

BOOTSTRAP_RESAMPLES: Final = 2000
BOOTSTRAP_SEED: Final = 20211

Aggregate: TypeAlias = Literal["mean", "exp_mean"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What one evaluation measured, sample by sample.

    ``values[i]`` is sample i's score and ``weights[i]`` how much it counts (tokens for perplexity, else 1). Samples of
    one ``groups`` value (article, image, document) are resampled together. ``"mean"``: the metric is the weighted mean;
    ``"exp_mean"``: its exponential (perplexity of mean negative log-likelihoods).
    """

    metric: str
    unit: str
    higher_is_better: bool
    values: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or not self.values.shape == self.groups.shape == self.weights.shape:
            raise ShapeError(
                "values, groups and weights must be one-dimensional and equally long, not "
                f"{self.values.shape}, {self.groups.shape}, {self.weights.shape}"
            )
        if self.values.size == 0:
            raise ShapeError("an evaluation must have at least one sample, not none")

    @property
    def count(self) -> int:
        """Number of samples."""
        return int(self.values.size)
