"""Models from folders and from the hub, and what is wrong with those that cannot be loaded."""

import json
import shutil
import sys

import pytest
import torch

from vsquant.errors import DataError, MissingExtraError
from vsquant.tasks.pretrained import CAUSAL_LM, QUESTION_ANSWERING, Pretrained


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("pretrained") / "tiny"
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=11, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def pretrained(model, kind=CAUSAL_LM):
    return Pretrained(str(model), kind=kind, task="t")


def test_a_model_saved_in_another_dtype_is_float32(folder):
    model = pretrained(folder).load()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_loading_shows_no_progress_bar_and_leaves_the_setting(folder, capfd):
    logging = pytest.importorskip("transformers").utils.logging
    assert logging.is_progress_bar_enabled()
    pretrained(folder).load()
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()


def test_a_folder_without_config_is_refused_at_once(tmp_path):
    with pytest.raises(DataError, match=r"must hold a model saved by save_pretrained, but it has no config\.json"):
        pretrained(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"model_type": "bert"}', '{"architectures": ["A"]}'])
def test_a_config_of_something_else_is_refused_at_once(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"config\.json' must name the model's 'model_type' and 'architectures'|config"):
        pretrained(folder)


def test_a_broken_config_is_refused_at_once(folder):
    (folder / "config.json").write_text('{"model_type": ')
    with pytest.raises(DataError, match=r"config\.json must be JSON: "):
        pretrained(folder)


def test_pickled_weights_are_refused_at_once(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        DataError, match=r"must hold the weights as model\.safetensors; pickled weights \(\.bin\) are not"
    ):
        pretrained(folder)


def test_a_model_of_another_kind_is_refused(folder):
    with pytest.raises(DataError, match="must hold a model for extractive question answering, not a GPT2LMHeadModel"):
        pretrained(folder, QUESTION_ANSWERING).load()


def test_weights_that_lack_a_tensor_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_layer": 2}))
    with pytest.raises(DataError, match=r"must hold all weights of a causal language model, but '.*h\.1\.\S+' is not"):
        pretrained(folder).load()


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_embd": 12}))
    with pytest.raises(DataError, match=r"the weights in .*model must be those of a causal language model: "):
        pretrained(folder).load()


def test_truncated_weights_are_refused(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(DataError, match=r"the weights in .*model must be those of a causal language model: "):
        pretrained(folder).load()


def test_a_folder_without_tokenizer_is_refused(folder):
    with pytest.raises(
        DataError, match=r"must hold the model's tokenizer \(tokenizer\.json or vocab\.txt\), but it does not"
    ):
        pretrained(folder).tokenizer()


@pytest.mark.parametrize("model", ["/no/such/folder", "./model", "a/b/c", ""])
def test_what_is_neither_a_folder_nor_a_hub_id_is_refused_at_once(model):
    with pytest.raises(DataError, match="model of task t must be an existing folder or a hub id, not "):
        pretrained(model)


def test_a_model_that_the_hub_cannot_give_asks_for_a_local_path(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model = pretrained("someone/some-model")
    with pytest.raises(
        DataError, match=r"'someone/some-model' is not a folder here, .*Give the local path of a folder"
    ):
        model.load()


def test_a_hub_id_is_loaded_from_what_the_hub_gives(monkeypatch, folder):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot_download(model, *, allow_patterns, ignore_patterns):
        asked.append(model)
        assert "*.bin" not in allow_patterns
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    model = pretrained("someone/some-model")
    assert asked == []
    model.load()
    model.load()
    assert asked == ["someone/some-model"]
    assert model.fingerprint() == pretrained(folder).fingerprint()


def test_without_transformers_the_install_line_is_given(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        MissingExtraError, match=r"task t needs the package 'transformers'.*pip install 'vsquant\[transf"
    ):
        pretrained(folder).load()
