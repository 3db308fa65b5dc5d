"""Whatever is in the file, reading it gives the saved model or a `CheckpointError`: no other error, no surprise."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile
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


class Trap:
    """Unpickling it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def refused(path: Path, model: Any) -> str:
    with pytest.raises(CheckpointError) as raised:
        vsquant.load(path, model=model)
    assert str(path) in str(raised.value)
    return str(raised.value)


def test_every_truncation_is_refused(small_checkpoint: Path, make_mlp, tmp_path: Path) -> None:
    whole, model, path = small_checkpoint.read_bytes(), make_mlp(), tmp_path / "t.safetensors"
    header_length = struct.unpack("<Q", whole[:8])[0]
    boundaries = {0, 1, 7, 8, 9, 8 + header_length - 1, 8 + header_length, 8 + header_length + 1, len(whole) - 1}
    for length in sorted(boundaries | set(range(0, len(whole), 97))):
        path.write_bytes(whole[:length])
        refused(path, model)


def test_every_appended_byte_is_refused(small_checkpoint: Path, make_mlp, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(small_checkpoint.read_bytes() + b"\0")
    refused(path, make_mlp())


def test_a_flipped_bit_in_any_byte_is_refused(small_checkpoint: Path, make_mlp, tmp_path: Path) -> None:
    whole, model, path = small_checkpoint.read_bytes(), make_mlp(), tmp_path / "t.safetensors"
    chance = random.Random(0)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        refused(path, model)


def test_a_damaged_tensor_is_named(small_checkpoint: Path, make_mlp, tmp_path: Path) -> None:
    damaged, path = bytearray(small_checkpoint.read_bytes()), tmp_path / "t.safetensors"
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    assert "tensor '" in refused(path, make_mlp()) and "is damaged" in refused(path, make_mlp())


@QUICK
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.safetensors"
    path.write_bytes(content)
    refused(path, None)


@pytest.mark.parametrize("length", [0, 2, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_length_that_the_file_does_not_have_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "long.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"a":{}}')
    refused(path, None)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 50]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]},
        {"shape": [1]},
        7,
    ],
)
def test_absurd_tensors_are_refused(entry: Any, small_checkpoint: Path, read_contents, tmp_path: Path) -> None:
    header, _ = read_contents(small_checkpoint)
    text = json.dumps({"__metadata__": {"vsquant": f"00000000 {json.dumps(header)}"}, "a": entry}).encode()
    path = tmp_path / "absurd.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    refused(path, None)


@pytest.mark.parametrize("dtype", ["F4", "F8_E8M0", "F8_E4M3", "F8_E5M2", "U16", "U32", "U64", "BOOL", "F64", "C64"])
def test_unexpected_types_of_tensors_are_refused(
    dtype: str, small_checkpoint: Path, make_mlp, read_contents, tmp_path: Path
) -> None:
    whole = small_checkpoint.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    entries = json.loads(whole[8 : 8 + length])
    entry = entries["0.weight_codes"]
    start, end = entry["data_offsets"]
    bits = {"F4": 4, "U16": 16, "U32": 32, "U64": 64, "F64": 64, "C64": 64}.get(dtype, 8)
    entry |= {"dtype": dtype, "shape": [(end - start) * 8 // bits]}
    text = json.dumps(entries).encode()
    path = tmp_path / "typed.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :])
    refused(path, make_mlp())


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


PARTS = ("weight_codes", "weight_vector_scale", "weight_coarse_scale", "activation_range")
FLOAT_PARTS = PARTS[2:]


@pytest.mark.parametrize(
    ("part", "how"),
    [(part, how) for part in PARTS for how in ("missing", "shape", "dtype", "range")]
    + [(part, "nan") for part in FLOAT_PARTS],
)
def test_a_tensor_that_does_not_fit_the_spec_is_named_in_version_1(
    part: str, how: str, version_1_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(version_1_checkpoint)
    name = f"0.{part}"
    tensor = tensors.pop(name)
    if how != "missing":
        wrong = {"shape": tensor[..., None], "dtype": tensor.double(), "range": tensor * 0 - 100}
        tensors[name] = wrong[how] if how in wrong else tensor * float("nan")
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert f"tensor {name} must" in message and "(spec w4a4-s4/6-v16)" in message


def test_codes_in_the_padding_are_refused_in_version_1(
    version_1_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(version_1_checkpoint)
    tensors["0.weight_codes"][0, 1, 15] = 1
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert "tensor 0.weight_codes must hold zeros where tails are padded" in message


@pytest.mark.parametrize(
    ("part", "how", "problem"),
    [(part, "missing", "must be there exactly where the spec has it") for part in PARTS]
    + [
        ("weight_codes", "shape", "packed codes must be (6, 10), not (6, 10, 1)"),
        ("weight_codes", "dtype", "must be torch.uint8, not torch.float64"),
        ("weight_codes", "range", "codes must be from -7 to 7, not -8"),
        ("weight_vector_scale", "shape", "packed vector_scale must be (6, 1), not (6, 1, 1)"),
        ("weight_vector_scale", "dtype", "must be torch.uint8, not torch.float64"),
        ("weight_coarse_scale", "shape", "must be (6,), not (6, 1)"),
        ("weight_coarse_scale", "dtype", "must be torch.float32, not torch.float64"),
        ("activation_range", "shape", "must be (1,), not (1, 1)"),
        ("activation_range", "dtype", "must be torch.float32, not torch.float64"),
        *((part, how, "must be finite and not negative") for part in FLOAT_PARTS for how in ("range", "nan")),
    ],
)
def test_a_tensor_that_does_not_fit_the_spec_is_named(
    part: str, how: str, problem: str, small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    name = f"0.{part}"
    tensor = tensors.pop(name)
    if how != "missing":
        outside = torch.full_like(tensor, 0x88 if tensor.dtype == torch.uint8 else -100)
        wrong = {"shape": tensor[..., None], "dtype": tensor.double(), "range": outside, "nan": tensor * float("nan")}
        tensors[name] = wrong[how]
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert f"tensor {name}" in message and f"{problem} (spec w4a4-s4/6-v16)" in message


def test_bits_behind_the_end_of_a_stream_are_refused(
    small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    assert header["layers"][1]["weight_shape"] == [3, 6]
    tensors["2.weight_vector_scale"][1, 0] |= 0x10
    message = refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())
    assert "tensor 2.weight_vector_scale: packed vector_scale must end in zero bits (spec w4a4u-s4/6-v16)" in message


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ([6, 21], "tensor 0.weight_codes: packed codes must be (6, 11), not (6, 10)"),
        ([6, 19], "tensor 0.weight_codes: packed codes must end in zero bits"),
        ([6, 20, 1], "layer '0' must have a weight of (6, 20), not (6, 20, 1)"),
        ([3, 40], "tensor 0.weight_codes: packed codes must be (3, 20), not (6, 10)"),
        ([6, 2**62], "must not be padded beyond 64 times the file's size"),
        ([2**62, 2**62, 2**62, 2**62], "must not be padded beyond 64 times the file's size"),
        ([2**63, 20], "layers.0.weight_shape.0 is not: Input should be less than"),
        ([6, -20], "layers.0.weight_shape.1 is not: Input should be greater than or equal to 0"),
        ([6], "layers.0.weight_shape is not: Tuple should have at least 2 items"),
        (None, "layer '0' must have a weight_shape exactly from version 2 on"),
    ],
)
def test_a_shape_that_is_not_the_weights_is_refused(
    shape: Any, problem: str, small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    header["layers"][0]["weight_shape"] = shape
    assert problem in refused(forge_checkpoint(tmp_path / "f.safetensors", header, tensors), make_mlp())


def test_other_tensors_than_the_models_are_refused(
    small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, tmp_path: Path
) -> None:
    header, tensors = read_contents(small_checkpoint)
    path = tmp_path / "f.safetensors"
    extra = forge_checkpoint(path, header, {**tensors, "stranger": torch.zeros(1)})
    assert "it has a tensor 'stranger' that the model has not" in refused(extra, make_mlp())
    forge_checkpoint(path, header, {**tensors, "stranger": torch.zeros(1)}, honest_sums=False)
    assert "it has a foreign tensor 'stranger'" in refused(path, make_mlp())
    bias = tensors.pop("2.bias")
    forge_checkpoint(path, header, tensors, honest_sums=False)
    assert "it lacks the tensor '2.bias'" in refused(path, make_mlp())
    forge_checkpoint(path, header, tensors)
    assert "it lacks the tensor '2.bias'" in refused(path, make_mlp())
    forge_checkpoint(path, header, {**tensors, "2.bias": bias[:2]})
    assert "'2.bias' must be (3,), not (2,)" in refused(path, make_mlp())
    forge_checkpoint(path, header, {**tensors, "2.bias": bias.int()})
    assert "'2.bias' must be torch.float32, not torch.int32" in refused(path, make_mlp())


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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_in_disguise_is_not_unpickled(protocol: int, tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Trap(mark), protocol=protocol))
    message = refused(path, None)
    assert not mark.exists()
    assert protocol < 2 or "looks like a pickle" in message


def test_a_torch_file_in_disguise_is_not_unpickled(tmp_path: Path) -> None:
    mark, path = tmp_path / "mark", tmp_path / "model.safetensors"
    torch.save({"weight": torch.ones(2), "trap": Trap(mark)}, path)
    assert zipfile.is_zipfile(path)
    assert "looks like a pickle (torch.save), which could run code and is never read" in refused(path, None)
    assert not mark.exists()


def test_a_checkpoint_whose_length_reads_like_a_pickle_is_read(
    small_checkpoint: Path, make_mlp, tmp_path: Path, rows: torch.Tensor
) -> None:
    whole = small_checkpoint.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    wanted = next(n for n in range(length, 1 << 20) if struct.pack("<Q", n).startswith(b"\x80\x04"))
    path = tmp_path / "unlucky.safetensors"
    text = whole[8 : 8 + length] + b" " * (wanted - length)
    path.write_bytes(struct.pack("<Q", wanted) + text + whole[8 + length :])
    expected = vsquant.load(small_checkpoint, model=make_mlp())(rows)
    assert torch.equal(vsquant.load(path, model=make_mlp())(rows), expected)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path, metadata={"format": "pt"})
    assert "but it has no vsquant header" in refused(path, None)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    assert "must be a readable file: No such file or directory" in refused(tmp_path / "none", None)
    assert "must be a readable file: Is a directory" in refused(tmp_path, None)


def test_an_unknown_architecture_asks_for_the_model(small_checkpoint: Path) -> None:
    message = refused(small_checkpoint, None)
    assert message.endswith("give the float model: vsquant.load(path, model=float_model)")


FULL_DISK = """
import resource, sys, torch, vsquant
from vsquant.errors import CheckpointError
from vsquant.export.inspection import inspect
model = vsquant.quantize(torch.nn.Sequential(torch.nn.Linear(64, 64)).eval(), "w4a16-s4/x")
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    vsquant.save(model, sys.argv[1])
except CheckpointError as error:
    print(error)
"""


def test_a_file_that_cannot_grow_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=120, check=True
    )
    assert f"the checkpoint {path} could not be written, and nothing of it remains: " in done.stdout
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    make_mlp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("old")
    quantized = vsquant.quantize(make_mlp(), "w4a16-s4/x")

    def full(tensors: Any, filename: Path, metadata: Any) -> None:
        filename.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vsquant.export.storage.save_file", full)
    with pytest.raises(CheckpointError, match=r"could not be written, and nothing of it remains: .*No space left"):
        vsquant.save(quantized, path)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_folder_in_the_files_place_is_left(make_mlp, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="could not be written, and nothing of it remains"):
        vsquant.save(vsquant.quantize(make_mlp(), "w4a16-s4/x"), tmp_path / "m.safetensors")
    assert [found.name for found in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_state_of_more_than_tensors_is_refused(make_mlp, tmp_path: Path) -> None:
    class Extra(torch.nn.Module):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: Any) -> None:
            pass

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    quantized = vsquant.quantize(torch.nn.Sequential(make_mlp(), Extra()).eval(), "w4a16-s4/x")
    with pytest.raises(CheckpointError, match=r"state must hold tensors only, but '1\._extra_state' is a dict"):
        vsquant.save(quantized, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []
