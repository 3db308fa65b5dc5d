"""Chaining a whole model, or where it cannot be traced as a whole, as large parts of it as can."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from vsquant.nn import IntegerLayer, IntegerMatmul
from vsquant.transform.chain import ChainedLayer, chain_graph
from vsquant.transform.trace import TRACING_ERRORS, first_line


@dataclass(frozen=True, kw_only=True)
class ChainReport:
    """What became of every call of an integer layer that tracing reached, and which modules could not be traced.

    ``untraced`` holds (module, why), "" for the model itself: what is directly in them runs unchained. ``requested``
    is false for a model that was made with ``chain=False``.
    """

    layers: tuple[ChainedLayer, ...] = ()
    untraced: tuple[tuple[str, str], ...] = ()
    requested: bool = True

    @property
    def chained(self) -> tuple[ChainedLayer, ...]:
        """The layers that give codes."""
        return tuple(layer for layer in self.layers if layer.consumers)

    @property
    def fused(self) -> tuple[ChainedLayer, ...]:
        """The layers that take in a residual or a function."""
        return tuple(layer for layer in self.layers if layer.residual or layer.function != "none")

    def __str__(self) -> str:
        """How many layers are chained, then a line for every layer, those with the same to say together."""
        if not self.requested:
            return "not chained (chain=False)"
        lines = [(layer.layer or "the model", layer.described) for layer in self.layers]
        lines += [(name or "the model", f"not traced: {why}") for name, why in self.untraced]
        return "\n".join([self._summary, *_grouped(lines)])

    @property
    def _summary(self) -> str:
        total, chained, fused = (len({each.layer for each in part}) for part in (self.layers, self.chained, self.fused))
        if not total:
            return "nothing chained: no integer layer was reached by tracing"
        return f"{chained} of {total} traced layers give codes to the next, {fused} take in what follows them"


def _grouped(lines: list[tuple[str, str]]) -> list[str]:
    """``name: text`` for each, names with the same text on one line."""
    names: dict[str, list[str]] = {}
    for name, text in lines:
        names.setdefault(text, []).append(name)
    return [f"{', '.join(dict.fromkeys(each))}: {text}" for text, each in names.items()]


def chain_model(model: nn.Module) -> ChainReport:
    """Chains integer layers in ``model`` itself, wherever tracing shows what is between them.

    A module that torch.fx cannot trace is tried again with those of its children taken for opaque that cannot be traced
    either. Where that does not help, the methods that its forward calls are tried, and each child by itself.
    """
    layers: list[ChainedLayer] = []
    untraced: list[tuple[str, str]] = []
    _chain(model, "", layers, untraced)
    return ChainReport(layers=tuple(layers), untraced=tuple(untraced))


def _in_place(function: Callable[[Any, Any], Any]) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    def record(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return record


class _Proxy(fx.Proxy):
    """Records ``x += y`` as what it is: torch.fx takes it for ``x = x + y``, which other names of x do not see."""

    __iadd__ = _in_place(operator.iadd)
    __isub__ = _in_place(operator.isub)
    __imul__ = _in_place(operator.imul)
    __itruediv__ = _in_place(operator.itruediv)
    __ifloordiv__ = _in_place(operator.ifloordiv)
    __imod__ = _in_place(operator.imod)
    __ipow__ = _in_place(operator.ipow)
    __iand__ = _in_place(operator.iand)
    __ior__ = _in_place(operator.ior)
    __ixor__ = _in_place(operator.ixor)


class _Tracer(fx.Tracer):
    """Stops at integer modules and at those that are known to be opaque."""

    proxy_buffer_attributes = True

    def __init__(self, opaque: frozenset[nn.Module]) -> None:
        super().__init__()
        self.opaque = opaque

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (IntegerLayer, IntegerMatmul)) or m in self.opaque:
            return True
        return super().is_leaf_module(m, module_qualified_name)


def _chain(module: nn.Module, name: str, layers: list[ChainedLayer], untraced: list[tuple[str, str]]) -> None:
    """``module`` rewritten, or its parts; what became of them is added to the lists."""
    if isinstance(module, IntegerLayer) or not _integer_layers(module):
        return
    graph = _trace(module)
    left: tuple[tuple[str, nn.Module], ...] = ()
    if isinstance(graph, str):
        untraced.append((name, graph))
        children = tuple(module.named_children())
        left = tuple((child, part) for child, part in children if isinstance(_trace(part), str))
        graph = _trace(module, frozenset(part for _, part in left))
        left = children if isinstance(graph, str) else left
    reached = _chain_method(module, "forward", graph, name, layers)
    if isinstance(graph, str):
        for method in _methods_of_forward(module):
            reached |= _chain_method(module, method, _trace(module, method=method), name, layers)
    for child, part in left:
        if not _integer_layers(part) <= reached:
            _chain(part, f"{name}.{child}" if name else child, layers, untraced)


def _integer_layers(module: nn.Module) -> set[nn.Module]:
    return {part for part in module.modules() if isinstance(part, IntegerLayer)}


def _chain_method(
    module: nn.Module, method: str, graph: fx.Graph | str, name: str, layers: list[ChainedLayer]
) -> set[nn.Module]:
    """Rewrites a method of which there is a graph: the module's class becomes one that has all of its own but it.

    Returns:
        The integer layers that the method calls.
    """
    modules = dict(module.named_modules(remove_duplicate=False))
    if isinstance(graph, str):
        return set()
    found = chain_graph(graph, modules, name)
    reached = _integer_layers(module) & {modules[str(node.target)] for node in graph.nodes if node.op == "call_module"}
    if not reached:
        return reached
    layers.extend(found)
    rewritten = type(fx.GraphModule(module, graph)).forward
    cls = type(module)
    module.__class__ = type(
        cls.__name__, (cls,), {method: rewritten, "__doc__": cls.__doc__, "__module__": cls.__module__}
    )
    return reached


def _methods_of_forward(module: nn.Module) -> tuple[str, ...]:
    """The methods of a module's own that its forward names, which can be traced where the forward itself cannot."""
    names = inspect.unwrap(type(module).forward).__code__.co_names
    own = (name for name in names if not hasattr(nn.Module, name))
    return tuple(name for name in own if inspect.isfunction(inspect.getattr_static(type(module), name, None)))


def _trace(module: nn.Module, opaque: frozenset[nn.Module] = frozenset(), method: str = "forward") -> fx.Graph | str:
    """The graph of a module's method, or why there is none. With optional arguments there is none: which of them it is
    called with is not known.
    """
    if _has_options(getattr(module, method)):
        return (
            "it has optional arguments; to chain it, give it a forward without them, or put its layers into a module "
            "that has one"
        )
    tracer = _Tracer(opaque)
    tracer.traced_func_name = method
    try:
        return tracer.trace(module)
    except TRACING_ERRORS as error:
        return f"torch.fx: {first_line(error)}"


def _has_options(function: Callable[..., Any]) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
