"""In which order a model's layers run, which of them read the same tensor, and what each reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

Run: TypeAlias = Callable[[nn.Module, Any], Any]
"""Calls a model on one batch."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Layers that read the same tensor, in the order of their first call; ``calls`` is how often a batch calls them.

    Layers that share a stage are called once: one that is called more often has a stage of its own.
    """

    layers: tuple[str, ...]
    calls: int


class _ReachedError(Exception):
    """Ends a forward pass where the rest of it is not needed."""


def find_stages(model: nn.Module, layers: Mapping[str, nn.Module], batch: Any, run: Run) -> tuple[Stage, ...]:
    """The stages of ``layers`` (by name) in the order in which ``run`` on ``batch`` first calls them.

    Layers that are not called are in no stage. The inputs of all layers on this batch are held until it is through.
    """
    inputs: dict[str, tuple[Tensor, int]] = {}
    calls: dict[str, int] = {}

    def note(name: str, x: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        # Two layers with a change in place of their input between them do not read the same.
        inputs.setdefault(name, (x, x._version))

    watch_layers(model, layers, note, batch, run)
    stages: list[list[str]] = []
    for name, (x, version) in inputs.items():
        fellows = (
            stage
            for stage in stages
            if inputs[stage[0]][0] is x and inputs[stage[0]][1] == version and calls[stage[0]] == calls[name] == 1
        )
        stage = next(fellows, None)
        if stage is None:
            stages.append([name])
        else:
            stage.append(name)
    return tuple(Stage(layers=tuple(stage), calls=calls[stage[0]]) for stage in stages)


def read_stage(model: nn.Module, stage: Stage, batch: Any, run: Run, read: Callable[[Tensor], None]) -> None:
    """Give ``read`` every tensor that the stage's layers read; what the model runs after them is left out."""
    first, left = stage.layers[0], stage.calls

    def note(name: str, x: Tensor) -> None:
        nonlocal left
        read(x)
        left -= 1
        if left == 0:
            raise _ReachedError

    with suppress(_ReachedError):
        watch_layers(model, {first: model.get_submodule(first)}, note, batch, run)


def watch_layers(
    model: nn.Module, layers: Mapping[str, nn.Module], note: Callable[[str, Tensor], None], batch: Any, run: Run
) -> Any:
    """Run one batch and return what ``run`` does; ``note`` is told the name and input of every call of a layer."""
    with ExitStack() as undo, torch.no_grad():
        for name, layer in layers.items():
            undo.callback(layer.register_forward_pre_hook(_telling(name, note), with_kwargs=True).remove)
        return run(model, batch)


def _telling(
    name: str, note: Callable[[str, Tensor], None]
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note(name, args[0] if args else next(iter(kwargs.values())))

    return hook
