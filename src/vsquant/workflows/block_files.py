"""Finished blocks of a long run, one file each, so that a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vsquant.errors import CalibrationError
from vsquant.files import replacing
from vsquant.workflows.kept import Kept


class BlockFiles:
    """Tensors of blocks in the folder of one run, which is named after everything that the run depends on.

    Args:
        kept: where the folders of runs are; it counts.
        key: of `vsquant.workflows.layer_files.run_key`.
    """

    def __init__(self, kept: Kept, key: str) -> None:
        self._kept, self._folder = kept, kept.folder / key

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        """What was saved of a block; None where nothing was, or its file is damaged."""
        try:
            tensors = load_file(self._path(name))
        except (FileNotFoundError, SafetensorError):
            return None
        self._kept.taken += 1
        return tensors

    def save(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep a block; its file is there wholly or not at all.

        Raises:
            CalibrationError: the file cannot be written.
        """
        try:
            with replacing(self._path(name)) as temporary:
                save_file(
                    {key: x.contiguous().cpu() for key, x in tensors.items()}, temporary, metadata={"block": name}
                )
        except OSError as error:
            raise CalibrationError(f"finished blocks must be kept in a folder that can be written: {error}") from error
        self._kept.added += 1

    def _path(self, name: str) -> Path:
        return self._folder / f"block-{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"
