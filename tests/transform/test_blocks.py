"""Blocks: found by structure and execution, in order, with what follows what."""

import pytest
import torch
from torch import nn

from vsquant.tasks.models.cifar_resnet import CifarResNet
from vsquant.tasks.models.digits_cnn import DigitsCnn
from vsquant.tasks.models.efficientnet_lite import EfficientNetLite0
from vsquant.tasks.models.resnet import ResNet50
from vsquant.transform.blocks import find_blocks


def _layers(model):
    return [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]


def _find(model, batch, layers=None):
    return find_blocks(model.eval(), _layers(model) if layers is None else layers, batch, lambda m, x: m(x))


def test_residual_blocks_of_a_cifar_resnet_and_the_layers_around_them():
    blocks = _find(CifarResNet(20), torch.randn(2, 3, 32, 32))
    names = [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(3)]
    assert [block.name for block in blocks] == ["conv1", *names, "linear"]
    assert blocks[1].layers == ("layer1.0.conv1", "layer1.0.conv2")
    assert blocks[0].layers == ("conv1",)
    # After the stem comes a batch norm, before the last layer a mean.
    assert [block.follows for block in blocks] == [False, False, *[True] * 8, False]


def test_a_shortcut_with_a_layer_belongs_to_its_block():
    blocks = _find(DigitsCnn((8, 16), 1), torch.randn(2, 1, 8, 8))
    assert [block.name for block in blocks] == ["conv", "blocks.0", "blocks.1", "linear"]
    assert set(blocks[2].layers) == {"blocks.1.conv1", "blocks.1.conv2", "blocks.1.shortcut.0"}


def test_bottlenecks_of_resnet50():
    blocks = _find(ResNet50(10), torch.randn(1, 3, 64, 64))
    assert len(blocks) == 1 + 3 + 4 + 6 + 3 + 1
    assert len(blocks[1].layers) == 4


def test_mbconv_blocks_of_efficientnet_lite():
    blocks = _find(EfficientNetLite0(), torch.randn(1, 3, 64, 64))
    assert [block.name for block in blocks] == ["_conv_stem", *(f"_blocks.{i}" for i in range(16)), "_conv_head", "_fc"]
    assert [len(block.layers) for block in blocks[1:3]] == [2, 3]
    assert all(block.follows for block in blocks[2:17])


def test_transformer_layers_of_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50
    )
    model = transformers.BertForQuestionAnswering(config).eval()
    batch = {"input_ids": torch.randint(50, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.long)}
    blocks = find_blocks(model, _layers(model), batch, lambda m, x: m(**x))
    assert [block.name for block in blocks] == ["bert.encoder.layer.0", "bert.encoder.layer.1", "qa_outputs"]
    assert len(blocks[0].layers) == 6
    assert [block.follows for block in blocks] == [False, True, False]


def test_nested_containers_give_the_innermost_blocks():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return x + self.second(self.first(x).relu())

    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(Pair(), Pair())

        def forward(self, x):
            return self.inner(x)

    blocks = _find(nn.Sequential(Stage(), nn.Sequential(Stage(), nn.Linear(4, 2))), torch.randn(3, 4))
    assert [block.name for block in blocks] == ["0.inner.0", "0.inner.1", "1.0.inner.0", "1.0.inner.1", "1.1"]
    assert [block.follows for block in blocks] == [False, True, True, True, True]


class _Twice(nn.Module):
    """A block that is called twice, and a layer called twice."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([_Mlp()])
        self.shared, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        x = self.blocks[0](self.blocks[0](x))
        return self.last(self.shared(self.shared(x)))


class _Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.down(self.up(x).relu_())


def test_what_runs_twice_is_no_block():
    assert [block.name for block in _find(_Twice(), torch.randn(2, 4))] == ["last"]


class _InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([_Mlp(), _Mlp()])

    def forward(self, x):
        return self.layers[1](self.layers[0](x).relu_())


def test_an_output_changed_in_place_is_not_followed():
    blocks = _find(nn.Sequential(_InPlace()), torch.randn(2, 4))
    assert [(block.name, block.follows) for block in blocks] == [("0.layers.0", False), ("0.layers.1", False)]


class _Masked(_Mlp):
    def forward(self, x, mask):
        return super().forward(x) * mask, mask


@pytest.mark.parametrize("new_mask", [False, True])
def test_a_block_follows_only_with_the_same_further_arguments(new_mask):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([_Masked(), _Masked()])

        def forward(self, x):
            mask = torch.ones(x.shape[0], 1)
            x, _ = self.layers[0](x, mask=mask)
            return self.layers[1](x, mask=mask * 1 if new_mask else mask)

    blocks = _find(Model(), torch.randn(2, 4))
    assert [block.name for block in blocks] == ["layers.0", "layers.1"]
    assert blocks[1].follows is not new_mask


def test_only_the_layers_asked_for_count():
    model = CifarResNet(20)
    blocks = _find(model, torch.randn(1, 3, 32, 32), layers=["layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"])
    assert [block.name for block in blocks] == ["layer1.0.conv2", "layer1.1"]
