"""What a published classifier's own configuration says of its input, as `Preprocessing`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from vsquant.errors import DataError
from vsquant.tasks.pixels import FILTERS, Geometry, Normalisation, Preprocessing, Triple
from vsquant.tasks.textfiles import read_json

CONFIG_NAME: Final = "preprocessor_config.json"

_KNOWN: Final = frozenset({"ViT", "DeiT", "ConvNext", "Bit", "MobileNetV1", "MobileNetV2", "CLIP"})
_CONVNEXT_SQUASHED_SIDE: Final = 384
"""From this size on, ConvNeXt's processor squashes the whole image instead of cropping it."""


def of_transformers(folder: Path) -> Preprocessing:
    """What ``preprocessor_config.json`` of a transformers model says.

    Raises:
        DataError: the file is missing or malformed, or its image processor is not one of those that are known here.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise DataError(f"{folder} must hold {CONFIG_NAME}, which says how images are prepared for the model")
    config = read_json(path)
    kind = re.sub(
        r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$",
        "",
        str(config.get("image_processor_type") or config.get("feature_extractor_type")),
    )
    if kind not in _KNOWN:
        raise DataError(f"the image processor in {path} must be one of {', '.join(sorted(_KNOWN))}, not {kind!r}")
    try:
        geometry = _convnext_geometry(config) if kind == "ConvNext" else _geometry(config)
        return Preprocessing(geometry=geometry, normalisation=_normalisation(config))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{path} must describe a whole image processor, but {error!r} stops it") from error


def of_timm(config: Mapping[str, Any], origin: Path) -> Preprocessing:
    """What ``pretrained_cfg`` of a timm model's config.json says.

    Raises:
        DataError: it is missing or malformed.
    """
    try:
        settings = config["pretrained_cfg"]
        _, height, width = settings["input_size"]
        crop_share = float(settings["crop_pct"])
        geometry = Geometry(
            height=height,
            width=width,
            shorter_side=int(max(height, width) / crop_share),
            resampling=FILTERS[settings["interpolation"]],
        )
        mean, std = _triple(settings["mean"]), _triple(settings["std"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise DataError(f"{origin} must describe the input in pretrained_cfg, but {error!r} stops it") from error
    return Preprocessing(geometry=geometry, normalisation=Normalisation.of_unit_range(mean=mean, std=std))


def _geometry(config: Mapping[str, Any]) -> Geometry:
    size = _sides(config["size"])
    crop = _sides(config["crop_size"]) if config.get("do_center_crop") else size
    if "shortest_edge" in crop:
        crop = {"height": crop["shortest_edge"], "width": crop["shortest_edge"]}
    return Geometry(
        height=crop["height"],
        width=crop["width"],
        shorter_side=size.get("shortest_edge") or _square(size, crop),
        resampling=int(config.get("resample", FILTERS["bilinear"])),
    )


def _square(size: Mapping[str, int], crop: Mapping[str, int]) -> int | None:
    if size == crop:
        return None
    raise ValueError(f"a resize to {dict(size)} before a crop to {dict(crop)}")


def _convnext_geometry(config: Mapping[str, Any]) -> Geometry:
    side = _sides(config["size"])["shortest_edge"]
    cropped = side < _CONVNEXT_SQUASHED_SIDE
    return Geometry(
        height=side,
        width=side,
        shorter_side=int(side / (config.get("crop_pct") or 224 / 256)) if cropped else None,
        resampling=int(config.get("resample", FILTERS["bicubic"])),
    )


def _sides(size: int | Mapping[str, int]) -> Mapping[str, int]:
    return {"shortest_edge": size} if isinstance(size, int) else {name: int(value) for name, value in size.items()}


def _normalisation(config: Mapping[str, Any]) -> Normalisation:
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    if not config.get("do_normalize", True):
        return Normalisation.of_unit_range(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), factor=factor)
    return Normalisation.of_unit_range(
        mean=_triple(config["image_mean"]), std=_triple(config["image_std"]), factor=factor
    )


def _triple(values: Any) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
