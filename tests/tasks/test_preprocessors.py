import json

import numpy as np
import pytest
import torch
from PIL import Image

from vsquant.errors import DataError
from vsquant.tasks.pixels import FILTERS
from vsquant.tasks.preprocessors import of_timm, of_transformers

_CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 48}, "crop_pct": 0.875}
_TIMM = {
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
}


def _prepared(folder, image):
    preprocessing = of_transformers(folder)
    return preprocessing.normalisation.apply(preprocessing.geometry.apply(image)[None])


@pytest.mark.parametrize(
    ("class_name", "settings"),
    [
        ("ViTImageProcessor", {"size": {"height": 40, "width": 48}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}, "crop_pct": 0.875}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("BitImageProcessor", {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 40}}),
        ("MobileNetV2ImageProcessor", {"size": {"shortest_edge": 60}, "crop_size": {"height": 48, "width": 48}}),
        ("DeiTImageProcessor", {"size": {"height": 56, "width": 56}, "do_center_crop": False}),
    ],
)
@pytest.mark.parametrize("size", [(96, 64), (70, 101)])
def test_same_input_as_the_models_own_processor(tmp_path, class_name, settings, size):
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, class_name)(**settings)
    processor.save_pretrained(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    expected = torch.as_tensor(np.asarray(processor(images=image, return_tensors="np")["pixel_values"]))
    torch.testing.assert_close(_prepared(tmp_path, image), expected, rtol=1e-5, atol=1e-5)


def test_an_integer_size_is_the_shorter_side(tmp_path):
    config = {
        "feature_extractor_type": "ConvNextFeatureExtractor",
        "size": 48,
        "image_mean": [0] * 3,
        "image_std": [1] * 3,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    geometry = of_transformers(tmp_path).geometry
    assert (geometry.height, geometry.width, geometry.shorter_side) == (48, 48, 54)


def test_timm_resizes_by_the_crop_share(tmp_path):
    preprocessing = of_timm(_TIMM, tmp_path)
    assert preprocessing.geometry.shorter_side == 256
    assert preprocessing.geometry.height == 224
    assert preprocessing.geometry.resampling == FILTERS["bilinear"]
    assert preprocessing.normalisation.offset[0] == pytest.approx(0.485 * 255)


def test_missing_configuration_is_named(tmp_path):
    with pytest.raises(DataError, match=r"must hold preprocessor_config.json, which says how images are prepared"):
        of_transformers(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_processor_type": "PerceiverImageProcessor"}, "must be one of .*ViT, not 'Perceiver'"),
        ({}, "must be one of .*, not 'None'"),
        (_CONVNEXT, "whole image processor, but KeyError\\('image_mean'\\)"),
        (_CONVNEXT | {"image_mean": [0.5], "image_std": [1, 1, 1]}, "whole image processor, but ValueError"),
        (
            {"image_processor_type": "DeiTImageProcessor", "do_center_crop": True, "size": {"height": 9, "width": 9}}
            | {"crop_size": {"height": 8, "width": 8}},
            "a resize to .* before a crop to",
        ),
    ],
)
def test_unknown_or_partial_configurations_say_so(tmp_path, config, message):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=message):
        of_transformers(tmp_path)


@pytest.mark.parametrize("missing", ["input_size", "interpolation", "crop_pct", "mean"])
def test_partial_timm_configurations_say_so(tmp_path, missing):
    settings = {name: value for name, value in _TIMM["pretrained_cfg"].items() if name != missing}
    with pytest.raises(DataError, match=rf"describe the input in pretrained_cfg, but KeyError\('{missing}'\)"):
        of_timm({"pretrained_cfg": settings}, tmp_path)
