"""What the text tasks share: finding, reading and fingerprinting files, and one fixed order of samples."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from vsquant.errors import DataError

_ORDER_SEED: Final = 20211
_BLOCK_BYTES: Final = 1 << 20


def data_folder(data: Path | None, *, task: str, subfolder: str, required: Sequence[str], weights: str = "") -> Path:
    """``data`` itself or its ``subfolder``, whichever holds all the ``required`` files; ``weights`` tells where the
    model's are to be found.

    Raises:
        DataError: no folder is given, it does not exist, or neither place holds the files.
    """
    files = " and ".join(required)
    hint = f". {weights}" if weights else ""
    if data is None:
        raise DataError(
            f"task {task!r} needs data: give the folder that holds {files}, or its parent (--data DIR){hint}"
        )
    if not data.is_dir():
        raise DataError(
            f"the data of task {task!r} must be an existing folder that holds {files}, not {str(data)!r}{hint}"
        )
    for folder in (data, data / subfolder):
        if all((folder / name).is_file() for name in required):
            return folder
    raise DataError(
        f"the data folder of task {task!r} must hold {files}; neither {str(data)!r} nor its sub-folder "
        f"{subfolder!r} does{hint}"
    )


def sha256_of_files(paths: Sequence[Path]) -> str:
    """SHA-256 in hex of the files' names and contents, in order; they are read in blocks."""
    total = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                content.update(block)
        total.update(f"{path.name}\0{content.hexdigest()}\0".encode())
    return total.hexdigest()


def read_text(path: Path) -> str:
    """The UTF-8 text in ``path``.

    Raises:
        DataError: the file cannot be read, or is not UTF-8; names the file and the place.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} must be a readable file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be UTF-8 text, but byte {error.start} is not") from error


def read_json(path: Path) -> Any:
    """The JSON document in ``path``.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or is not JSON; names the file and the place.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} must be JSON: {error.msg} in line {error.lineno}, column {error.colno}") from error


def fixed_order(count: int) -> list[int]:
    """0 … ``count`` - 1 in one fixed random order, the same on every platform; its beginnings are nested subsets."""
    generator = random.Random(_ORDER_SEED)
    keys = [generator.random() for _ in range(count)]
    return sorted(range(count), key=keys.__getitem__)
