"""Content hashes of arrays and models."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch


def sha256_of_arrays(*arrays: npt.NDArray[np.generic]) -> str:
    """SHA-256 in hex of the dtypes, shapes and elements of ``arrays``, in their order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def sha256_of_model(state: Mapping[str, torch.Tensor], architecture: Mapping[str, str]) -> str:
    """SHA-256 in hex of an architecture and of the names, dtypes, shapes and elements of its state."""
    digest = hashlib.sha256(json.dumps(dict(architecture), sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
