"""Reading weights from files, never from pickles that could run code, and putting them into modules."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vsquant.errors import DataError


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        DataError: the file is missing, truncated or of another format; names it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} must be a whole safetensors file: {error}") from error
    return state


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], *, origin: str) -> None:
    """Put ``state`` into ``model``, to which it must fit in every name and shape; ``origin`` says where it is from.

    Counters of batch norms (``num_batches_tracked``), which inference does not use, may be missing.

    Raises:
        DataError: a tensor is missing, is not the model's, or has another shape; names the first of them.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for name, shape in wanted.items():
        if name not in state and not name.endswith("num_batches_tracked"):
            raise DataError(f"weights in {origin} must be those of {type(model).__name__}, but {name!r} is missing")
        if name in state and tuple(state[name].shape) != shape:
            raise DataError(
                f"weights in {origin} must be those of {type(model).__name__}: {name!r} must be {shape}, "
                f"not {tuple(state[name].shape)}"
            )
    for name in state:
        if name not in wanted:
            raise DataError(f"weights in {origin} must be those of {type(model).__name__}, which has no {name!r}")
    model.load_state_dict(dict(state), strict=False)
