"""Which channels of a model can be reordered freely: found in its exported graph, dimension by dimension.

Every dimension of every value carries the channels it enumerates, if they can be followed. What is not understood locks
the channels it touches, so that whatever is left is proven: reordering them in all parameters that know of them changes
nothing but the order in which floating-point sums are taken.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, fx, nn

from vsquant.transform.trace import TRACING_ERRORS, Batch, first_line

_ATEN: Final = torch.ops.aten


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


@dataclass
class _Channels:
    """Channels that are known to be the same, before all of the graph is seen."""

    size: int
    blocks: int = 1
    locked: bool = False
    parameters: list[tuple[str, int]] = field(default_factory=list)
    producers: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    joined: _Channels | None = None

    def root(self) -> _Channels:
        return self if self.joined is None else self.joined.root()

    def join(self, other: _Channels) -> _Channels:
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


class _Label(NamedTuple):
    """What a dimension enumerates: all channels, their blocks, or the channels within a block."""

    channels: _Channels
    part: Literal["all", "block", "inner"]


_Labels: TypeAlias = list[_Label | None]


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
    return _Walk(model, names).groups(program.graph)


class _Walk:
    """One walk over a graph, node by node."""

    def __init__(self, model: nn.Module, names: Mapping[str, str]) -> None:
        self._names = names
        self._tied = _tied_parameters(model)
        self._labels: dict[fx.Node, _Labels] = {}
        self._found: list[_Channels] = []

    def groups(self, graph: fx.Graph) -> tuple[ChannelGroup, ...]:
        for node in graph.nodes:
            if node.op == "call_function" and node.target is not operator.getitem:
                self._labels[node] = self._call(node)
            else:
                self._lock(node)
        roots = dict.fromkeys(id(channels.root()) for channels in self._found)
        by_id = {id(channels.root()): channels.root() for channels in self._found}
        return tuple(_group(by_id[root]) for root in roots if _is_free(by_id[root]))

    def _call(self, node: fx.Node) -> _Labels:
        rule = _RULES.get(node.target)
        shape = _shape(node)
        if rule is None or shape is None:
            self._lock(node)
            return [None] * len(shape or ())
        return rule(self, node)

    def of(self, value: Any) -> _Labels:
        """The labels of an argument; without any for parameters and inputs."""
        if not isinstance(value, fx.Node):
            return []
        return self._labels.get(value, [None] * len(_shape(value) or ()))

    def _lock(self, node: fx.Node) -> None:
        for value in node.all_input_nodes:
            lock(self.of(value))

    def parameter(self, value: Any) -> str | None:
        """The full name of a parameter or buffer that is used here alone, else None."""
        name = self._names.get(value.name) if isinstance(value, fx.Node) else None
        alone = name is not None and name not in self._tied and len(value.users) == 1
        return name if alone else None

    def produced(self, node: fx.Node, size: int, dimension: int) -> _Labels:
        """Labels of the output of a layer that makes ``size`` new channels at ``dimension``."""
        channels = _Channels(size=size)
        self._found.append(channels)
        self.rows_of(node, channels)
        labels: _Labels = [None] * len(_shape(node) or ())
        labels[dimension] = _Label(channels, "all")
        return labels

    def rows_of(self, node: fx.Node, channels: _Channels) -> None:
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

    def consumed(self, node: fx.Node, label: _Label | None) -> None:
        """A layer sums over a dimension with its weight's dimension 1."""
        if label is None:
            return
        channels, name = label.channels.root(), self.parameter(node.args[1])
        if label.part != "all" or name is None:
            channels.locked = True
            return
        channels.parameters.append((name, 1))
        channels.consumers.append(name.rpartition(".")[0])


def lock(labels: Sequence[_Label | None]) -> None:
    """Nothing that these dimensions enumerate may be reordered; the order of blocks never is."""
    for label in labels:
        if label is not None and label.part != "block":
            label.channels.root().locked = True


def _linear(walk: _Walk, node: fx.Node) -> _Labels:
    labels, shape = walk.of(node.args[0]), _shape(node)
    assert shape is not None
    walk.consumed(node, labels[-1])
    made = walk.produced(node, shape[-1], len(shape) - 1)
    return [*labels[:-1], made[-1]]


def _convolution(walk: _Walk, node: fx.Node) -> _Labels:
    shape, taken = _shape(node), _shape(node.args[0])
    labels = walk.of(node.args[0])
    if shape is None or taken is None or len(shape) != len(_shape(node.args[1]) or ()):
        lock(labels)
        return [None] * len(shape or ())
    lock(labels[2:])
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    if groups == 1:
        walk.consumed(node, labels[1])
        return walk.produced(node, shape[1], 1)
    label = labels[1]
    if groups == taken[1] == shape[1] and label is not None and label.part == "all":
        walk.rows_of(node, label.channels.root())
        return [labels[0], label, *[None] * (len(shape) - 2)]
    lock(labels)
    return [None] * len(shape)


def _batch_norm(walk: _Walk, node: fx.Node) -> _Labels:
    labels = walk.of(node.args[0])
    label = labels[1] if len(labels) > 1 else None
    if label is not None:
        for value in node.args[1:5]:
            name = walk.parameter(value)
            label.channels.root().locked |= label.part != "all" or (value is not None and name is None)
            if name is not None:
                label.channels.root().parameters.append((name, 0))
    return labels


def _elementwise(walk: _Walk, node: fx.Node) -> _Labels:
    """Dimensions aligned from the right; one that stands beside unknown values of more than one element locks."""
    shape = _shape(node)
    assert shape is not None
    result: _Labels = [None] * len(shape)
    tensors = [value for value in node.args if isinstance(value, fx.Node)]
    for place in range(1, len(shape) + 1):
        aligned = [
            walk.of(value)[-place]
            for value in tensors
            if len(own := _shape(value) or ()) >= place and own[-place] == shape[-place] != 1
        ]
        known = [label for label in aligned if label is not None]
        if known and (len(known) < len(aligned) or len({label.part for label in known}) > 1):
            lock(known)
        if known:
            for label in known[1:]:
                known[0].channels.join(label.channels)
            result[-place] = known[0]
    return result


def _spatial(walk: _Walk, node: fx.Node) -> _Labels:
    """Pooling: samples and channels pass, what follows is new."""
    labels, shape = walk.of(node.args[0]), _shape(node)
    assert shape is not None
    lock(labels[2:])
    return [*labels[:2], *[None] * (len(shape) - 2)]


def _padding(walk: _Walk, node: fx.Node) -> _Labels:
    labels, amounts = walk.of(node.args[0]), node.args[1]
    padded = len(amounts) // 2 if isinstance(amounts, Sequence) else len(labels)
    touched = [
        label
        for place, label in enumerate(reversed(labels))
        if place < padded and isinstance(amounts, Sequence) and any(amounts[2 * place : 2 * place + 2])
    ]
    lock(touched)
    return [None if any(label is other for other in touched) else label for label in labels]


def _reduction(walk: _Walk, node: fx.Node) -> _Labels:
    """A mean over dimensions that are not followed."""
    labels, shape = walk.of(node.args[0]), _shape(node)
    dimensions = node.args[1] if len(node.args) > 1 else None
    if not isinstance(dimensions, Sequence) or shape is None:
        lock(labels)
        return [None] * len(shape or ())
    reduced = {int(dimension) % len(labels) for dimension in dimensions}  # type: ignore[arg-type]  # integers
    lock([labels[dimension] for dimension in reduced])
    if len(shape) == len(labels):
        return [None if place in reduced else label for place, label in enumerate(labels)]
    return [label for place, label in enumerate(labels) if place not in reduced]


def _slice(walk: _Walk, node: fx.Node) -> _Labels:
    labels = list(walk.of(node.args[0]))
    dimension = node.args[1] if len(node.args) > 1 else 0
    assert isinstance(dimension, int)
    if _shape(node) != _shape(node.args[0]):
        lock([labels[dimension]])
        labels[dimension] = None
    return labels


def _transpose(walk: _Walk, node: fx.Node) -> _Labels:
    labels = list(walk.of(node.args[0]))
    first, second = node.args[1:3]
    assert isinstance(first, int) and isinstance(second, int)
    labels[first], labels[second] = labels[second], labels[first]
    return labels


def _permute(walk: _Walk, node: fx.Node) -> _Labels:
    labels, dimensions = walk.of(node.args[0]), node.args[1]
    assert isinstance(dimensions, Sequence)
    return [labels[dimension] for dimension in dimensions]  # type: ignore[index]  # integers


def _attention(walk: _Walk, node: fx.Node) -> _Labels:
    """Scaled dot products: queries and keys are summed over, values keep their heads and channels."""
    value, shape = walk.of(node.args[2]), _shape(node)
    assert shape is not None
    for other in (*node.args[:2], *(n for n in node.all_input_nodes if n not in node.args[:3])):
        lock(walk.of(other))
    lock(value[:-1])
    if node.args[2] in node.args[:2] or (_shape(node.args[2]) or ())[:-2] != shape[:-2]:
        lock(value)
        return [None] * len(shape)
    return [*value[:-2], None, value[-1]]


def _product(walk: _Walk, node: fx.Node) -> _Labels:
    """A matrix product of two values: the contracted dimensions are summed over."""
    left, right, shape = walk.of(node.args[0]), walk.of(node.args[1]), _shape(node)
    assert shape is not None
    sizes = _shape(node.args[1]) or ()
    if len(left) != len(shape) or len(right) != len(shape) or len(shape) < 2 or sizes[:-2] != shape[:-2]:
        lock([*left, *right])
        return [None] * len(shape)
    lock([*left, *right[:-1]])
    return [*right[:-2], None, right[-1]]


def _softmax(walk: _Walk, node: fx.Node) -> _Labels:
    labels = walk.of(node.args[0])
    lock(labels)
    return [None] * len(labels)


def _view(walk: _Walk, node: fx.Node) -> _Labels:
    """Another shape: dimensions that stay pass, channels may be cut into blocks or put together from them again."""
    before, after = _shape(node.args[0]), _shape(node)
    assert after is not None
    if before is None or 0 in before:
        lock(walk.of(node.args[0]))
        return [None] * len(after)
    old = [(size, label) for size, label in zip(before, walk.of(node.args[0]), strict=True) if size != 1]
    sizes = [size for size in after if size != 1]
    kept: list[_Label | None] = []
    while old or sizes:
        taken, given = _next_factor([size for size, _ in old], sizes)
        kept += _regrouped([label for _, label in old[:taken]], sizes[:given])
        old, sizes = old[taken:], sizes[given:]
    remaining = iter(kept)
    return [None if size == 1 else next(remaining) for size in after]


def _next_factor(before: Sequence[int], after: Sequence[int]) -> tuple[int, int]:
    """How many leading dimensions on either side have one product, as few as possible."""
    taken, given = 1, 1
    while math.prod(before[:taken]) != math.prod(after[:given]):
        if math.prod(before[:taken]) < math.prod(after[:given]):
            taken += 1
        else:
            given += 1
    return taken, given


def _regrouped(labels: Sequence[_Label | None], sizes: Sequence[int]) -> list[_Label | None]:
    if len(labels) == len(sizes) == 1:
        return [labels[0]]
    if len(labels) == 1 and len(sizes) == 2 and (label := labels[0]) is not None and label.part == "all":
        label.channels.root().restrict(sizes[0])
        return [_Label(label.channels, "block"), _Label(label.channels, "inner")]
    if len(labels) == 2 and len(sizes) == 1:
        outer, inner = labels
        whole = outer is not None and inner is not None and (outer.part, inner.part) == ("block", "inner")
        if whole and outer is not None and inner is not None and outer.channels.root() is inner.channels.root():
            return [_Label(outer.channels, "all")]
    lock(labels)
    return [None] * len(sizes)


def _passing(walk: _Walk, node: fx.Node) -> _Labels:
    """One function for all elements, of one tensor alone."""
    labels = list(walk.of(node.args[0]))
    if len(node.all_input_nodes) == 1:
        return labels
    for value in node.all_input_nodes:
        lock(walk.of(value))
    return [None] * len(labels)


def _is_free(channels: _Channels) -> bool:
    return not channels.locked and bool(channels.consumers) and bool(channels.producers) and channels.size > 1


def _group(channels: _Channels) -> ChannelGroup:
    return ChannelGroup(
        size=channels.size,
        blocks=channels.blocks,
        parameters=tuple(dict.fromkeys(channels.parameters)),
        producers=tuple(dict.fromkeys(channels.producers)),
        consumers=tuple(dict.fromkeys(channels.consumers)),
    )


def _shape(value: Any) -> tuple[int, ...] | None:
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


_Rule: TypeAlias = Callable[[_Walk, fx.Node], _Labels]

_POINTWISE: Final = (
    "relu", "relu_", "gelu", "silu", "silu_", "sigmoid", "tanh", "hardtanh", "hardtanh_", "relu6", "hardswish",
    "hardswish_", "hardsigmoid", "leaky_relu", "elu", "clamp", "clamp_min", "neg", "dropout", "clone", "contiguous",
    "alias", "detach",
)  # fmt: skip
_BINARY: Final = ("add", "add_", "sub", "mul", "mul_", "div")
_OTHERS: Final[Mapping[str, _Rule]] = {
    "linear": _linear,
    "conv2d": _convolution,
    "conv1d": _convolution,
    "batch_norm": _batch_norm,
    "max_pool2d": _spatial,
    "avg_pool2d": _spatial,
    "adaptive_avg_pool2d": _spatial,
    "pad": _padding,
    "constant_pad_nd": _padding,
    "mean": _reduction,
    "slice": _slice,
    "transpose": _transpose,
    "permute": _permute,
    "scaled_dot_product_attention": _attention,
    "matmul": _product,
    "softmax": _softmax,
    "view": _view,
    "reshape": _view,
    "flatten": _view,
}
_BY_NAME: Final[Mapping[str, _Rule]] = {
    **dict.fromkeys(_POINTWISE, _passing),
    **dict.fromkeys(_BINARY, _elementwise),
    **_OTHERS,
}
_RULES: Final[Mapping[Any, _Rule]] = {
    getattr(getattr(_ATEN, name), overload): rule
    for name, rule in _BY_NAME.items()
    for overload in getattr(_ATEN, name).overloads()
    if not overload.endswith("out")
}
