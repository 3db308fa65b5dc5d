"""A tiny BERT with a tokenizer, small SQuAD files, and a model that points at given words."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

WORDS = (
    *("the", "a", "of", "in", "is", "was", "and", "it", "by", "near", "what", "which", "who", "how", "many"),
    *("city", "river", "capital", "paris", "london", "seine", "thames", "france", "england", "king", "people"),
    *("flows", "through", "large", "old", "lived", "live", "called"),
)


def make_tokenizer():
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *".,?!'\"-"]
    tokenizer = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory, tokenizer) -> Path:
    """A one-layer BERT for question answering with random weights, as save_pretrained writes it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=384,
    )
    folder = tmp_path_factory.mktemp("models") / "bert"
    transformers.BertForQuestionAnswering(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class Pointer(nn.Module):
    """Start and end logits that depend on the token alone, as ``weights`` say; ``end`` is one that only ends spans."""

    def __init__(self, tokenizer, end: str | None = None, **weights: float) -> None:
        super().__init__()
        starts = torch.zeros(len(tokenizer))
        for word, weight in weights.items():
            starts[tokenizer.convert_tokens_to_ids(word)] = weight
        ends = starts.clone()
        if end is not None:
            ends[tokenizer.convert_tokens_to_ids(end)] = 9.0
        self.tables = nn.Parameter(torch.stack([starts, ends]), requires_grad=False)

    def forward(self, input_ids, token_type_ids, attention_mask):
        assert bool((attention_mask == 1).all())
        start, end = self.tables[:, input_ids]
        return SimpleNamespace(start_logits=start, end_logits=end)


@pytest.fixture
def pointer(tokenizer):
    return lambda end=None, **weights: Pointer(tokenizer, end, **weights)


def article(title: str, *paragraphs: tuple[str, list[tuple[str, list[object]]]]) -> dict:
    """The JSON of one article: (context, [(question, answers)]) for each paragraph."""
    return {
        "title": title,
        "paragraphs": [
            {
                "context": context,
                "qas": [
                    {"id": f"{title}-{p}-{q}", "question": question, "answers": answers}
                    for q, (question, answers) in enumerate(qas)
                ],
            }
            for p, (context, qas) in enumerate(paragraphs)
        ],
    }


@pytest.fixture(scope="session")
def make_article():
    return article


@pytest.fixture
def squad_folder(tmp_path) -> Path:
    """data/squad with twelve one-paragraph articles, two questions each, and no split."""
    folder = tmp_path / "data" / "squad"
    folder.mkdir(parents=True)
    articles = [
        article(
            f"City_{i}",
            (
                "Paris is the capital of France, and the Seine flows through it. " + "It is old. " * i,
                [
                    ("What is the capital of France?", ["Paris"]),
                    ("Which river flows through it?", ["the Seine", "Seine"]),
                ],
            ),
        )
        for i in range(12)
    ]
    (folder / "dev-v1.1.json").write_text(json.dumps({"version": "1.1", "data": articles}))
    return folder


@pytest.fixture
def write_split(squad_folder):
    def write(calibration: list[str], evaluation: list[str]) -> None:
        split = {"calibration": calibration, "evaluation": evaluation}
        (squad_folder / "split.json").write_text(json.dumps(split))

    return write
