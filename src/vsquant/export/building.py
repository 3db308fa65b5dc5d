"""The bare module that a header names, built only if it is no larger than the checkpoint's tensors make it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vsquant.errors import CheckpointError, DataError
from vsquant.export.header import Header
from vsquant.tasks import architectures

_ADVICE: Final = "give the float model: vsquant.load(path, model=float_model)"

# What a module may make beyond its stored tensors: tied weights, tables of positions, passes of initialization.
_FREE_ELEMENTS: Final = 1 << 26
_FREE_OPERATIONS: Final = 1 << 14
_TIMES_STORED: Final = 64

# Families whose sizes are not the header's to choose, and whose constructors need real tensors.
_SIZED_BY_NAME: Final = frozenset({"timm"})


def build(header: Header, tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """The module of the header's architecture, with random weights.

    Raises:
        CheckpointError: the header names none, vsquant does not know it, or it is too large for the tensors.
        MissingExtraError: the package that has it is not installed.
    """
    architecture = header.architecture
    if architecture is None:
        raise CheckpointError(f"{path} does not name an architecture that vsquant knows; {_ADVICE}")
    try:
        if architecture.get("family") not in _SIZED_BY_NAME:
            with _Bounded(tensors, path), torch.device("meta"):
                architectures.build(architecture)
        return architectures.build(architecture)
    except DataError as error:
        raise CheckpointError(f"{path} names an architecture that vsquant cannot build: {error}; {_ADVICE}") from error


class _Bounded(TorchDispatchMode):
    """Stops the building of a module on the meta device when it grows far beyond what the checkpoint could fill."""

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self._path = path
        self._elements = _FREE_ELEMENTS + _TIMES_STORED * sum(tensor.numel() for tensor in tensors.values())
        self._operations = _FREE_OPERATIONS + _TIMES_STORED * len(tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._operations -= 1
        self._elements -= output.numel() if isinstance(output, Tensor) else 0
        if min(self._elements, self._operations) < 0:
            raise CheckpointError(f"{self._path} names an architecture that is far larger than its tensors; {_ADVICE}")
        return output
