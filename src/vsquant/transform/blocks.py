"""The blocks of a model: parts with one input tensor and one output tensor that are reconstructed one after another.

A block is, by module structure, the innermost module that stands in an ``nn.Sequential`` or ``nn.ModuleList``, is no
such container itself, and holds at least two of the layers in question: a residual block, an MBConv block, a
transformer layer. By execution, seen in one run, it is called once, its first argument is a floating-point tensor, so
is its output (or the first of a tuple), and each of its layers runs while it does. What fails any of this, and every
layer outside such modules, stands for itself; a layer that runs more than once is in no block.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

CONTAINERS: Final = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A part of a model.

    ``follows`` says that its only input was the very output of the block before, with the same further arguments.
    """

    name: str
    layers: tuple[str, ...]
    """Dotted names of its layers in the model, in the order of their first call."""
    follows: bool


@dataclass(kw_only=True)
class _Call:
    """What is seen of one module in one run; the last call counts, ``times`` says whether it is the only one."""

    times: int = 0
    order: int = 0
    ended: int = 0
    arguments: tuple[Any, ...] = ()
    takes_tensor: bool = False
    sources: frozenset[str] = frozenset()
    """Modules whose output the first argument is, unchanged since."""
    output: weakref.ref[Tensor] | None = None
    version: int = 0


@dataclass
class _Recorder:
    calls: dict[str, _Call] = field(default_factory=dict)
    clock: int = 0

    def before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            call = self.calls.setdefault(name, _Call())
            self.clock += 1
            call.times, call.order = call.times + 1, self.clock
            first, call.arguments = split_arguments(args, kwargs)
            call.takes_tensor = is_floating(first)
            version = first._version if isinstance(first, Tensor) else None
            call.sources = frozenset(
                source
                for source, other in self.calls.items()
                if version is not None
                and other.output is not None
                and other.output() is first
                and other.version == version
            )

        return hook

    def after(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            call, tensor = self.calls[name], output_tensor(output)
            self.clock += 1
            call.ended = self.clock
            if tensor is not None:
                call.output, call.version = weakref.ref(tensor), tensor._version

        return hook


def find_blocks(
    model: nn.Module, layers: Collection[str], batch: Any, run: Callable[[nn.Module, Any], Any]
) -> tuple[Block, ...]:
    """The blocks of ``model`` that hold ``layers`` (dotted names), in the order in which they run on ``batch``.

    Layers that do not run are in no block. ``run`` calls the model on a batch; the model is left as it was.
    """
    candidates = _candidates(model, layers)
    calls = _record(model, {*candidates, *layers}, batch, run)
    reached = sorted((name for name in layers if name in calls), key=lambda name: calls[name].order)
    owner: dict[str, str] = {}
    for name in candidates:
        inside = [layer for layer in reached if _is_inside(layer, name)]
        if len(inside) > 1 and _is_whole(calls.get(name), [calls[layer] for layer in inside]):
            owner.update(dict.fromkeys(inside, name))
    names = sorted({owner.get(layer, layer) for layer in reached}, key=lambda name: calls[name].order)
    names = [name for name in names if _is_whole(calls[name], [])]
    return tuple(
        Block(
            name=name,
            layers=tuple(layer for layer in reached if owner.get(layer, layer) == name),
            follows=index > 0 and _follows(names[index - 1], calls[names[index - 1]], calls[name]),
        )
        for index, name in enumerate(names)
    )


def split_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """The first argument of a call, and all others in a row; keyword arguments with their names."""
    if args:
        return args[0], (*args[1:], *(part for pair in kwargs.items() for part in pair))
    named = list(kwargs.items())
    return (named[0][1] if named else None), tuple(part for pair in named[1:] for part in pair)


def output_tensor(output: Any) -> Tensor | None:
    """A module's output, or the first of several, where that is a floating-point tensor."""
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    return first if is_floating(first) else None


def is_floating(value: Any) -> bool:
    """Whether ``value`` is a floating-point tensor with a dimension of samples."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0


def _candidates(model: nn.Module, layers: Collection[str]) -> list[str]:
    """The innermost non-container elements of containers with two layers or more."""
    elements = [
        name
        for name, module in model.named_modules()
        if name
        and not isinstance(module, CONTAINERS)
        and isinstance(model.get_submodule(name.rpartition(".")[0]), CONTAINERS)
        and sum(_is_inside(layer, name) for layer in layers) > 1
    ]
    return [name for name in elements if not any(_is_inside(other, name) for other in elements)]


def _is_inside(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")


def _is_whole(call: _Call | None, inside: list[_Call]) -> bool:
    """Whether a module with these layers was called once, on a tensor for a tensor, and its layers while it ran."""
    if call is None or call.times != 1 or not call.takes_tensor or call.output is None:
        return False
    return all(layer.times == 1 and call.order < layer.order < call.ended for layer in inside)


def _follows(name: str, before: _Call, call: _Call) -> bool:
    """Whether a call's first argument is what the call ``before`` of ``name`` gave, and all others are the same."""
    return (
        name in call.sources
        and len(before.arguments) == len(call.arguments)
        and all(
            one is other or (not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other)
            for one, other in zip(before.arguments, call.arguments, strict=True)
        )
    )


def _record(
    model: nn.Module, names: Collection[str], batch: Any, run: Callable[[nn.Module, Any], Any]
) -> dict[str, _Call]:
    recorder = _Recorder()
    with ExitStack() as hooks, torch.no_grad():
        for name in names:
            module = model.get_submodule(name)
            hooks.callback(module.register_forward_pre_hook(recorder.before(name), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(recorder.after(name)).remove)
        run(model, batch)
    return recorder.calls
