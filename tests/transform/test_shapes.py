"""The shapes found in a run have the multiplications that PyTorch's own counter finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vsquant.spec import Workload
from vsquant.tasks.models.cifar_resnet import CifarResNet
from vsquant.tasks.models.efficientnet_lite import EfficientNetLite0
from vsquant.transform.shapes import recorded_shapes


class Net(nn.Module):
    """Every kind of layer, one called twice, products of activations, and one of an activation and a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 12)
        self.along = nn.Conv1d(12, 6, 3, stride=2, padding=1)
        self.mix = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)
        self.mixer = nn.Parameter(torch.eye(6))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.along(self.words(tokens).mT).mT @ self.mixer
        x = self.mix(self.mix(x))
        return self.head(x @ x.mT @ x)


def found(model: nn.Module, *arguments: Tensor) -> dict[str, tuple[Workload, int]]:
    with recorded_shapes(model) as shapes, torch.inference_mode():
        model(*arguments)
    return {each.name: (each.workload, each.calls) for each in shapes.workloads}


def test_every_kind_of_layer_in_the_order_it_runs() -> None:
    shapes = found(Net().eval(), torch.zeros(3, 9, dtype=torch.long))
    assert list(shapes) == ["words", "along", "mix", " (product 1)", " (product 2)", "head"]
    assert shapes["words"] == (Workload(kind="embedding", outputs=7, reduction=12, positions=9), 1)
    assert shapes["along"][0] == Workload(
        kind="conv", outputs=6, reduction=12, positions=5, kernel=(1, 3), stride=(1, 2), padding=(0, 1),
        input_size=(1, 9), output_size=(1, 5),
    )  # fmt: skip
    assert shapes["mix"] == (Workload(kind="linear", outputs=6, reduction=6, positions=5), 2)
    products = [workload for name, (workload, _) in shapes.items() if "product" in name]
    assert products == [
        Workload(kind="matmul", outputs=5, reduction=6, positions=5),
        Workload(kind="matmul", outputs=6, reduction=5, positions=5),
    ]


@pytest.mark.parametrize(("make", "size"), [(lambda: CifarResNet(20), 32), (EfficientNetLite0, 224)])
def test_convolutions_have_the_multiplications_that_pytorch_counts(make, size: int) -> None:
    with torch.device("meta"):
        model, images = make().eval(), torch.zeros(2, 3, size, size)
    shapes = found(model, images)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(images)
    assert sum(workload.macs * calls for workload, calls in shapes.values()) == counter.get_total_flops() / 2 / 2


def test_the_sizes_of_a_convolution_are_those_of_its_input_and_output() -> None:
    with torch.device("meta"):
        shapes = found(CifarResNet(20).eval(), torch.zeros(2, 3, 32, 30))
    sizes = [(w.input_size, w.output_size) for w, _ in shapes.values() if w.stride == (2, 2) and w.kernel == (3, 3)]
    assert sizes == [((32, 30), (16, 15)), ((16, 15), (8, 8))]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_has_the_multiplications_that_pytorch_counts(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(num_hidden_layers=2)
    with torch.device("meta"):
        model = transformers.BertModel._from_config(config, attn_implementation=attention).eval()
    tokens = torch.zeros(2, 48, dtype=torch.long, device="meta")
    shapes = found(model, tokens)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(tokens)
    assert sum(workload.macs * calls for workload, calls in shapes.values()) == counter.get_total_flops() / 2 / 2
    scores, context = (shapes[f"encoder.layer.0.attention.self ({part})"][0] for part in ("scores", "context"))
    assert scores == Workload(kind="matmul", outputs=12 * 48, reduction=64, positions=48, groups=12)
    assert context == Workload(kind="matmul", outputs=12 * 64, reduction=48, positions=48, groups=12)


def test_the_model_is_left_as_it_was() -> None:
    model = Net().eval()
    found(model, torch.zeros(1, 9, dtype=torch.long))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(IndexError), recorded_shapes(model):
        model(torch.full((1, 9), 99))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
