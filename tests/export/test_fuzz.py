"""Thousands of hostile files: each is refused by a `CheckpointError` or read, in little memory and without a crash.

Everything runs under a limit on the process's address space, so that any allocation from an unchecked size fails.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import vsquant
from vsquant.errors import CheckpointError
from vsquant.export.inspection import inspect

MARGIN_BYTES = 200 << 20
VIRTUAL_MEMORY = Path("/proc/self/statm")


@pytest.fixture
def little_memory() -> Iterator[None]:
    """At most `MARGIN_BYTES` more than the process has now; only Linux says what that is."""
    if not VIRTUAL_MEMORY.exists():
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(VIRTUAL_MEMORY.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MARGIN_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(path: Path) -> str | None:
    """What reading the file says; None where it was read."""
    message = None
    try:
        inspect(path)
    except CheckpointError as error:
        message = str(error)
    assert message is None or str(path) in message
    return message


def split(whole: bytes) -> tuple[bytes, bytes]:
    """The container's JSON and the bytes of the tensors."""
    length = struct.unpack("<Q", whole[:8])[0]
    return whole[8 : 8 + length], whole[8 + length :]


def join(text: bytes, data: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def with_header(whole: bytes, text: str) -> bytes:
    """The file with another header of ours, its checksum right."""
    container, data = split(whole)
    entries = json.loads(container)
    entries["__metadata__"] = {"vsquant": f"{zlib.crc32(text.encode()):08x} {text}"}
    return join(json.dumps(entries).encode(), data)


def header_of(whole: bytes) -> str:
    return json.loads(split(whole)[0])["__metadata__"]["vsquant"].partition(" ")[2]


def mutated(text: bytes, chance: random.Random) -> bytes:
    """Bytes replaced, taken out, doubled or swapped, once to four times."""
    damaged = bytearray(text)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(damaged))
        end = min(len(damaged), start + chance.choice((1, 1, 2, 8, 40)))
        part = bytes(damaged[start:end])
        digits = str(chance.choice((0, -1, 7, 2**31, 2**63, 2**64, 10**30))).encode()
        damaged[start:end] = chance.choice(
            (
                b"",
                part * 2,
                part[::-1],
                digits,
                chance.randbytes(len(part)),
                b'"',
                b"[",
                b"}",
                b"null",
                b"1e999",
                b"NaN",
            )
        )
    return bytes(damaged)


def test_every_truncation(small_checkpoint: Path, little_memory: None, tmp_path: Path) -> None:
    whole, path = small_checkpoint.read_bytes(), tmp_path / "t.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert outcome(path)


def test_random_damage(small_checkpoint: Path, little_memory: None, tmp_path: Path) -> None:
    whole, path, chance = small_checkpoint.read_bytes(), tmp_path / "d.safetensors", random.Random(1)
    for _ in range(2000):
        damaged = mutated(whole, chance)
        path.write_bytes(damaged)
        assert outcome(path) or damaged == whole


def test_damaged_containers_with_the_tensors_they_had(
    small_checkpoint: Path, little_memory: None, tmp_path: Path
) -> None:
    text, data = split(small_checkpoint.read_bytes())
    path, chance = tmp_path / "c.safetensors", random.Random(2)
    for _ in range(1500):
        path.write_bytes(join(mutated(text, chance), data))
        outcome(path)


def test_damaged_headers_with_right_checksums(
    small_checkpoint: Path, make_mlp, little_memory: None, tmp_path: Path
) -> None:
    whole = small_checkpoint.read_bytes()
    header, path, chance = header_of(whole).encode(), tmp_path / "h.safetensors", random.Random(3)
    read = 0
    for number in range(1500):
        text = mutated(header, chance).decode(errors="replace").replace("\ufffd", "?")
        path.write_bytes(with_header(whole, text))
        read += outcome(path) is None
        if number % 10 == 0:
            with contextlib.suppress(CheckpointError):
                vsquant.load(path, model=make_mlp())
    assert 0 < read < 500  # a note may say anything


def test_damaged_tensors_with_right_checksums(
    small_checkpoint: Path, make_mlp, read_contents, forge_checkpoint, little_memory: None, tmp_path: Path
) -> None:
    """Any stream of bits is codes of the format, or is refused; what is read is within its range."""
    header, tensors = read_contents(small_checkpoint)
    path, chance = tmp_path / "t.safetensors", random.Random(4)
    read = 0
    for _ in range(300):
        name = chance.choice(sorted(tensors))
        content = bytearray(tensors[name].view(torch.uint8).numpy().tobytes())
        content[chance.randrange(len(content))] = chance.randrange(256)
        damaged = torch.frombuffer(content, dtype=tensors[name].dtype).reshape(tensors[name].shape)
        forge_checkpoint(path, header, tensors | {name: damaged})
        with contextlib.suppress(CheckpointError):
            loaded = dict(vsquant.quantized_layers(vsquant.load(path, model=make_mlp())))
            codes, scale = loaded["0"].weight_codes, loaded["0"].weight_vector_scale
            assert codes.abs().max() <= 7 and scale.min() >= 0 and scale.max() <= 15
            assert not codes[:, 1, 4:].any()
            read += 1
    assert read > 100


def entry(start: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


HUGE = "9" * 5000


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"a": entry(0, 8), "b": entry(4, 12), "c": entry(12, 16)}),
        json.dumps({"a": entry(0, 8), "b": entry(0, 8), "c": entry(8, 16)}),
        json.dumps({"a": entry(0, 8), "b": entry(9, 16)}),
        json.dumps({"a": entry(0, 8)}),
        json.dumps({"a": entry(0, 17)}),
        json.dumps({"a": entry(0, 2**63)}),
        json.dumps({"a": entry(0, 16, [2**32, 2**32, 0, 2**32])}),
        json.dumps({"a": entry(0, 16, [2**63, 2])}),
        json.dumps({"a": entry(0, 16, [2**64 + 16])}),
        json.dumps({"a": entry(0, 16, [4.0, 4.0])}),
        json.dumps({"a": entry(0, 16, [-4, -4])}),
        json.dumps({"a": entry(0, 16, [1] * 100_000)}),
        json.dumps({"a": {"shape": [16], "data_offsets": [0, 16]}}),
        json.dumps({"a": entry(0, 16), "__metadata__": {"vsquant": 7}}),
        json.dumps({"a": entry(0, 16), "__metadata__": {"vsquant": {"a": "b"}}}),
        json.dumps({"a": entry(0, 16), "__metadata__": []}),
        json.dumps({"a": entry(0, 16)})[:-1] + ', "a": ' + json.dumps(entry(0, 16, [4, 4])) + "}",
        json.dumps({"a": entry(0, 16)})[:-1] + ', "__metadata__": {"vsquant": "x", "vsquant": "y"}}',
        '{"a": ' + deep(100_000) + "}",
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"a": {"dtype": "U8", "shape": [' + HUGE + '], "data_offsets": [0, 16]}}',
        '{"a": {"dtype": "U8", "shape": [16], "data_offsets": [0, ' + HUGE + "]}}",
        '{"a": {"dtype": "' + "U8" * 100_000 + '", "shape": [16], "data_offsets": [0, 16]}}',
        '{"' + "a" * 1_000_000 + '": ' + json.dumps(entry(0, 16)) + "}",
        "{}",
        "[]",
        "null",
        "",
        '{"a": "\\ud800"}',
    ],
    ids=lambda text: f"{text[:40]}",
)
def test_hostile_containers(text: str, little_memory: None, tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes(join(text.encode(), bytes(16)))
    assert outcome(path)
    path.write_bytes(join(text.encode(), b""))
    assert outcome(path)


def test_lengths_beyond_the_file(tmp_path: Path) -> None:
    """Sparse files of real sizes are mapped; at most the 100 MB that a container may have for JSON are read."""
    path = tmp_path / "sparse.safetensors"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for length, size in ((2**40, 2**33), (2**33 - 8, 2**33), (99_000_000, 2**33), (16, 2**33), (2**64 - 1, 2**20)):
        with path.open("wb") as file:
            file.write(struct.pack("<Q", length) + b'{"a":{}}')
            file.truncate(size)
        assert outcome(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"layers":[', '"layers":' + deep(100_000) + ',"ignored":['),
        ('"layers":[', '"layers":[],"layers":['),
        ('"scale_mode":"requantize","output', '"scale_mode":"paper","scale_mode":"requantize","output'),
        ('"spec":"w4a4-s4/6-v16"', '"spec":"w4a4-s4/6-v16","spec":"w8a8"'),
        ('"weight_shape":[6,20]', f'"weight_shape":[{HUGE},20]'),
        ('"weight_shape":[6,20]', '"weight_shape":[1e308,20]'),
        ('"weight_shape":[6,20]', '"weight_shape":[' + "1," * 200_000 + "1]"),
        ('"weight_shape":[6,20]', '"weight_shape":[6,20.5]'),
        ('"spec":"w4a4-s4/6-v16"', '"spec":"w4a4-s4/6-v' + HUGE + '"'),
        ('"spec":"w4a4-s4/6-v16"', '"spec":"w4a4-s4/6-v16' + "-p6" * 50_000 + '"'),
        ('"format_version":2', f'"format_version":{HUGE}'),
        ('"format_version":2', '"format_version":2.0000001'),
        ('"calibration_samples":16', f'"calibration_samples":-{HUGE}'),
        ('"checksums":{', '"checksums":{"0.bias":1,'),
    ],
)
def test_hostile_headers_with_right_checksums(
    old: str, new: str, small_checkpoint: Path, little_memory: None, tmp_path: Path
) -> None:
    whole, path = small_checkpoint.read_bytes(), tmp_path / "h.safetensors"
    header = header_of(whole)
    assert old in header
    path.write_bytes(with_header(whole, header.replace(old, new, 1)))
    assert outcome(path)


def test_a_key_that_is_there_twice_is_named(small_checkpoint: Path, tmp_path: Path) -> None:
    whole, path = small_checkpoint.read_bytes(), tmp_path / "h.safetensors"
    path.write_bytes(with_header(whole, header_of(whole).replace('"tied":', '"tied":{},"tied":', 1)))
    assert "must have each key once, but 'tied' is there twice" in str(outcome(path))
    text, data = split(whole)
    first = json.dumps({"0.bias": json.loads(text)["0.bias"]})[1:-1]
    path.write_bytes(join(b"{" + first.encode() + b"," + text[1:], data))
    assert "must have each key once, but '0.bias' is there twice" in str(outcome(path))


def test_padding_cannot_make_a_small_file_large(
    small_checkpoint: Path, read_contents, forge_checkpoint, little_memory: None, tmp_path: Path
) -> None:
    """Vectors of 1024 around single channels: 200,000 weights of 2 bits would be 200 MB of codes."""
    header, tensors = read_contents(small_checkpoint)
    channels = 200_000
    header["layers"][0] |= {"spec": "w2a16-s2/x-v1024", "weight_shape": [channels, 1]}
    header["report"][0] |= {"weights": channels}
    tensors |= {
        "0.weight_codes": torch.zeros(channels, 1, dtype=torch.uint8),
        "0.weight_vector_scale": torch.zeros(channels, 1, dtype=torch.uint8),
        "0.weight_coarse_scale": torch.zeros(channels),
    }
    message = outcome(forge_checkpoint(tmp_path / "p.safetensors", header, tensors))
    assert "tensor 0.weight_codes must not be padded beyond 64 times the file's size" in str(message)
