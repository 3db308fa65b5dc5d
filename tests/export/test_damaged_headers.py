"""Whatever the header says, reading gives a model or a `CheckpointError`, which names what does not fit."""

from __future__ import annotations

import contextlib
import copy
import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vsquant
from vsquant.errors import CheckpointError
from vsquant.export.inspection import inspect

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)


def refused(path: Path, model: Any) -> str:
    with pytest.raises(CheckpointError) as raised:
        vsquant.load(path, model=model)
    assert str(path) in str(raised.value)
    return str(raised.value)


def paths_of(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON document there is something to change."""
    inside: list[tuple[Any, ...]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inside += [(*at, key), *paths_of(item, (*at, key))]
    return inside


def changed(header: dict[str, Any], at: tuple[Any, ...], value: Any, *, drop: bool) -> dict[str, Any]:
    copied = copy.deepcopy(header)
    place = copied
    for key in at[:-1]:
        place = place[key]
    if drop:
        del place[at[-1]]
    else:
        place[at[-1]] = value
    return copied


TEXTS = ("w4a4-s4/6", "w8a8", "0", "2", "0.weight_codes", "", "search", "bfloat16", "nvfp4", "w4a8-token", "embedding")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=True) | st.text(max_size=8)
    | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(QUICK, max_examples=300)
@given(data=st.data(), value=JSON, drop=st.booleans())
def test_any_header_gives_a_model_or_a_checkpoint_error(
    small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path, data: Any, value: Any, drop: bool
) -> None:
    header, tensors = read_contents(small_checkpoint)
    at = data.draw(st.sampled_from(paths_of(header)))
    path = forge_checkpoint(
        tmp_path / "h.safetensors", changed(header, at, value, drop=drop), tensors, honest_sums=at[0] != "checksums"
    )
    with contextlib.suppress(CheckpointError):
        assert vsquant.load(path, model=make_mlp())(torch.zeros(1, 20)).shape == (1, 3)
    with contextlib.suppress(CheckpointError):
        inspect(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "7"}, "has a quantized layer '7', but the model has no such layer"),
        ({"spec": "w4a4-s4/6-v8"}, "tensor 0.weight_vector_scale: packed vector_scale must be (6, 2), not (6, 1)"),
        ({"spec": "w3a4-s4/6"}, "tensor 0.weight_codes: packed codes must be (6, 8), not (6, 10)"),
        ({"spec": "w4a4-s2/6"}, "tensor 0.weight_vector_scale: packed vector_scale must end in zero bits"),
        ({"spec": "w4a4-sfp16"}, "tensor 0.weight_vector_scale: must be torch.float16, not torch.uint8"),
        ({"spec": "w4a4-s4/6-tensor"}, "tensor 0.activation_range must be there exactly where the spec has it"),
        ({"spec": "nvfp4"}, "tensor 0.weight_codes must be there exactly where the spec has it"),
        ({"aliases": ["1"]}, "layer '0' must have the other names []"),
    ],
)
def test_a_layer_that_does_not_fit_the_model_is_named(
    change: dict[str, Any],
    message: str,
    small_checkpoint: Path,
    make_mlp,
    read_contents,
    forge_checkpoint,
    tmp_path: Path,
) -> None:
    header, tensors = read_contents(small_checkpoint)
    header["layers"][0] |= change
    assert message in refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "version 1 to 2, but format_version is not"),
        ({"format_version": 1}, "layer '0' must have a weight_shape exactly from version 2 on"),
        ({"more": 1}, "but more is not: Extra inputs are not permitted"),
        ({"folded": [["0", "1"]]}, "batch-norm pair ('0', '1')"),
        ({"tied": {"0.bias": "nowhere"}}, "tensor '0.bias' is tied to 'nowhere', which is not in the file"),
        ({"matmuls": [{"name": "1", "spec": "w8a8-s4/6", "scale_mode": "paper"}]}, "must be there only if γ is static"),
        (
            {"matmuls": [{"name": "1", "spec": "w8a8-s4/6-tensor", "scale_mode": "paper"}]},
            "matmul '1' must be an attention module of a transformers model",
        ),
        ({"matmuls": [{"name": "0", "spec": "w8a8", "scale_mode": "paper"}]}, "'0' must be named once, not 2 times"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    change: dict[str, Any],
    message: str,
    small_checkpoint: Path,
    make_mlp,
    read_contents,
    forge_checkpoint,
    tmp_path: Path,
) -> None:
    header, tensors = read_contents(small_checkpoint)
    path = forge_checkpoint(tmp_path / "f.safetensors", header | change, tensors)
    assert message in refused(path, make_mlp())


def test_a_layer_named_twice_is_refused(
    small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    header["layers"].append(header["layers"][0])
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert "layer '0' must be named once, not 2 times" in message


BERT = {
    "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 16, "model_type": "bert",
}  # fmt: skip


@pytest.mark.parametrize(
    "architecture",
    [
        {"family": "digits-cnn", "widths": "65536,65536,65536", "blocks": "65536"},
        {"family": "digits-cnn", "widths": "x", "blocks": "1"},
        {"family": "cifar-resnet", "depth": "65534"},
        {"family": "resnet", "depth": "50", "classes": "65536"},
        {"family": "unheard-of"},
        {},
        *(
            {"family": "transformers", "class": "BertForQuestionAnswering", "config": json.dumps(BERT | change)}
            for change in (
                {"vocab_size": 10**12}, {"num_hidden_layers": 10**9}, {"hidden_size": 10**6}, {"hidden_size": "x"},
                {"num_attention_heads": 0}, {"num_attention_heads": 3}, {"hidden_size": -4}, {"hidden_act": "zzz"},
                {"num_hidden_layers": None}, {"pad_token_id": 10**6}, {"hidden_size": 10**30}, {"model_type": "gpt2"},
            )
        ),
        {"family": "transformers", "class": "BertForQuestionAnswering", "config": "[]"},
        {"family": "transformers", "class": "BertForQuestionAnswering", "config": "{"},
        {"family": "transformers", "class": "os", "config": "{}"},
        {"family": "transformers", "class": "PreTrainedModel", "config": "{}"},
        {"family": "transformers", "class": "BertModel", "config": json.dumps(BERT), "attention": "hub/kernel"},
    ],
)  # fmt: skip
def test_an_architecture_that_cannot_be_the_files_is_refused(
    architecture: dict[str, str], small_checkpoint: Path, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    if architecture.get("family") == "transformers":
        pytest.importorskip("transformers")
    header, tensors = read_contents(small_checkpoint)
    path = forge_checkpoint(tmp_path / "f.safetensors", header | {"architecture": architecture}, tensors)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, None)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_a_configuration_cannot_make_transformers_fetch_code(
    small_checkpoint: Path, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    header, tensors = read_contents(small_checkpoint)
    config = json.dumps(BERT | {"_attn_implementation": "some/kernel", "attn_implementation": "some/kernel"})
    architecture = {"family": "transformers", "class": "BertForQuestionAnswering", "config": config}
    path = forge_checkpoint(tmp_path / "f.safetensors", header | {"architecture": architecture}, tensors)
    assert "has a quantized layer '0', but the model has no such layer" in refused(path, None)


def test_an_unknown_architecture_asks_for_the_model(small_checkpoint: Path) -> None:
    message = refused(small_checkpoint, None)
    assert message.endswith("give the float model: vsquant.load(path, model=float_model)")
