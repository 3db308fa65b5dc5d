"""A task of 40 small images that takes no time, and the program ``vsquant`` with it among the built-in ones.

Environment: TINY_LOG is a file that gets a line for each evaluation; TINY_KILL_AT is the number of the evaluation, of
this process, that ends in SIGKILL; TINY_SLEEP is a file to make, and then to wait, in the middle of an evaluation.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vsquant import cli
from vsquant.errors import DataError, VsquantError
from vsquant.progress import Progress, silent
from vsquant.tasks import registry
from vsquant.tasks.classification import ClassificationTask
from vsquant.tasks.models.digits_cnn import DigitsCnn
from vsquant.workflows.record import quantization_record

IMAGES = 40


class Images:
    def __init__(self, pixels: torch.Tensor, labels: Any) -> None:
        self.pixels, self.labels = pixels, labels

    def batch(self, start: int, stop: int) -> torch.Tensor:
        return self.pixels[start:stop]


def network() -> nn.Module:
    torch.manual_seed(0)
    return DigitsCnn((4, 8), 1).eval()


class TinyTask(ClassificationTask):
    title = "tiny network on noise"
    source = "Images: noise. Weights: noise."
    caveat = "noise"
    batch_images = 16
    rows = ("3/4U", "8/8")
    columns = ("4/6", "fp32", "per-channel")

    def __init__(
        self, name: str = "tiny", *, data: Path | None = None, model: str | None = None, seed: int = 1
    ) -> None:
        if data is not None and not data.is_dir():
            raise DataError(f"data of task {name} must be an existing folder, not {str(data)!r}")
        self.name = name
        self.evaluations = 0
        self._images = torch.rand(IMAGES, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        self._calibration = torch.rand(128, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def load_model(self) -> nn.Module:
        return network()

    def calibration_images(self) -> Images:
        return Images(self._calibration, np.zeros(len(self._calibration), np.int64))

    def evaluation_images(self) -> Images:
        with torch.inference_mode():
            labels = network()(self._images).argmax(dim=1).numpy()
        return Images(self._images, labels)

    def evaluate(self, model: nn.Module, *, limit: int | None = None, progress: Progress = silent) -> Any:
        self.evaluations += 1
        if os.environ.get("TINY_KILL_AT") == str(self.evaluations):
            os.kill(os.getpid(), signal.SIGKILL)
        if "TINY_SLEEP" in os.environ:
            Path(os.environ["TINY_SLEEP"]).touch()
            time.sleep(60)
        scores = super().evaluate(model, limit=limit, progress=progress)
        if "TINY_LOG" in os.environ:
            with Path(os.environ["TINY_LOG"]).open("a") as log:
                log.write(_identity(model) + "\n")
        return scores

    def fingerprint(self) -> Mapping[str, str]:
        return {"model": "m", "data": "d"}

    def architecture(self) -> Mapping[str, str]:
        return {"family": "digits-cnn", "widths": "4,8", "blocks": "1"}

    def batchnorm_pairs(self, model: nn.Module) -> Sequence[tuple[str, str]] | None:
        return None


def _identity(model: nn.Module) -> str:
    try:
        record = quantization_record(model)
    except VsquantError:
        return "float"
    return f"{record.scale_mode} {record.activation_calibrator} {record.layers[-1].spec}"


def make_tiny(name: str, *, data: Path | None, model: str | None) -> TinyTask:
    return TinyTask(name, data=data, model=model)


if __name__ == "__main__":
    # Ignored in whatever a shell started in the background, and that is inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    registry.TASKS = {**registry.TASKS, "tiny": make_tiny}
    sys.argv[0] = "vsquant"
    cli.main()
