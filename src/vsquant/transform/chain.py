"""Chaining integer layers: codes from one layer to the next, with no float tensor in between.

A layer whose output goes, through a residual and a function at most, into layers with one static format makes their
codes itself. Every step of that is a rounded float32 operation in the order of the unchained model, so the bits stay
what they were (native code's erf aside). Calls are rewritten, layers are not: a layer is told what to fuse by the call.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import fx, nn
from torch.fx.node import Argument

from vsquant.kernels import Function
from vsquant.kernels.format_text import format_text
from vsquant.nn import (
    IntegerActivation,
    IntegerConv2d,
    IntegerLayer,
    IntegerLinear,
    floats_of,
    max_pooled,
    needs_range,
)
from vsquant.reference.integer_linear import activation_scale_mode
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import ScaleMode
from vsquant.transform.chain_graph import Fused, changed_in_place, drop_identities, fuse, layer_of, max_pool_of

_VALUES = IntegerActivation._fields.index("values")


@dataclass(frozen=True, kw_only=True)
class ChainedLayer:
    """What one layer's call became.

    ``consumers`` take its codes, none where it gives floats, and then ``reason`` says why; ``residual`` and
    ``function`` are fused with it, and its codes are max-pooled where ``max_pool``; ``keeps_float`` says that something
    else needs the floats beside the codes.
    """

    layer: str
    consumers: tuple[str, ...]
    function: Function
    residual: bool
    max_pool: bool
    keeps_float: bool
    reason: str

    @property
    def described(self) -> str:
        """What a report says of it."""
        fused = ["residual"] if self.residual else []
        fused += [self.function] if self.function != "none" else []
        codes = "max-pooled codes" if self.max_pool else "codes"
        result = f"{codes} to {', '.join(self.consumers)}" if self.consumers else f"floats: {self.reason}"
        result += ", and floats" if self.keeps_float else ""
        return f"{' and '.join(fused)} fused; {result}" if fused else result


class _Target(NamedTuple):
    """The codes that a consumer wants: hashable, so that consumers that want the same can be counted."""

    format: IntegerFormat
    range: float
    scale_mode: ScaleMode


def chain_graph(graph: fx.Graph, modules: Mapping[str, nn.Module], prefix: str) -> tuple[ChainedLayer, ...]:
    """Rewrites the calls of integer layers in a traced graph; ``prefix`` is the traced module's own name in reports."""
    drop_identities(graph, modules)
    mutated = changed_in_place(graph, modules)
    fused = tuple(_all_fused(graph, modules, mutated))
    plans = [_plan(each, modules, mutated) for each in fused]
    described = tuple(_described(each, plan, prefix) for each, plan in zip(fused, plans, strict=True))
    additions = frozenset(each.addition[0] for each in fused if each.addition is not None)
    for each, plan in zip(fused, plans, strict=True):
        _rewrite(graph, each, plan, additions, modules)
    graph.lint()
    return described


class _Plan(NamedTuple):
    consumers: tuple[fx.Node, ...]
    target: _Target | None
    keep_float: bool
    reason: str
    pool: fx.Node | None = None
    """What max-pools the codes on their way."""


def _all_fused(graph: fx.Graph, modules: Mapping[str, nn.Module], mutated: frozenset[fx.Node]) -> Iterator[Fused]:
    taken: set[fx.Node] = set()
    for node in graph.nodes:
        layer = layer_of(node, modules)
        if layer is None:
            continue
        each = fuse(node, modules, mutated)
        if taken.intersection(each.absorbed) or _float_problem(layer):
            each = Fused(call=node, absorbed=(), addition=None, function="none")
        taken.update(each.absorbed)
        yield each


def _plan(fused: Fused, modules: Mapping[str, nn.Module], mutated: frozenset[fx.Node]) -> _Plan:
    """Which of those that read a fused value, or read it max-pooled, take codes."""
    pool = next(iter(fused.last.users), None)
    layer = layer_of(fused.call, modules)
    images = isinstance(layer, IntegerConv2d) and layer.spatial == 2
    if images and pool is not None and len(fused.last.users) == 1 and max_pool_of(pool, modules) is not None:
        plan = _plan_for(fused, pool, modules, mutated)
        if plan.target is not None and not plan.keep_float and not plan.target.format.has_vectors:
            return plan._replace(pool=pool)
    return _plan_for(fused, fused.last, modules, mutated)


def _plan_for(fused: Fused, value: fx.Node, modules: Mapping[str, nn.Module], mutated: frozenset[fx.Node]) -> _Plan:
    layer = layer_of(fused.call, modules)
    assert layer is not None
    users = tuple(value.users)
    readers = {user: reader for user in users if (reader := layer_of(user, modules)) is not None}
    problem = _float_problem(layer) or _code_problem(layer)
    if not problem and (fused.last in mutated or value in mutated):
        problem = "its output is changed in place"
    if not problem and not readers:
        problem = "nothing that follows takes codes: " + ", ".join(_name(user) for user in users)
    problems = {user: _reader_problem(layer, reader) for user, reader in readers.items()}
    if not problem and all(problems.values()):
        problem = "; ".join(sorted({f"{user.target} {why}" for user, why in problems.items()}))
    if problem:
        return _Plan(consumers=(), target=None, keep_float=False, reason=problem)
    wanted = {user: _target(readers[user]) for user, why in problems.items() if not why}
    target = Counter(wanted.values()).most_common(1)[0][0]
    consumers = tuple(user for user, each in wanted.items() if each == target)
    return _Plan(consumers=consumers, target=target, keep_float=len(consumers) < len(users), reason="")


def _float_problem(layer: IntegerLinear | IntegerConv2d) -> str:
    """Why nothing can be fused with a layer; empty if it can."""
    name = str(layer.output_dtype).removeprefix("torch.")
    return "" if name == "float32" else f"its outputs are {name}"


def _code_problem(layer: IntegerLinear | IntegerConv2d) -> str:
    """Why a layer cannot give codes; empty if it can."""
    return "its own activations are floating point" if layer.spec.activation is None else ""


def _reader_problem(layer: IntegerLinear | IntegerConv2d, reader: IntegerLinear | IntegerConv2d) -> str:
    """Why a layer that reads another's output cannot take its codes; empty if it can."""
    fmt = reader.spec.activation
    if fmt is None:
        return "keeps its activations floating point"
    if reader.scale_mode == "best-of-three":
        return "chooses among three vector scales, which no layer does for its outputs"
    if not needs_range(reader.spec):
        return f"finds its activation scales at run time ({reader.spec})"
    if isinstance(reader, IntegerConv2d):
        if not isinstance(layer, IntegerConv2d) or layer.spatial != reader.spatial:
            return "does not walk its input as the layer before lays it out"
        if reader.geometry.padding_mode != "zeros":
            return f"pads by {reader.geometry.padding_mode}"
        if reader.geometry.groups > 1 and fmt.has_vectors:
            return "has vectors within groups of channels"
        return ""
    return "" if isinstance(layer, IntegerLinear) else "does not walk its input as the layer before lays it out"


def _target(reader: IntegerLayer) -> _Target:
    fmt, range_ = reader.spec.activation, reader.activation_range
    assert isinstance(fmt, IntegerFormat) and range_ is not None
    return _Target(format=fmt, range=float(range_), scale_mode=activation_scale_mode(reader.scale_mode))


def _rewrite(
    graph: fx.Graph,
    fused: Fused,
    plan: _Plan,
    additions: frozenset[fx.Node],
    modules: Mapping[str, nn.Module],
) -> None:
    """One call in the place of a layer's and of all that it absorbs; ``additions`` are all sums that layers absorb."""
    arguments: dict[str, Argument] = {}
    if plan.target is None and isinstance(modules[str(fused.call.target)], IntegerConv2d):
        # A layer that takes in a residual wants it channels last, which is how a convolution makes it.
        arguments |= {"any_layout": True} if not _float_readers(fused, additions) else {}
    if not fused.absorbed and plan.target is None:
        fused.call.kwargs = arguments
        return
    if fused.residual is not None:
        arguments["residual"] = fused.residual
    if fused.function != "none":
        arguments["function"] = fused.function
    with graph.inserting_after(fused.last):
        if plan.target is not None:
            arguments["output_format"] = format_text(plan.target.format)
            arguments["output_range"] = None
            arguments["output_mode"] = plan.target.scale_mode
            arguments["keep_float"] = plan.keep_float
        call = graph.call_module(str(fused.call.target), fused.call.args, arguments)
    if plan.target is not None:
        with graph.inserting_before(call):
            range_ = graph.get_attr(f"{plan.consumers[0].target}.activation_range")
        call.update_kwarg("output_range", range_)
    if plan.pool is None:
        _redirect(graph, fused, plan, call, additions)
    else:
        _pool(graph, plan.pool, call, modules)
    for node in (*reversed(fused.absorbed), fused.call):
        graph.erase_node(node)


def _pool(graph: fx.Graph, pool: fx.Node, call: fx.Node, modules: Mapping[str, nn.Module]) -> None:
    """All that read the max-pooled value read the new call's codes max-pooled."""
    geometry = max_pool_of(pool, modules)
    assert geometry is not None
    with graph.inserting_after(pool):
        pool.replace_all_uses_with(graph.call_function(max_pooled, (call, *geometry)))
    graph.erase_node(pool)


def _redirect(graph: fx.Graph, fused: Fused, plan: _Plan, call: fx.Node, additions: frozenset[fx.Node]) -> None:
    """Everything that read the fused value reads what the new call gives: codes, or floats."""
    if plan.target is None:
        fused.last.replace_all_uses_with(call)
        return
    for consumer in plan.consumers:
        consumer.replace_input_with(fused.last, call)
    readers = _float_readers(fused, additions)
    with graph.inserting_after(call):
        if fused.last.users.keys() - readers:
            values = graph.call_function(operator.getitem, (call, _VALUES))
            fused.last.replace_all_uses_with(values, delete_user_cb=lambda user: user not in readers)
        if readers:
            fused.last.replace_all_uses_with(graph.call_function(floats_of, (call,)))


def _float_readers(fused: Fused, additions: frozenset[fx.Node]) -> set[fx.Node]:
    """Those that read a fused value other than as the residual of a layer, whether that is rewritten already or not."""
    return {
        user for user in fused.last.users if user not in additions and user.kwargs.get("residual") is not fused.last
    }


def _described(fused: Fused, plan: _Plan, prefix: str) -> ChainedLayer:
    return ChainedLayer(
        layer=_join(prefix, str(fused.call.target)),
        consumers=tuple(_join(prefix, str(consumer.target)) for consumer in plan.consumers),
        function=fused.function,
        residual=fused.residual is not None,
        max_pool=plan.pool is not None,
        keeps_float=plan.keep_float,
        reason=plan.reason,
    )


def _name(node: fx.Node) -> str:
    """What a graph's node does, in the words of who wrote the model."""
    if node.op == "output":
        return "the output"
    if node.op == "call_module":
        return str(node.target)
    if node.op == "call_method":
        return f".{node.target}()"
    return f"{getattr(node.target, '__name__', node.name)}()"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
