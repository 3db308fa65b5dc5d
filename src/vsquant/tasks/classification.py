"""What every image classification task does the same: batches, top-1, logits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vsquant.errors import ShapeError
from vsquant.progress import Progress, silent
from vsquant.results.scores import Scores
from vsquant.tasks.base import Batch, Task, checked_limit, checked_samples, run


class ImageSet(Protocol):
    """Labelled images in a fixed order."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class indices (images,)."""

    def batch(self, start: int, stop: int) -> torch.Tensor:
        """Images ``start`` to ``stop`` (exclusive), normalised: float32 (stop - start, channels, height, width)."""


class ClassificationTask(Task):
    """Top-1 over an evaluation set, with the images themselves as the groups that are resampled."""

    metric = "top-1"
    higher_is_better = True
    batch_images: int = 64
    """Images per batch; constant, since a float's last bit may depend on it."""

    @abstractmethod
    def calibration_images(self) -> ImageSet:
        """The images that ranges are calibrated on; none of them is an evaluation image."""

    @abstractmethod
    def evaluation_images(self) -> ImageSet:
        """The images that top-1 is measured on."""

    def calibration_batches(self, samples: int = 128, *, draw: int = 0) -> Sequence[Batch]:
        images = self.calibration_images()
        first = checked_samples(samples, len(images.labels), "images", draw=draw).start
        return [images.batch(first + start, first + stop) for start, stop in _spans(samples, self.batch_images)]

    @property
    def evaluation_samples(self) -> int:
        return len(self.evaluation_images().labels)

    def evaluate(self, model: nn.Module, *, limit: int | None = None, progress: Progress = silent) -> Scores:
        images = self.evaluation_images()
        count = checked_limit(limit, len(images.labels), "images")
        correct = np.empty(count, dtype=np.float64)
        step = f"evaluating {self.name}"
        progress(step, 0, count)
        for start, stop in _spans(count, self.batch_images):
            batch = images.batch(start, stop)
            with torch.inference_mode():
                predicted = self.logits(run(model, batch.to(_device_of(model))), batch).argmax(dim=1)
            correct[start:stop] = predicted.cpu().numpy() == images.labels[start:stop]
            progress(step, stop, count)
        return Scores(
            metric=self.metric,
            unit="%",
            higher_is_better=self.higher_is_better,
            values=100.0 * correct,
            groups=np.arange(count, dtype=np.int64),
            weights=np.ones(count, dtype=np.float64),
        )

    def logits(self, output: Any, batch: Batch) -> torch.Tensor:
        logits = output if isinstance(output, torch.Tensor) else output.logits
        if logits.ndim != 2:
            raise ShapeError(f"a classifier's logits must be (images, classes), not {tuple(logits.shape)}")
        return logits.float()

    def batchnorm_pairs(self, model: nn.Module) -> Sequence[tuple[str, str]] | None:
        return None


def _spans(count: int, size: int) -> list[tuple[int, int]]:
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _device_of(model: nn.Module) -> torch.device:
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
