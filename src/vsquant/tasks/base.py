"""What a task is: a real model, real calibration and evaluation data, and a metric with its standard error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from vsquant.errors import DataError
from vsquant.progress import Progress, silent
from vsquant.results.scores import Scores

Batch: TypeAlias = torch.Tensor | Mapping[str, torch.Tensor]
"""One batch of model inputs; dimension 0 is samples."""


def run(model: nn.Module, batch: Batch) -> Any:
    """The model's output on one batch: ``model(batch)`` for a tensor, ``model(**batch)`` for a mapping."""
    if isinstance(batch, torch.Tensor):
        return model(batch)
    return model(**batch)


def checked_limit(limit: int | None, available: int, unit: str) -> int:
    """The number of samples to evaluate: ``limit``, or all ``available`` of them where it is None.

    Raises:
        DataError: ``limit`` is below 1 or above ``available``; ``unit`` names the samples ("images").
    """
    if limit is None:
        return available
    if not 1 <= limit <= available:
        raise DataError(
            f"limit must be between 1 and the {available} evaluation {unit} there are, not {limit}; "
            "leave it out to evaluate all of them"
        )
    return limit


def checked_samples(samples: int, available: int, unit: str, *, draw: int = 0) -> slice:
    """Where the calibration samples asked for lie in their order, once it is known that they exist.

    Raises:
        DataError: ``samples`` is below 1, or that many, or that many disjoint draws, are not ``available``; ``unit``
            names the samples ("images").
    """
    if samples < 1:
        raise DataError(f"samples must be at least 1 calibration sample, not {samples}")
    if draw < 0:
        raise DataError(f"draw must be 0 or the number of draws before it, not {draw}")
    end = (draw + 1) * samples
    if end > available:
        raise DataError(f"there must be {end} calibration {unit}, not {available}; add {unit} or ask for fewer of them")
    return slice(draw * samples, end)


class Task(ABC):
    """A model with the data it is measured on. Building one is cheap; models and data are loaded on first use."""

    name: str
    """What the command line calls the task, such as ``"cifar10"``."""
    title: str
    """What a table's heading says."""
    metric: str
    """``"top-1"``, ``"F1"`` or ``"perplexity"``."""
    higher_is_better: bool
    source: str
    """Origin and licence of data and weights, in one paragraph."""
    caveat: str
    """What the figure must not be compared with; empty if there is nothing to warn of."""
    published: str | None = None
    """Key of the published table that this is the poster's own task for."""
    rows: tuple[str, ...] = ()
    """Rows of the task's own default table (weight/activation bits); empty for those that its metric usually has."""
    columns: tuple[str, ...] = ()
    """Columns of the task's own default table (weight/activation scale bits)."""

    def prepare(self, progress: Progress = silent) -> None:  # noqa: B027
        """Do once what takes long before a first model can be had (train it); most tasks have nothing to do.

        What it makes is kept, and every other method does the same silently where this was not called.
        """

    @abstractmethod
    def load_model(self) -> nn.Module:
        """A fresh float32 model in evaluation mode, at every call."""

    @abstractmethod
    def calibration_batches(self, samples: int = 128, *, draw: int = 0) -> Sequence[Batch]:
        """The first ``samples`` calibration samples in batches, the same ones at every call.

        ``draw`` d takes the ``samples`` that follow the first d times ``samples``: other draws share none of them.

        Raises:
            DataError: there are fewer calibration samples than asked for.
        """

    @property
    @abstractmethod
    def evaluation_samples(self) -> int:
        """How many samples `evaluate` measures where it has no limit."""

    @abstractmethod
    def evaluate(self, model: nn.Module, *, limit: int | None = None, progress: Progress = silent) -> Scores:
        """Scores of ``model`` on the evaluation samples, or on the first ``limit`` of one fixed order (nested subsets).

        Raises:
            DataError: ``limit`` is below 1 or above the number of evaluation samples.
        """

    @abstractmethod
    def logits(self, output: Any, batch: Batch) -> torch.Tensor:
        """Float32 logits (rows, classes) of the model's ``output`` on ``batch``; no rows for padding, all finite."""

    @abstractmethod
    def fingerprint(self) -> Mapping[str, str]:
        """SHA-256 in hex: ``"model"`` of weights and configuration, ``"data"`` of all samples as used."""

    @abstractmethod
    def batchnorm_pairs(self, model: nn.Module) -> Sequence[tuple[str, str]] | None:
        """Declared (convolution, batch norm) module names to fold, or None where tracing finds them."""

    @abstractmethod
    def architecture(self) -> Mapping[str, str]:
        """What `vsquant.tasks.architectures.build` needs to rebuild the bare module; its key ``"family"`` names who."""
