"""What each dimension of each value of a graph enumerates, as far as it can be followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from torch import Tensor, fx, nn


@dataclass
class Channels:
    """Channels that are known to be the same, before all of the graph is seen."""

    size: int
    blocks: int = 1
    locked: bool = False
    parameters: list[tuple[str, int]] = field(default_factory=list)
    producers: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    joined: Channels | None = None

    def root(self) -> Channels:
        return self if self.joined is None else self.joined.root()

    def join(self, other: Channels) -> Channels:
        first, second = self.root(), other.root()
        if first is second:
            return first
        first.locked |= second.locked or first.size != second.size
        first.restrict(second.blocks)
        first.parameters += second.parameters
        first.producers += second.producers
        first.consumers += second.consumers
        second.joined = first
        return first

    def restrict(self, blocks: int) -> None:
        """Keep channels within blocks; two ways of being cut lock them."""
        self.locked |= self.blocks not in (1, blocks) and blocks != 1
        self.blocks = max(self.blocks, blocks)


class Label(NamedTuple):
    """What a dimension enumerates: all channels, their blocks, or the channels within a block."""

    channels: Channels
    part: Literal["all", "block", "inner"]


Labels: TypeAlias = list[Label | None]


class Walk:
    """What one walk over a graph, node by node, has learned so far."""

    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        self._names = names
        self._tied = _tied_parameters(model)
        self.labels: dict[fx.Node, Labels] = {}
        self.found: list[Channels] = []

    def of(self, value: Any) -> Labels:
        """The labels of an argument; without any for parameters and inputs."""
        if not isinstance(value, fx.Node):
            return []
        return self.labels.get(value, [None] * len(shape_of(value) or ()))

    def parameter(self, value: Any) -> str | None:
        """The full name of a parameter or buffer that is used here alone, else None."""
        name = self._names.get(value.name) if isinstance(value, fx.Node) else None
        alone = name is not None and name not in self._tied and len(value.users) == 1
        return name if alone else None

    def produced(self, node: fx.Node, size: int, dimension: int) -> Labels:
        """Labels of the output of a layer that makes ``size`` new channels at ``dimension``."""
        channels = Channels(size=size)
        self.found.append(channels)
        self.rows_of(node, channels)
        labels: Labels = [None] * len(shape_of(node) or ())
        labels[dimension] = Label(channels, "all")
        return labels

    def rows_of(self, node: fx.Node, channels: Channels) -> None:
        """The output channels of a layer's weight and bias are these."""
        for value in node.args[1:3]:
            if isinstance(value, fx.Node):
                name = self.parameter(value)
                channels.locked |= name is None
                if name is not None:
                    channels.parameters.append((name, 0))
        weight = self.parameter(node.args[1])
        if weight is not None:
            channels.producers.append(weight.rpartition(".")[0])

    def consumed(self, node: fx.Node, label: Label | None) -> None:
        """A layer sums over a dimension with its weight's dimension 1."""
        if label is None:
            return
        channels, name = label.channels.root(), self.parameter(node.args[1])
        if label.part != "all" or name is None:
            channels.locked = True
            return
        channels.parameters.append((name, 1))
        channels.consumers.append(name.rpartition(".")[0])


def lock(labels: Sequence[Label | None]) -> None:
    """Nothing that these dimensions enumerate may be reordered; the order of blocks never is."""
    for label in labels:
        if label is not None and label.part != "block":
            label.channels.root().locked = True


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of a node's value, if it is one tensor of fixed shape."""
    tensor = value.meta.get("val") if isinstance(value, fx.Node) else None
    if not isinstance(tensor, Tensor) or not all(isinstance(size, int) for size in tensor.shape):
        return None
    return tuple(tensor.shape)


def _tied_parameters(model: nn.Module) -> frozenset[str]:
    """Names of parameters and buffers that the model holds more than once."""
    tensors = [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]
    owners = Counter(id(tensor) for _, tensor in tensors)
    return frozenset(name for name, tensor in tensors if owners[id(tensor)] > 1)
