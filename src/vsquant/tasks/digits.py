"""The embedded task: scikit-learn's handwritten digits and a residual network trained on them on first use."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vsquant.errors import DataError, MissingExtraError
from vsquant.files import replacing
from vsquant.progress import Progress, silent
from vsquant.tasks.classification import ClassificationTask
from vsquant.tasks.digits_training import TrainingRecipe, train
from vsquant.tasks.fingerprints import sha256_of_arrays, sha256_of_model
from vsquant.tasks.models.digits_cnn import DigitsCnn

RECIPE: Final = TrainingRecipe(widths=(32, 64, 128), blocks=2, epochs=12)
EVALUATION_IMAGES: Final = 597
RECOMMENDED_ROWS: Final = ("2/4U", "3/3U", "4/4U", "8/8U")
RECOMMENDED_SCALES: Final = ("4/4", "4/6", "6/6", "fp32")
"""Weight/activation bits and scale bits at which the table of this task says most."""

_TRAINING_VERSION: Final = 1
_ORDER_SEED: Final = 0
_GREY_LEVELS: Final = 16


class GreyImages:
    """Images (n, 8, 8) of 0 … 16 with their labels, in memory."""

    def __init__(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        self.pixels = pixels
        self.labels = labels

    def batch(self, start: int, stop: int) -> torch.Tensor:
        """Grey levels in 0 … 1, float32 (stop - start, 1, 8, 8)."""
        return torch.from_numpy(self.pixels[start:stop]).unsqueeze(1).float().div_(_GREY_LEVELS)


class DigitsTask(ClassificationTask):
    """1,200 digits to train on, the first of them to calibrate with, 597 others to evaluate on.

    The trained weights are kept in the user's cache folder, under a name that changes with all that made them.
    """

    title = "residual CNN on scikit-learn digits"
    source = (
        "Images: scikit-learn's load_digits, the test part of the UCI optical recognition of handwritten digits data "
        "(E. Alpaydin, C. Kaynak, 1998), CC BY 4.0. Weights: trained here from scratch, seed 0."
    )
    rows = RECOMMENDED_ROWS
    columns = (*RECOMMENDED_SCALES, "per-channel")
    caveat = "8×8 images and a network trained in seconds: a demonstration, not a benchmark"
    batch_images = 128

    def __init__(self, name: str = "digits", *, data: Path | None = None, model: str | None = None) -> None:
        if data is not None:
            raise DataError(f"task {name!r} brings its own data; leave --data out, not {str(data)!r}")
        if model is not None:
            raise DataError(
                f"task {name!r} brings its own model; leave --model out, or give - for MODEL, not {model!r}"
            )
        self.name = name
        self._images: tuple[GreyImages, GreyImages] | None = None
        self._state: dict[str, torch.Tensor] | None = None

    def prepare(self, progress: Progress = silent) -> None:
        self._weights(progress)

    def load_model(self) -> nn.Module:
        model = DigitsCnn(RECIPE.widths, RECIPE.blocks)
        model.load_state_dict(self._weights(silent))
        return model.eval()

    def calibration_images(self) -> GreyImages:
        return self._split()[0]

    def evaluation_images(self) -> GreyImages:
        return self._split()[1]

    def fingerprint(self) -> Mapping[str, str]:
        return {"model": sha256_of_model(self._weights(silent), self.architecture()), "data": self._data_fingerprint()}

    def architecture(self) -> Mapping[str, str]:
        return {
            "family": "digits-cnn",
            "widths": ",".join(str(width) for width in RECIPE.widths),
            "blocks": str(RECIPE.blocks),
        }

    def _data_fingerprint(self) -> str:
        return sha256_of_arrays(*(array for images in self._split() for array in (images.pixels, images.labels)))

    def _split(self) -> tuple[GreyImages, GreyImages]:
        if self._images is None:
            pixels, labels = _digits()
            order = np.random.Generator(np.random.PCG64(_ORDER_SEED)).permutation(len(labels))
            training, evaluation = order[:-EVALUATION_IMAGES], order[-EVALUATION_IMAGES:]
            self._images = (
                GreyImages(pixels[training], labels[training]),
                GreyImages(pixels[evaluation], labels[evaluation]),
            )
        return self._images

    def _weights(self, progress: Progress) -> dict[str, torch.Tensor]:
        if self._state is None:
            path = cache_folder() / f"digits-{self._recipe_hash()}.safetensors"
            self._state = _stored(path) or self._trained(path, progress)
        return self._state

    def _trained(self, path: Path, progress: Progress) -> dict[str, torch.Tensor]:
        images = self.calibration_images()
        model = train(RECIPE, images.batch(0, len(images.labels)), torch.from_numpy(images.labels), progress)
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        _store(path, state)
        return state

    def _recipe_hash(self) -> str:
        made_by = {
            "recipe": asdict(RECIPE),
            "version": _TRAINING_VERSION,
            "torch": torch.__version__,
            "data": self._data_fingerprint(),
        }
        return hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """Where trained weights are kept: ``$XDG_CACHE_HOME/vsquant``, or ``~/.cache/vsquant``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vsquant"


def _digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise MissingExtraError("scikit-learn", "demo", "the digits task") from error
    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)


def _stored(path: Path) -> dict[str, torch.Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    expected = DigitsCnn(RECIPE.widths, RECIPE.blocks).state_dict()
    fits = {name: tensor.shape for name, tensor in state.items()} == {n: t.shape for n, t in expected.items()}
    return state if fits else None


def _store(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    from safetensors.torch import save

    try:
        with replacing(path) as temporary:
            temporary.write_bytes(save(dict(state)))
    except OSError as error:
        raise DataError(
            f"the trained weights must be written to {path}, but {error.strerror}; "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
