"""Perplexity of a causal language model, on models made here."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from vsquant.errors import DataError, NonFiniteError
from vsquant.tasks.base import run
from vsquant.tasks.wikitext import WikitextTask, make_windows

WORDS = ["the", "king", "of", "a", "river", "is", "old", "=", "large", ".", "and"]
LENGTH = 16


@pytest.fixture(scope="module")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0} | {word: i + 1 for i, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def save(folder, tokenizer, model):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory, tokenizer):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2)
    return save(tmp_path_factory.mktemp("gpt2"), tokenizer, transformers.GPT2LMHeadModel(config))


@pytest.fixture(scope="module")
def llama(tmp_path_factory, tokenizer):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return save(tmp_path_factory.mktemp("llama"), tokenizer, transformers.LlamaForCausalLM(config))


def article(title: str, sentences: int) -> str:
    return f" \n = {title} = \n \n = = Life = = \n" + " the king is old . \n" * sentences


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "wikitext2"
    data.mkdir()
    (data / "test.txt").write_text(article("One", 20) + article("Two", 13))
    (data / "valid.txt").write_text(article("Three", 40))
    return data


class Uniform(nn.Module):
    """Gives every token the same probability, except that "king" follows "the" with probability one half."""

    def forward(self, input_ids, attention_mask):
        logits = torch.zeros(*input_ids.shape, len(WORDS) + 1)
        logits[..., 2] = torch.where(input_ids == 1, math.log(len(WORDS)), 0.0)
        return SimpleNamespace(logits=logits)


def test_windows_are_consecutive_and_begin_in_an_article(tokenizer):
    text = "old . \n = One = \n the king \n = = Life = = \n is old . \n = Two = \n a river"
    windows = make_windows(tokenizer, text, 4)
    assert np.concatenate([window.tokens for window in windows]).tolist() == tokenizer(text)["input_ids"]
    assert [len(window.tokens) for window in windows] == [4, 4, 4, 4, 4]
    assert [window.article for window in windows] == [0, 1, 1, 1, 2]


def test_one_left_over_token_is_no_window(tokenizer):
    assert [len(window.tokens) for window in make_windows(tokenizer, "the king of a river", 4)] == [4]
    assert [len(window.tokens) for window in make_windows(tokenizer, "the king of a river is", 4)] == [4, 2]
    assert make_windows(tokenizer, "king", 4) == []


def test_perplexity_is_that_of_the_scored_tokens(folder, gpt2, tokenizer):
    task = WikitextTask("wikitext", data=folder.parent, model=gpt2)
    scores = task.evaluate(Uniform())
    tokens = tokenizer((folder / "test.txt").read_text())["input_ids"]
    total, scored = 0.0, 0
    for start in range(0, len(tokens), LENGTH):
        for before, after in zip(tokens[start : start + LENGTH], tokens[start + 1 : start + LENGTH], strict=False):
            scored += 1
            total += (
                math.log(2)
                if (before, after) == (1, 2)
                else math.log(2 * len(WORDS) if before == 1 else len(WORDS) + 1)
            )
    assert scores.weights.sum() == scored
    assert scores.value() == pytest.approx(math.exp(total / scored), rel=1e-6)
    assert not scores.higher_is_better
    assert set(scores.groups.tolist()) == {1, 2}


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_real_models_agree_with_their_own_loss(kind, folder, request):
    task = WikitextTask("wikitext", data=folder, model=request.getfixturevalue(kind), window=LENGTH)
    model = task.load_model()
    scores = task.evaluate(model, limit=3)
    for batch in task.calibration_batches(2):
        logits = task.logits(run(model, batch), batch)
        assert logits.shape == (batch["input_ids"].numel(), len(WORDS) + 1)
        expected = model(**batch, labels=batch["input_ids"]).loss
        rows = logits.reshape(*batch["input_ids"].shape, -1)[:, :-1].flatten(0, 1)
        assert torch.allclose(nn.functional.cross_entropy(rows, batch["input_ids"][:, 1:].flatten()), expected)
    assert scores.count == 3
    assert 5 < scores.value() < 30
    assert task.evaluate(model, limit=3) == scores


def test_windows_are_as_long_as_model_and_option_allow(folder, gpt2, llama):
    for model, window, expected in ((gpt2, 1024, LENGTH), (gpt2, 5, 5), (llama, 1024, 64), (llama, 10, 10)):
        task = WikitextTask("wikitext", data=folder, model=model, window=window)
        assert max(task.evaluate(Uniform()).weights) == expected - 1


def test_limits_are_nested_and_calibration_repeats(folder, gpt2):
    task = WikitextTask("wikitext", data=folder, model=gpt2)
    model = task.load_model()
    values = [task.evaluate(model, limit=limit).values.tolist() for limit in (1, 4, 9)]
    assert set(values[0]) <= set(values[1]) <= set(values[2])
    batches, again = task.calibration_batches(5), task.calibration_batches(5)
    assert sum(len(batch["input_ids"]) for batch in batches) == 5
    assert all(torch.equal(a["input_ids"], b["input_ids"]) for a, b in zip(batches, again, strict=True))


def test_progress_goes_from_zero_to_all_windows(folder, gpt2):
    calls = []
    task = WikitextTask("wikitext", data=folder, model=gpt2)
    task.evaluate(Uniform(), limit=7, progress=lambda *call: calls.append(call))
    assert calls[0] == ("evaluating wikitext", 0, 7)
    assert calls[-1] == ("evaluating wikitext", 7, 7)


def test_fingerprint_and_architecture(folder, gpt2, llama):
    transformers = pytest.importorskip("transformers")
    task = WikitextTask("wikitext", data=folder, model=gpt2)
    first = task.fingerprint()
    (folder / "valid.txt").write_text("the king is old . " * 40)
    second = WikitextTask("wikitext", data=folder, model=llama).fingerprint()
    assert first["data"] != second["data"]
    assert first["model"] != second["model"]
    architecture = task.architecture()
    config = transformers.AutoConfig.for_model(**json.loads(architecture["config"]))
    rebuilt = getattr(transformers, architecture["class"])(config)
    assert rebuilt.load_state_dict(task.load_model().state_dict())


def test_what_is_missing_or_too_small_is_named(folder, gpt2, tmp_path):
    def make(**options):
        return WikitextTask("wikitext", **{"data": folder, "model": gpt2, **options})

    with pytest.raises(
        DataError, match=r"task 'wikitext' needs data: give the folder that holds test\.txt and valid\.txt"
    ):
        make(data=None)
    with pytest.raises(
        DataError, match=r"must be an existing folder that holds test\.txt and valid\.txt, not '.*nowhere'"
    ):
        make(data=tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"needs data: .* \(--data DIR\)\. It needs a model as well: .* \(--model MODEL\)"
    ):
        make(data=None, model=None)
    with pytest.raises(DataError, match=r"task 'wikitext' needs a model: give the hub id of a causal language model"):
        make(model=None)
    with pytest.raises(DataError, match="window must be at least 2 tokens, not 1"):
        make(window=1)
    with pytest.raises(DataError, match=r"limit must be between 1 and the .* evaluation windows there are, not 1000"):
        make().evaluate(Uniform(), limit=1000)
    with pytest.raises(DataError, match="there must be 1000 calibration windows of 16 tokens, not"):
        make().calibration_batches(1000)
    (folder / "test.txt").write_text("king")
    with pytest.raises(DataError, match=r"test\.txt must hold a text of at least 2 tokens, but is shorter"):
        make().evaluate(Uniform())


def test_logits_that_are_not_finite_are_refused(folder, gpt2):
    task = WikitextTask("wikitext", data=folder, model=gpt2)
    model = task.load_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="the negative log-likelihood of every window must be finite"):
        task.evaluate(model)


@pytest.mark.data
def test_real_text_has_its_articles(vsquant_data, gpt2):
    task = WikitextTask("wikitext", data=vsquant_data, model=gpt2)
    scores = task.evaluate(Uniform())
    assert scores.group_count > 50
