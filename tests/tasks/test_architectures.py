import json

import pytest
import torch
from torch import fx

from vsquant.errors import DataError, MissingExtraError
from vsquant.tasks.architectures import FAMILIES, build
from vsquant.tasks.models.efficientnet_lite import EfficientNetLite0

_VIT = {
    "model_type": "vit",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}


@pytest.mark.parametrize(
    ("architecture", "images"),
    [
        ({"family": "digits-cnn", "widths": "16,32", "blocks": "1"}, (2, 1, 8, 8)),
        ({"family": "cifar-resnet", "depth": "20"}, (2, 3, 32, 32)),
        ({"family": "efficientnet-lite", "variant": "lite0"}, (2, 3, 64, 64)),
        ({"family": "resnet", "depth": "50", "classes": "7"}, (2, 3, 64, 64)),
    ],
)
def test_own_families_are_built_traceable_and_in_evaluation_mode(architecture, images):
    model = build(architecture)
    assert not model.training
    batch = torch.randn(images)
    with torch.inference_mode():
        logits = model(batch)
        assert torch.equal(fx.symbolic_trace(model)(batch), logits)
    classes = {"efficientnet-lite": 1000, "resnet": 7}.get(architecture["family"], 10)
    assert logits.shape == (2, classes)


def test_transformers_models_are_built_from_class_and_configuration():
    model = build({"family": "transformers", "class": "ViTForImageClassification", "config": json.dumps(_VIT)})
    assert type(model).__name__ == "ViTForImageClassification"
    assert model.config.hidden_size == 16
    assert not model.training


def test_published_parameter_counts():
    assert sum(p.numel() for p in build({"family": "cifar-resnet", "depth": "20"}).parameters()) == 269_722
    assert sum(p.numel() for p in build({"family": "cifar-resnet", "depth": "32"}).parameters()) == 464_154
    resnet50 = build({"family": "resnet", "depth": "50", "classes": "1000"})
    assert sum(p.numel() for p in resnet50.parameters()) == 25_557_032
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 4_652_008


@pytest.mark.parametrize("size", [32, 64, 96])
def test_padding_of_strided_convolutions_is_tensorflows_same(size):
    stem = EfficientNetLite0().eval()
    padded = stem._pad(torch.zeros(1, 3, size, size))
    assert padded.shape[-2:] == (size + 1, size + 1)
    assert stem._conv_stem(padded).shape[-2:] == (size // 2, size // 2)
    image = torch.zeros(1, 3, size, size)
    image[..., -1, -1] = 1
    assert stem._pad(image)[..., -2, -2].eq(1).all()


def test_unknown_family_lists_the_known_ones():
    with pytest.raises(DataError, match=f"must be one of {', '.join(FAMILIES)}, not 'alexnet'"):
        build({"family": "alexnet"})
    with pytest.raises(DataError, match="not ''"):
        build({})


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"family": "cifar-resnet"}, "the architecture cifar-resnet must say its 'depth'"),
        ({"family": "cifar-resnet", "depth": "21"}, r"depth must be 6n \+ 2 .*, not 21"),
        ({"family": "cifar-resnet", "depth": "-2"}, "depth of the architecture must be .* not '-2'"),
        ({"family": "digits-cnn", "widths": "16,x", "blocks": "1"}, "widths of the architecture must be .* not 'x'"),
        ({"family": "digits-cnn", "widths": "999999", "blocks": "1"}, "whole numbers from 1 to 65536, not '999999'"),
        ({"family": "efficientnet-lite", "variant": "lite4"}, "must be 'lite0', not 'lite4'"),
        ({"family": "resnet", "depth": "18", "classes": "10"}, "must be '50', not '18'"),
        (
            {"family": "transformers", "class": "Trainer", "config": "{}"},
            "a model class of transformers, not 'Trainer'",
        ),
        ({"family": "transformers", "class": "os.system", "config": "{}"}, "of transformers, not 'os.system'"),
        ({"family": "transformers", "class": "ViTModel", "config": "{"}, "config of the architecture must be JSON"),
        ({"family": "transformers", "class": "ViTModel", "config": "[]"}, "must be a JSON object, not list"),
        (
            {"family": "transformers", "class": "ViTModel", "config": '{"model_type": "bert"}'},
            "must be that of a ViTModel, not 'bert'",
        ),
    ],
)
def test_malformed_architecture_says_what_must_be(architecture, message):
    with pytest.raises(DataError, match=message):
        build(architecture)


def test_timm_without_the_package_names_the_install_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'vsquant\[timm\]'"):
        build({"family": "timm", "model": "resnet10t", "classes": "10"})
