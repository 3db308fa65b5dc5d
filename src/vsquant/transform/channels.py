"""Which channels of a model can be reordered freely: found in its exported graph, dimension by dimension.

Every dimension of every value carries the channels it enumerates, if they can be followed. What is not understood locks
the channels it touches, so that whatever is left is proven: reordering them in all parameters that know of them changes
nothing but the order in which floating-point sums are taken.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from vsquant.transform.channel_rules import RULES
from vsquant.transform.channel_walk import Channels, Labels, Walk, lock, shape_of
from vsquant.transform.trace import TRACING_ERRORS, Batch, first_line


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels that several parameters know of: reordered together in all of them, or not at all.

    ``parameters`` are (name, dimension) of parameters and buffers; ``consumers`` the layers that sum over the channels;
    ``producers`` those that make them. Channels stay within their block, of which there are ``blocks`` (heads).
    """

    size: int
    blocks: int
    parameters: tuple[tuple[str, int], ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]


def channel_groups(model: nn.Module, example: Batch) -> tuple[ChannelGroup, ...] | str:
    """The groups of channels that can be reordered, in the order of the graph; or why the model cannot be exported.

    ``model`` is in evaluation mode and is only read; ``example`` is a batch of it.
    """
    args, kwargs = ((example,), {}) if isinstance(example, Tensor) else ((), dict(example))
    try:
        program = torch.export.export(model, args, kwargs, strict=False)
    except TRACING_ERRORS as error:
        return f"torch.export cannot trace the model: {first_line(error)}"
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    return _free_groups(Walk(model, names), program.graph)


def _free_groups(walk: Walk, graph: fx.Graph) -> tuple[ChannelGroup, ...]:
    for node in graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            walk.labels[node] = _labels(walk, node)
        else:
            _lock_inputs(walk, node)
    roots = {id(channels.root()): channels.root() for channels in walk.found}
    return tuple(_group(channels) for channels in roots.values() if _is_free(channels))


def _labels(walk: Walk, node: fx.Node) -> Labels:
    rule, shape = RULES.get(node.target), shape_of(node)
    if rule is None or shape is None:
        _lock_inputs(walk, node)
        return [None] * len(shape or ())
    return rule(walk, node)


def _lock_inputs(walk: Walk, node: fx.Node) -> None:
    for value in node.all_input_nodes:
        lock(walk.of(value))


def _is_free(channels: Channels) -> bool:
    return not channels.locked and bool(channels.consumers) and bool(channels.producers) and channels.size > 1


def _group(channels: Channels) -> ChannelGroup:
    return ChannelGroup(
        size=channels.size,
        blocks=channels.blocks,
        parameters=tuple(dict.fromkeys(channels.parameters)),
        producers=tuple(dict.fromkeys(channels.producers)),
        consumers=tuple(dict.fromkeys(channels.consumers)),
    )
