"""A checkpoint as a file: safetensors with a header, written whole, read only when every byte is what was written."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vsquant.errors import CheckpointError
from vsquant.export.encoding import check_sizes, decode, encode, stored_parts
from vsquant.export.header import Header, check_keys
from vsquant.files import replacing

METADATA_KEY: Final = "vsquant"

_PICKLE_STARTS: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_LENGTH_BYTES: Final = 8  # of the length before a safetensors file's JSON


def write(path: Path, header: Header, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint, whole or not at all; the header's checksums are made of the tensors as they are stored.

    Raises:
        CheckpointError: the file cannot be written; nothing half-written remains.
    """
    stored = encode(header, tensors)
    header = header.model_copy(update={"checksums": {name: _checksum(tensor) for name, tensor in stored.items()}})
    text = header.model_dump_json()
    metadata = {METADATA_KEY: f"{_text_checksum(text)} {text}"}  # one key: of several, the order would be chance
    try:
        with replacing(path) as temporary:
            save_file(stored, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise CheckpointError(
            f"the checkpoint {path} could not be written, and nothing of it remains: {reason}"
        ) from error


def read_header(path: Path) -> Header:
    """The header of a checkpoint, without its tensors.

    Raises:
        CheckpointError: the file is missing, truncated, foreign, damaged or a pickle.
    """
    _refuse_pickles(path)
    with _opened(path) as file:
        metadata = file.metadata() or {}
    check_keys(_container_header(path), str(path))
    if METADATA_KEY not in metadata:
        raise CheckpointError(f"{path} must be a checkpoint written by vsquant.save, but it has no vsquant header")
    written, _, text = metadata[METADATA_KEY].partition(" ")
    if written != _text_checksum(text):
        raise CheckpointError(f"{path} must be a checkpoint as it was written, but its header is damaged")
    return Header.parse(text, str(path))


def read_tensors(path: Path, header: Header) -> dict[str, Tensor]:
    """The tensors of a checkpoint as layers hold them, one after the other, in memory of their own.

    Raises:
        CheckpointError: a tensor is missing, superfluous, damaged or not what its layer's spec says; names it.
    """
    parts = stored_parts(header)
    check_sizes(parts, path)
    tensors = {}
    with _opened(path) as file:
        names = set(file.keys())
        missing, foreign = sorted(header.checksums.keys() - names), sorted(names - header.checksums.keys())
        if missing or foreign:
            problem = f"lacks the tensor {missing[0]!r}" if missing else f"has a foreign tensor {foreign[0]!r}"
            raise CheckpointError(f"{path} must hold the tensors that its header names, but it {problem}")
        for name in sorted(names):
            stored = file.get_tensor(name)
            if _checksum(stored) != header.checksums[name]:
                raise CheckpointError(f"{path} must be a checkpoint as it was written, but tensor {name!r} is damaged")
            tensors[name] = decode(name, stored, parts, path)
    return tensors


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of a tensor's bytes in C order."""
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _text_checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _container_header(path: Path) -> bytes:
    """The JSON of a safetensors file that could be opened: its length is that of bytes which are there."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        return file.read(length)


def _refuse_pickles(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(_LENGTH_BYTES + 1)
    except OSError as error:
        raise CheckpointError(f"{path} must be a readable file: {error.strerror or error}") from error
    is_json = start[_LENGTH_BYTES:] == b"{"  # the length before it may happen to read like a pickle
    if start.startswith(_PICKLE_STARTS) and not is_json:
        raise CheckpointError(
            f"{path} must be a vsquant checkpoint (safetensors), but it looks like a pickle (torch.save), which could "
            "run code and is never read; save it with vsquant.save"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} must be a whole vsquant checkpoint (safetensors): {error}; copy it again, or make it with "
            "vsquant.save or vsquant quantize"
        ) from error
