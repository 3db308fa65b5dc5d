from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from vsquant.nn import QuantConv1d, QuantConv2d, QuantEmbedding, QuantLinear, quantize_weight
from vsquant.spec.layer import LayerSpec
from vsquant.transform.float_layers import float_bias, float_weight, geometry_of, pads_like_tensorflow
from vsquant.transform.match import match_layers
from vsquant.transform.plan import plan_layers
from vsquant.transform.recipe import Recipe, Rule
from vsquant.transform.replace import replace_layers

FINE = LayerSpec.parse("w8a8-s10/10-tensor")


def replaced(model: nn.Module, spec: LayerSpec = FINE) -> nn.Module:
    quantized = copy.deepcopy(model)
    embeds = any(isinstance(module, nn.Embedding) for module in model.modules())
    matches = match_layers(quantized, Recipe(rules=(Rule(spec=spec, type="embedding" if embeds else None),)))
    replace_layers(
        quantized,
        plan_layers(matches, LayerSpec.parse("w8a8-tensor"), "requantize"),
        weights=lambda name, weight, spec: quantize_weight(weight, spec.weight, name=name),
        ranges={},
        scale_mode="requantize",
    )
    return quantized


def assert_near(model: nn.Module, x: Tensor) -> None:
    """At this many bits only the layer's structure can make a difference of more than a few per cent."""
    with torch.no_grad():
        expected, given = model(x), replaced(model)(x)
    assert expected.shape == given.shape
    assert (expected - given).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(
    ("layer", "shape", "kind"),
    [
        (nn.Linear(20, 8), (2, 5, 20), QuantLinear),
        (nn.Linear(20, 8, bias=False), (2, 20), QuantLinear),
        (nn.Conv1d(20, 8, 3, stride=2, padding=1, dilation=2), (2, 20, 11), QuantConv1d),
        (nn.Conv2d(3, 8, 7, stride=2, padding=3), (2, 3, 13, 13), QuantConv2d),
        (nn.Conv2d(20, 8, 3, padding="same", padding_mode="reflect"), (2, 20, 7, 7), QuantConv2d),
        (nn.Conv2d(32, 8, 3, groups=2, padding=1, padding_mode="circular"), (2, 32, 5, 5), QuantConv2d),
        (nn.Conv2d(20, 20, 3, groups=20), (2, 20, 5, 5), QuantConv2d),
    ],
)
def test_every_kind_of_layer_is_replaced_by_its_own(layer: nn.Module, shape: tuple[int, ...], kind: type) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(layer)
    assert_near(model, torch.randn(shape))
    assert type(replaced(model)[0]) is kind


def test_embeddings_are_replaced() -> None:
    model = nn.Sequential(nn.Embedding(10, 24, padding_idx=3))
    assert_near(model, torch.arange(10).view(2, 5))
    assert isinstance(replaced(model)[0], QuantEmbedding)


def test_the_linear_layer_of_gpt2_is_transposed() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    layer = pytorch_utils.Conv1D(8, 20)
    layer.bias.data.normal_()
    model = nn.Sequential(layer)
    assert float_weight(layer).shape == (8, 20)
    assert_near(model, torch.randn(2, 5, 20))
    assert replaced(model)[0].weight_codes.shape == (8, 2, 16)


def test_a_shared_layer_is_replaced_once_under_all_its_names() -> None:
    shared = nn.Linear(16, 16)
    model = nn.ModuleDict({"first": shared, "inner": nn.Sequential(nn.ReLU(), shared)})
    quantized = replaced(model)
    assert isinstance(quantized["first"], QuantLinear)
    assert quantized["first"] is quantized["inner"][1]


def test_the_training_mode_of_a_layer_is_kept() -> None:
    assert not replaced(nn.Sequential(nn.Linear(4, 4)).eval())[0].training
    assert replaced(nn.Sequential(nn.Linear(4, 4)).train())[0].training


def test_a_computed_bias_is_kept() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(20, 8)
    nn.utils.parametrize.register_parametrization(layer, "bias", Doubled())
    torch.testing.assert_close(float_bias(layer), layer.bias.detach())
    assert_near(nn.Sequential(layer), torch.randn(2, 20))


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize(("stride", "size"), [(1, 9), (2, 9), (2, 10), (3, 7)])
def test_the_padding_that_efficientnets_settle_when_built_is_read_not_recomputed(stride: int, size: int) -> None:
    utils = pytest.importorskip("efficientnet_lite_pytorch.utils")
    torch.manual_seed(0)
    layer = utils.Conv2dStaticSamePadding(20, 8, 3, stride=stride, image_size=size)
    assert pads_like_tensorflow(layer)
    for given in (size, size + 1):
        assert_near(nn.Sequential(layer), torch.randn(1, 20, given, given))


def test_static_padding_adds_to_the_padding_of_the_convolution() -> None:
    utils = pytest.importorskip("efficientnet_lite_pytorch.utils")
    layer = utils.Conv2dStaticSamePadding(20, 8, 3, stride=2, image_size=(8, 9), padding=(1, 2))
    assert geometry_of(layer).padding == ((1, 2), (3, 3))
    assert_near(nn.Sequential(layer), torch.randn(1, 20, 8, 9))


def test_dynamic_same_padding_follows_the_input() -> None:
    utils = pytest.importorskip("efficientnet_lite_pytorch.utils")
    torch.manual_seed(0)
    model = nn.Sequential(utils.Conv2dDynamicSamePadding(20, 8, 3, stride=2))
    for size in (8, 9):
        assert_near(model, torch.randn(1, 20, size, size))
