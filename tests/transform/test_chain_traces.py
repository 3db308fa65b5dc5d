"""Models that cannot be traced, wholly or in part, chain where they can."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.transform.chains import both, images
from torch import Tensor, nn

import vsquant


class Opaque(nn.Module):
    """Data-dependent control flow around a part that can be traced, and a part with optional arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40))
        self.optional = Optional()

    def forward(self, x: Tensor) -> Tensor:
        return self.optional(self.part(x)) if bool(x.sum() > 0) else self.part(-x)


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.layers(x) if mask is None else self.layers(x * mask)


def test_parts_of_a_model_that_cannot_be_traced() -> None:
    x = images(3, 40)
    plain, chained = both(Opaque(), "w4a8-s4/8", x, -x)
    for signed in (x, -x):
        assert torch.equal(chained(signed), plain(signed))
    report = vsquant.chain_report(chained)
    assert [layer.layer for layer in report.chained] == ["part.0", "optional.layers.0"]
    assert [name for name, _ in report.untraced] == ["", "optional"]
    assert "optional: not traced: it has optional arguments; to chain it, give it a forward without" in str(report)
    assert type(chained) is Opaque


def test_a_model_whose_arguments_are_all_optional() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))

        def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
            return self.features(x if y is None else y)

        def features(self, x: Tensor) -> Tensor:
            return F.relu(self.layers(x))

    x = images(3, 40)
    plain, chained = both(Keywords(), "w4a8-s4/8", x)
    for arguments in ({"x": x}, {"y": x}, {"x": -x, "y": x}):
        assert torch.equal(chained(**arguments), plain(**arguments))
    report = vsquant.chain_report(chained)
    assert str(report).splitlines() == [
        "1 of 2 traced layers give codes to the next, 1 take in what follows them",
        "layers.0: codes to layers.1",
        "layers.1: relu fused; floats: nothing that follows takes codes: the output",
        f"the model: not traced: {report.untraced[0][1]}",
    ]
    assert report.untraced[0][1].startswith("it has optional arguments; to chain it, give it a forward without them")


def test_an_opaque_part_inside_a_model_that_can_be_traced() -> None:
    x = images(3, 40)
    plain, chained = both(nn.Sequential(Opaque(), nn.Linear(40, 40), nn.Linear(40, 8)), "w4a8-s4/8", x, -x)
    assert torch.equal(chained(x), plain(x))
    assert [layer.layer for layer in vsquant.chain_report(chained).chained] == ["1", "0.part.0", "0.optional.layers.0"]


def test_a_transformer_that_cannot_be_traced() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes, intermediate_size=72)).eval()
    batch = {"input_ids": torch.randint(3, 50, (2, 11))}
    simulated = vsquant.quantize(model, "w4a8-s4/8", calibration=[batch])
    plain, chained = vsquant.to_integer(simulated, chain=False), vsquant.to_integer(simulated)
    assert torch.equal(chained(**batch).start_logits, plain(**batch).start_logits)
    report = vsquant.chain_report(chained)
    assert [(layer.layer, layer.consumers) for layer in report.chained] == [
        (f"bert.encoder.layer.{i}.intermediate.dense", (f"bert.encoder.layer.{i}.output.dense",)) for i in range(2)
    ]
    assert "bert.encoder.layer.0.attention.output.dense" in {layer.layer for layer in report.fused}
