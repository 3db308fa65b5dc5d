"""What goes into and comes out of one module of a model, batch by batch, kept in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from vsquant.transform.blocks import output_tensor

DEFAULT_MEMORY_BYTES: Final = 1 << 30
"""What a `TensorCache` keeps in memory; the rest goes to files."""


class TensorCache:
    """Copies of tensors, in memory up to ``memory_bytes``, beyond that in memory-mapped files without a name.

    The files are of the folder for temporary files, and go when the last tensor that is in one goes. Tensors of an
    accelerator stay there, however many.
    """

    def __init__(self, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._left_bytes = memory_bytes

    def keep(self, x: Tensor) -> Tensor:
        """A copy of ``x`` with its strides."""
        size = x.numel() * x.element_size()
        if size <= self._left_bytes or x.device.type != "cpu":
            self._left_bytes -= size
            return x.detach().clone()
        strides = torch.empty_like(x, device="meta").stride()
        with tempfile.TemporaryDirectory(prefix="vsquant-") as folder:
            path = Path(folder) / "tensor"
            flat = torch.from_file(str(path), shared=True, size=x.numel(), dtype=x.dtype)
        return flat.as_strided(x.shape, strides).copy_(x.detach())


@dataclass(frozen=True, kw_only=True)
class ModuleCall:
    """The arguments of one call of a module; the first is a tensor, ``x``, whose dimension 0 is samples."""

    x: Tensor
    args: tuple[Any, ...]
    """The positional arguments, without the first where that is positional."""
    kwargs: Mapping[str, Any]
    keyword: str | None
    """The name of the first argument, where it is given by name."""

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any], keep: Callable[[Tensor], Tensor]) -> ModuleCall:
        """The call with these arguments; ``keep`` makes the copies of the tensors that stay."""
        keyword = None if args else next(iter(kwargs))
        x = args[0] if keyword is None else kwargs[keyword]
        others = {name: value for name, value in kwargs.items() if name != keyword}
        return cls(x=keep(x), args=tuple(args[1:]), kwargs=others, keyword=keyword)

    def rows(self, rows: Tensor, x: Tensor | None = None) -> ModuleCall:
        """The call for some of the samples, with another first argument (of those samples) if one is given.

        Further tensors with as many entries in dimension 0 as there are samples are taken to be of the samples.
        """
        count = self.x.shape[0]
        return replace(
            self,
            x=self.x[rows] if x is None else x,
            args=tuple(_rows_of(value, rows, count) for value in self.args),
            kwargs={name: _rows_of(value, rows, count) for name, value in self.kwargs.items()},
        )

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments as the module takes them."""
        if self.keyword is None:
            return (self.x, *self.args), dict(self.kwargs)
        return self.args, {self.keyword: self.x, **self.kwargs}


class _CapturedError(Exception):
    """Ends a run of the model once the module has been seen."""


def captured_calls(
    model: nn.Module, name: str, batches: Iterable[Any], run: Callable[[nn.Module, Any], Any], cache: TensorCache
) -> list[ModuleCall]:
    """The call of the module ``name`` on every batch; nothing after it is run."""
    calls: list[ModuleCall] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(ModuleCall.of(args, kwargs, cache.keep))
        raise _CapturedError

    handle = model.get_submodule(name).register_forward_pre_hook(before, with_kwargs=True)
    try:
        with torch.no_grad():
            for batch in batches:
                _run_until_captured(model, batch, run)
    finally:
        handle.remove()
    return calls


def outputs_of(module: nn.Module, calls: Iterable[ModuleCall], cache: TensorCache) -> list[Tensor]:
    """What the module gives for each call."""
    outputs = []
    with torch.no_grad():
        for call in calls:
            y = run_module(module, replace(call, x=call.x.clone()))
            outputs.append(cache.keep(y))
    return outputs


def run_module(module: nn.Module | Callable[..., Any], call: ModuleCall) -> Tensor:
    """The module's output tensor for one call."""
    args, kwargs = call.arguments
    y = output_tensor(module(*args, **kwargs))
    assert y is not None
    return y


def _run_until_captured(model: nn.Module, batch: Any, run: Callable[[nn.Module, Any], Any]) -> None:
    try:
        run(model, batch)
    except _CapturedError:
        return


def _rows_of(value: Any, rows: Tensor, count: int) -> Any:
    if isinstance(value, Tensor):
        return value[rows] if value.dim() > 0 and value.shape[0] == count and count > 1 else value
    if isinstance(value, (tuple, list)):
        return tuple(_rows_of(part, rows, count) for part in value)
    return value
