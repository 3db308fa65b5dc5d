"""Finished layers of a long run, one file each, so that a killed run goes on where it stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vsquant import kernels
from vsquant.errors import CalibrationError
from vsquant.files import replacing
from vsquant.optimize.layer_feedback import LayerFeedback
from vsquant.workflows.kept import Kept


class LayerFiles:
    """Layers in the folder of one run, which is named after everything that the run depends on.

    Args:
        kept: where the folders of runs are; it counts.
        key: of `run_key`.
    """

    def __init__(self, kept: Kept, key: str) -> None:
        self._kept, self._folder = kept, kept.folder / key

    def load(self, name: str) -> LayerFeedback | None:
        """The layer as it was saved; None where it was not, or its file is damaged."""
        try:
            tensors = load_file(self._path(name))
        except (FileNotFoundError, SafetensorError):
            return None
        self._kept.taken += 1
        weight = kernels.QuantizedTensor(tensors["codes"], tensors.get("vector_scale"), tensors.get("coarse_scale"))
        return LayerFeedback(weight, tensors.get("bias_shift"))

    def save(self, name: str, settled: LayerFeedback) -> None:
        """Keep a layer; its file is there wholly or not at all.

        Raises:
            CalibrationError: the file cannot be written.
        """
        parts = {**settled.weight._asdict(), "bias_shift": settled.bias_shift}
        tensors = {part: tensor.contiguous().cpu() for part, tensor in parts.items() if tensor is not None}
        try:
            with replacing(self._path(name)) as temporary:
                save_file(tensors, temporary, metadata={"layer": name})
        except OSError as error:
            raise CalibrationError(f"finished layers must be kept in a folder that can be written: {error}") from error
        self._kept.added += 1

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"


def run_key(models: Iterable[nn.Module], batches: Iterable[Any], settings: Iterable[str]) -> str:
    """A name for a run: a hash of the models' states, of the calibration data and of the settings."""
    digest = hashlib.sha256()
    for text in settings:
        _add(digest, text.encode())
    for model in models:
        for name, tensor in sorted(model.state_dict().items()):
            _add(digest, name.encode())
            _add_tensor(digest, tensor)
    for batch in batches:
        for part in _leaves(batch):
            _add_tensor(digest, part) if isinstance(part, Tensor) else _add(digest, repr(part).encode())
    return digest.hexdigest()[:32]


def _add(digest: Any, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)


def _add_tensor(digest: Any, tensor: Tensor) -> None:
    _add(digest, f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    _add(digest, tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _leaves(batch: Any) -> Iterator[Any]:
    if isinstance(batch, Mapping):
        for name in sorted(batch):
            yield name
            yield from _leaves(batch[name])
    elif isinstance(batch, (tuple, list)):
        for part in batch:
            yield from _leaves(part)
    else:
        yield batch
