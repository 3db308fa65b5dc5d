"""Small models of real structures, and one sample of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import pytest
import torch
from torch import Tensor, nn

Batch: TypeAlias = Tensor | dict[str, Tensor]
SmallModel: TypeAlias = Callable[[str], tuple[nn.Module, Batch]]

SIZES = {
    "vocab_size": 50,
    "hidden_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return transformers.BertForQuestionAnswering(transformers.BertConfig(**SIZES))


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_embd=40, n_layer=1, n_head=4))


def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, num_key_value_heads=2))


def resnet() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[16, 40], depths=[1, 1], num_labels=5)
    return transformers.ResNetForImageClassification(config)


def grouped() -> nn.Module:
    """What the others lack: depthwise, grouped, dilated and one-dimensional convolutions, a negative side."""
    return nn.Sequential(
        nn.Conv2d(3, 40, 3, stride=2, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.Conv2d(40, 40, 3, groups=40, padding=1),
        nn.Conv2d(40, 64, 3, groups=2, dilation=2, padding="same"),
        nn.Flatten(2),
        nn.Conv1d(64, 24, 5, padding=2, padding_mode="circular"),
    )


_BUILDERS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "bert": bert,
    "gpt2": gpt2,
    "llama": llama,
    "resnet": resnet,
    "grouped": grouped,
}


def _made(name: str) -> tuple[nn.Module, Batch]:
    torch.manual_seed(0)
    model = _BUILDERS[name]().eval()
    if name in ("resnet", "grouped"):
        images = torch.randn(2, 3, 32, 32)
        return model, images if name == "grouped" else {"pixel_values": images}
    return model, {"input_ids": torch.randint(3, 50, (2, 11))}


@pytest.fixture
def small_model() -> SmallModel:
    """Builds one by name: bert, gpt2, llama, resnet or grouped, with a batch."""
    return _made


@pytest.fixture
def first_sample() -> Callable[[Batch], Batch]:
    """The first sample of a batch, as a batch."""
    return lambda batch: batch[:1] if isinstance(batch, Tensor) else {name: x[:1] for name, x in batch.items()}
