"""Whatever bytes are in the file, reading gives the saved model or a `CheckpointError`: no other error, no surprise."""

from __future__ import annotations

import json
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vsquant
from vsquant.errors import CheckpointError

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
