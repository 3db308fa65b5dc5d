"""Every spec of the published tables is there by name, with its source."""

from __future__ import annotations

import dataclasses

import pytest

from vsquant.spec import PRESETS, LayerSpec

RESNET = [
    f"{row}/{scales}"
    for row in ("4/4U", "6/4U", "6/6U", "8/8U")
    for scales in ("3/4", "3/6", "4/4", "4/6", "6/4", "6/6", "fp32/fp32", "-/-")
]
BERT = [
    f"{row}/{scales}"
    for row in ("3/8", "4/8", "6/8", "8/8")
    for scales in ("4/8", "4/10", "6/8", "6/10", "fp16/fp16", "fp32/fp32", "-/-")
]
TRAINED = [f"{row}/{scales}" for row in ("3/3U", "4/4", "3/4") for scales in ("fp32/fp32", "-/-")]
COMPARISON = ["nvfp4", "nvfp4-4over6", "mxfp4", "mxint8", "int4-g128"]


def test_these_and_no_others():
    assert sorted(PRESETS) == sorted(RESNET + BERT + TRAINED + COMPARISON)


@pytest.mark.parametrize("name", PRESETS)
def test_each_parses_by_its_name_and_says_where_it_comes_from(name):
    preset = PRESETS[name]
    assert preset.name == name
    assert LayerSpec.parse(name) == preset.spec == LayerSpec.parse(str(preset.spec))
    assert any(word in preset.source for word in ("arXiv", "Specification", "NVIDIA"))
    assert preset.spec.vector_size in (None, 16) or name in COMPARISON


def test_shared_specs_name_every_table():
    assert "BERT-base" in PRESETS["4/8/4/8"].source
    assert "BERT-large" in PRESETS["4/8/4/8"].source
    assert "ResNet50" in PRESETS["4/4U/4/6"].source


def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["nvfp4"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["nvfp4"].source = "mine"
