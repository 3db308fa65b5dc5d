"""Whole networks with random weights, the same for every contender."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor, nn

from vsquant.bench.cases import ModelCase
from vsquant.bench.contender import RefusedError

TOKENS: Final = 384
_SEED: Final = 20240229
LARGEST_ERROR: Final = 0.9
"""Rounding grows through a network by no law that holds for all: a result is wrong where it is next to unrelated."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A float network in evaluation mode, one input as keyword arguments, and its float result for the first sample."""

    model: nn.Module
    inputs: dict[str, Tensor]
    expected: Tensor

    def first(self) -> dict[str, Tensor]:
        """The first sample alone."""
        return {name: value[:1] for name, value in self.inputs.items()}


class _Bert(nn.Module):
    """BERT-base from token ids to the last hidden state, without padding."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from transformers import BertConfig, BertModel
        except ModuleNotFoundError:
            raise RefusedError("not installed: pip install 'vsquant[transformers]'") from None
        self.bert = BertModel(BertConfig(), add_pooling_layer=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(N, tokens) to (N, tokens, 768)."""
        hidden: Tensor = self.bert(input_ids=input_ids).last_hidden_state
        return hidden


@lru_cache(maxsize=1)
def network(case: ModelCase) -> Network:
    """The network of a case."""
    torch.manual_seed(_SEED)
    model = _Bert().eval() if case.model == "bert-base" else _resnet50()
    inputs = network_inputs(case, case.images)
    with torch.inference_mode():
        expected = model(**{name: value[:1] for name, value in inputs.items()})
    return Network(model=model, inputs=inputs, expected=expected)


def network_inputs(case: ModelCase, samples: int, seed: int = _SEED) -> dict[str, Tensor]:
    """Random token ids, or normal images."""
    generator = torch.Generator().manual_seed(seed)
    if case.model == "bert-base":
        return {"input_ids": torch.randint(1000, 30000, (samples, TOKENS), generator=generator)}
    return {"x": torch.randn(samples, 3, 224, 224, generator=generator)}


def calibration_inputs(case: ModelCase) -> dict[str, Tensor]:
    """A few samples that are not those of the case."""
    return network_inputs(case, 2, seed=_SEED + 1)


def _resnet50() -> nn.Module:
    """ResNet-50 whose batch norms hold the statistics of a random batch, so that activations stay of one size."""
    from vsquant.tasks.models.resnet import ResNet50

    model = ResNet50()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 224, 224))
    return model.eval()


def folded(model: nn.Module) -> Any:
    """The network with batch norms folded into convolutions."""
    from torch.fx.experimental.optimization import fuse

    return fuse(model)
