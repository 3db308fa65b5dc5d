"""Reordering channels in every parameter that knows of them, and what is seen of channels beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from vsquant.transform.channels import ChannelGroup
from vsquant.transform.float_layers import float_weight

ROWS: Final = 64
"""Rows of an input that are kept, spread evenly over each batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelStatistics:
    """What a layer's input is like, channel by channel: E[x²] (C,) and some rows (R, C) of it."""

    second_moment: Tensor
    rows: Tensor


@torch.no_grad()
def reorder(model: nn.Module, group: ChannelGroup, order: Tensor) -> None:
    """Put the group's channels in another order, in ``model`` itself: position p takes channel ``order[p]``."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, dimension in group.parameters:
        tensor = tensors[name]
        tensor.copy_(tensor.index_select(dimension, order.to(tensor.device)))


def channel_statistics(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    batches: Iterable[Any],
    run: Callable[[nn.Module, Any], Any],
) -> dict[str, ChannelStatistics]:
    """Statistics of the inputs of ``layers`` (by name) over all batches; layers that are not reached are left out."""
    seen: dict[str, _Seen] = {}
    with ExitStack() as hooks, torch.inference_mode():
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(_watching(seen, name), with_kwargs=True).remove)
        for batch in batches:
            run(model, batch)
    return {name: found.statistics() for name, found in seen.items()}


class _Seen:
    """Sums over batches, and the rows kept; of more than `ROWS` every other one goes, so that all batches have some."""

    def __init__(self) -> None:
        self._squares: Tensor | float = 0.0
        self._count = 0
        self._rows: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        """Rows (R, C)."""
        self._squares = self._squares + rows.double().square().sum(0)
        self._count += len(rows)
        self._rows.append(rows[:: max(1, len(rows) // ROWS)].clone())

    def statistics(self) -> ChannelStatistics:
        """Of all that was added."""
        rows = torch.cat(self._rows)
        assert isinstance(self._squares, Tensor)
        return ChannelStatistics(
            second_moment=(self._squares / self._count).float(), rows=rows[:: max(1, len(rows) // ROWS)].float()
        )


def _watching(seen: dict[str, _Seen], name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        spatial = float_weight(module).dim() - 2
        last = x.movedim(-1 - spatial, -1)
        seen.setdefault(name, _Seen()).add(last.reshape(-1, last.shape[-1]))

    return hook
