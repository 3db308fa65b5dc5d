"""Rebuilding a bare module from the architecture that a checkpoint's header names."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from torch import nn

from vsquant.errors import DataError, MissingExtraError
from vsquant.tasks.models.cifar_resnet import CifarResNet
from vsquant.tasks.models.digits_cnn import DigitsCnn
from vsquant.tasks.models.efficientnet_lite import EfficientNetLite0
from vsquant.tasks.models.resnet import ResNet50

_MAX_UNITS: Final = 65536
"""Bound on widths, depths and classes from a header, so that a foreign one cannot ask for endless memory."""

_ATTENTIONS: Final = ("eager", "sdpa")
_REACHING_OUT: Final = ("auto_map", "use_pretrained_backbone")

_TIMM_NAME: Final = re.compile(r"[a-z0-9_]+")


def build(architecture: Mapping[str, str]) -> nn.Module:
    """The module that `Task.architecture` describes, float32, in evaluation mode, with random weights.

    Raises:
        DataError: the family is not one vsquant knows, or what the architecture says of it is missing or malformed.
        MissingExtraError: the family's package is not installed.
    """
    family = architecture.get("family", "")
    if family not in FAMILIES:
        raise DataError(
            f"the family of an architecture must be one of {', '.join(FAMILIES)}, not {family!r}; "
            "pass the module itself instead"
        )
    return FAMILIES[family](architecture).float().eval()


def describe(model: nn.Module) -> dict[str, str] | None:
    """The architecture of a model that describes itself (those of transformers do), None for others."""
    transformers = sys.modules.get("transformers")
    if transformers is None or not isinstance(model, transformers.PreTrainedModel):
        return None
    config = json.dumps(model.config.to_dict(), sort_keys=True, separators=(",", ":"), default=str)
    described = {"family": "transformers", "class": type(model).__name__, "config": config}
    attention = model.config._attn_implementation  # left out of the configuration's dictionary
    return described | ({"attention": attention} if attention in _ATTENTIONS else {})


def _digits_cnn(architecture: Mapping[str, str]) -> nn.Module:
    widths = _field(architecture, "widths").split(",")
    return DigitsCnn([_number("widths", width) for width in widths], _number("blocks", _field(architecture, "blocks")))


def _cifar_resnet(architecture: Mapping[str, str]) -> nn.Module:
    return CifarResNet(_number("depth", _field(architecture, "depth")))


def _efficientnet_lite(architecture: Mapping[str, str]) -> nn.Module:
    variant = _field(architecture, "variant")
    if variant != "lite0":
        raise DataError(f"variant of the architecture efficientnet-lite must be 'lite0', not {variant!r}")
    return EfficientNetLite0()


def _resnet(architecture: Mapping[str, str]) -> nn.Module:
    depth = _field(architecture, "depth")
    if depth != "50":
        raise DataError(f"depth of the architecture resnet must be '50', not {depth!r}")
    return ResNet50(_number("classes", _field(architecture, "classes")))


def _transformers(architecture: Mapping[str, str]) -> nn.Module:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError("transformers", "transformers", "an architecture of the family transformers") from error
    class_name, config = _field(architecture, "class"), _config(_field(architecture, "config"))
    model_class = getattr(transformers, class_name, None)
    if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
        raise DataError(f"class of the architecture must be a model class of transformers, not {class_name!r}")
    config_class = model_class.config_class
    if config_class is None or config_class.model_type != config.get("model_type"):
        raise DataError(f"config of the architecture must be that of a {class_name}, not {config.get('model_type')!r}")
    attention = architecture.get("attention")
    if attention not in (*_ATTENTIONS, None):
        raise DataError(f"attention of the architecture must be one of {', '.join(_ATTENTIONS)}, not {attention!r}")
    options = {} if attention is None else {"attn_implementation": attention}
    try:
        model: nn.Module = model_class(config_class.from_dict(_without_code(config), **options))
    except _config_errors() as error:
        raise DataError(f"config of the architecture must be one that makes a {class_name}: {error}") from error
    return model


def _without_code(config: Any) -> Any:
    """A configuration without what would make its model run or fetch code and weights from elsewhere."""
    if isinstance(config, dict):
        return {k: _without_code(v) for k, v in config.items() if k not in _REACHING_OUT and "implementation" not in k}
    return [_without_code(item) for item in config] if isinstance(config, list) else config


def _config_errors() -> tuple[type[Exception], ...]:
    """What the classes of transformers raise for configurations that make no sense."""
    from huggingface_hub import errors

    strict: type[Exception] = vars(errors).get("StrictDataclassError", ValueError)
    usual = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError)
    return (*usual, ValueError, strict)


def _timm(architecture: Mapping[str, str]) -> nn.Module:
    timm = import_timm("an architecture of the family timm")
    name = _field(architecture, "model")
    if not _TIMM_NAME.fullmatch(name) or not timm.is_model(name):
        raise DataError(f"model of the architecture must be a model of timm, not {name!r}")
    classes = _number("classes", _field(architecture, "classes"))
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)
    return model


FAMILIES: Final[Mapping[str, Callable[[Mapping[str, str]], nn.Module]]] = MappingProxyType(
    {
        "digits-cnn": _digits_cnn,
        "cifar-resnet": _cifar_resnet,
        "efficientnet-lite": _efficientnet_lite,
        "resnet": _resnet,
        "transformers": _transformers,
        "timm": _timm,
    }
)


def import_timm(needed_for: str) -> Any:
    """The package `timm`, which in turn needs `torchvision`; raises `MissingExtraError` where one is missing."""
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "timm", "timm", needed_for) from error
    return timm


def _field(architecture: Mapping[str, str], name: str) -> str:
    if name not in architecture:
        raise DataError(f"the architecture {architecture['family']} must say its {name!r}, but it does not")
    return architecture[name]


def _number(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= _MAX_UNITS:
        raise DataError(f"{name} of the architecture must be whole numbers from 1 to {_MAX_UNITS}, not {text!r}")
    return int(text)


def _config(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"config of the architecture must be JSON: {error}") from error
    if not isinstance(config, dict):
        raise DataError(f"config of the architecture must be a JSON object, not {type(config).__name__}")
    return config
