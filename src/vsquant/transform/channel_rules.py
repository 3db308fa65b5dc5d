"""What the operators of an exported graph do to the channels that their arguments' dimensions enumerate.

A rule gives the labels of its node's value, and locks the channels it cannot follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import fx

from vsquant.transform.channel_walk import Label, Labels, Walk, lock, shape_of

_ATEN: Final = torch.ops.aten


def _linear(walk: Walk, node: fx.Node) -> Labels:
    labels, shape = walk.of(node.args[0]), shape_of(node)
    assert shape is not None
    walk.consumed(node, labels[-1])
    made = walk.produced(node, shape[-1], len(shape) - 1)
    return [*labels[:-1], made[-1]]


def _convolution(walk: Walk, node: fx.Node) -> Labels:
    shape, taken = shape_of(node), shape_of(node.args[0])
    labels = walk.of(node.args[0])
    if shape is None or taken is None or len(shape) != len(shape_of(node.args[1]) or ()):
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


def _batch_norm(walk: Walk, node: fx.Node) -> Labels:
    labels = walk.of(node.args[0])
    label = labels[1] if len(labels) > 1 else None
    if label is not None:
        for value in node.args[1:5]:
            name = walk.parameter(value)
            label.channels.root().locked |= label.part != "all" or (value is not None and name is None)
            if name is not None:
                label.channels.root().parameters.append((name, 0))
    return labels


def _elementwise(walk: Walk, node: fx.Node) -> Labels:
    """Dimensions aligned from the right; one that stands beside unknown values of more than one element locks."""
    shape = shape_of(node)
    assert shape is not None
    result: Labels = [None] * len(shape)
    tensors = [value for value in node.args if isinstance(value, fx.Node)]
    for place in range(1, len(shape) + 1):
        aligned = [
            walk.of(value)[-place]
            for value in tensors
            if len(own := shape_of(value) or ()) >= place and own[-place] == shape[-place] != 1
        ]
        known = [label for label in aligned if label is not None]
        if known and (len(known) < len(aligned) or len({label.part for label in known}) > 1):
            lock(known)
        if known:
            for label in known[1:]:
                known[0].channels.join(label.channels)
            result[-place] = known[0]
    return result


def _spatial(walk: Walk, node: fx.Node) -> Labels:
    """Pooling: samples and channels pass, what follows is new."""
    labels, shape = walk.of(node.args[0]), shape_of(node)
    assert shape is not None
    lock(labels[2:])
    return [*labels[:2], *[None] * (len(shape) - 2)]


def _padding(walk: Walk, node: fx.Node) -> Labels:
    labels, amounts = walk.of(node.args[0]), node.args[1]
    padded = len(amounts) // 2 if isinstance(amounts, Sequence) else len(labels)
    touched = [
        label
        for place, label in enumerate(reversed(labels))
        if place < padded and isinstance(amounts, Sequence) and any(amounts[2 * place : 2 * place + 2])
    ]
    lock(touched)
    return [None if any(label is other for other in touched) else label for label in labels]


def _reduction(walk: Walk, node: fx.Node) -> Labels:
    """A mean over dimensions that are not followed."""
    labels, shape = walk.of(node.args[0]), shape_of(node)
    dimensions = node.args[1] if len(node.args) > 1 else None
    if not isinstance(dimensions, Sequence) or shape is None:
        lock(labels)
        return [None] * len(shape or ())
    reduced = {int(dimension) % len(labels) for dimension in dimensions}  # type: ignore[arg-type]  # integers
    lock([labels[dimension] for dimension in reduced])
    if len(shape) == len(labels):
        return [None if place in reduced else label for place, label in enumerate(labels)]
    return [label for place, label in enumerate(labels) if place not in reduced]


def _slice(walk: Walk, node: fx.Node) -> Labels:
    labels = list(walk.of(node.args[0]))
    dimension = node.args[1] if len(node.args) > 1 else 0
    assert isinstance(dimension, int)
    if shape_of(node) != shape_of(node.args[0]):
        lock([labels[dimension]])
        labels[dimension] = None
    return labels


def _transpose(walk: Walk, node: fx.Node) -> Labels:
    labels = list(walk.of(node.args[0]))
    first, second = node.args[1:3]
    assert isinstance(first, int) and isinstance(second, int)
    labels[first], labels[second] = labels[second], labels[first]
    return labels


def _permute(walk: Walk, node: fx.Node) -> Labels:
    labels, dimensions = walk.of(node.args[0]), node.args[1]
    assert isinstance(dimensions, Sequence)
    return [labels[dimension] for dimension in dimensions]  # type: ignore[index]  # integers


def _attention(walk: Walk, node: fx.Node) -> Labels:
    """Scaled dot products: queries and keys are summed over, values keep their heads and channels."""
    value, shape = walk.of(node.args[2]), shape_of(node)
    assert shape is not None
    for other in (*node.args[:2], *(n for n in node.all_input_nodes if n not in node.args[:3])):
        lock(walk.of(other))
    lock(value[:-1])
    if node.args[2] in node.args[:2] or (shape_of(node.args[2]) or ())[:-2] != shape[:-2]:
        lock(value)
        return [None] * len(shape)
    return [*value[:-2], None, value[-1]]


def _product(walk: Walk, node: fx.Node) -> Labels:
    """A matrix product of two values: the contracted dimensions are summed over."""
    left, right, shape = walk.of(node.args[0]), walk.of(node.args[1]), shape_of(node)
    assert shape is not None
    sizes = shape_of(node.args[1]) or ()
    if len(left) != len(shape) or len(right) != len(shape) or len(shape) < 2 or sizes[:-2] != shape[:-2]:
        lock([*left, *right])
        return [None] * len(shape)
    lock([*left, *right[:-1]])
    return [*right[:-2], None, right[-1]]


def _softmax(walk: Walk, node: fx.Node) -> Labels:
    labels = walk.of(node.args[0])
    lock(labels)
    return [None] * len(labels)


def _view(walk: Walk, node: fx.Node) -> Labels:
    """Another shape: dimensions that stay pass, channels may be cut into blocks or put together from them again."""
    before, after = shape_of(node.args[0]), shape_of(node)
    assert after is not None
    if before is None or 0 in before:
        lock(walk.of(node.args[0]))
        return [None] * len(after)
    old = [(size, label) for size, label in zip(before, walk.of(node.args[0]), strict=True) if size != 1]
    sizes = [size for size in after if size != 1]
    kept: list[Label | None] = []
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


def _regrouped(labels: Sequence[Label | None], sizes: Sequence[int]) -> list[Label | None]:
    if len(labels) == len(sizes) == 1:
        return [labels[0]]
    if len(labels) == 1 and len(sizes) == 2 and (label := labels[0]) is not None and label.part == "all":
        label.channels.root().restrict(sizes[0])
        return [Label(label.channels, "block"), Label(label.channels, "inner")]
    if len(labels) == 2 and len(sizes) == 1:
        outer, inner = labels
        whole = outer is not None and inner is not None and (outer.part, inner.part) == ("block", "inner")
        if whole and outer is not None and inner is not None and outer.channels.root() is inner.channels.root():
            return [Label(outer.channels, "all")]
    lock(labels)
    return [None] * len(sizes)


def _passing(walk: Walk, node: fx.Node) -> Labels:
    """One function for all elements, of one tensor alone."""
    labels = list(walk.of(node.args[0]))
    if len(node.all_input_nodes) == 1:
        return labels
    for value in node.all_input_nodes:
        lock(walk.of(value))
    return [None] * len(labels)


Rule: TypeAlias = Callable[[Walk, fx.Node], Labels]

_POINTWISE: Final = (
    "relu", "relu_", "gelu", "silu", "silu_", "sigmoid", "tanh", "hardtanh", "hardtanh_", "relu6", "hardswish",
    "hardswish_", "hardsigmoid", "leaky_relu", "elu", "clamp", "clamp_min", "neg", "dropout", "clone", "contiguous",
    "alias", "detach",
)  # fmt: skip
_BINARY: Final = ("add", "add_", "sub", "mul", "mul_", "div")
_OTHERS: Final[Mapping[str, Rule]] = {
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
_BY_NAME: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(_POINTWISE, _passing),
    **dict.fromkeys(_BINARY, _elementwise),
    **_OTHERS,
}
RULES: Final[Mapping[Any, Rule]] = {
    getattr(getattr(_ATEN, name), overload): rule
    for name, rule in _BY_NAME.items()
    for overload in getattr(_ATEN, name).overloads()
    if not overload.endswith("out")
}
