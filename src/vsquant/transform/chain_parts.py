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
from vsquant.transform.replace import set_module
from vsquant.transform.trace import TRACING_ERRORS, defaults_of, first_line


@dataclass(frozen=True, kw_only=True)
class ChainReport:
    """What became of every call of an integer layer that tracing reached, and which modules could not be traced.

    ``untraced`` holds (module, why), "" for the model itself: what is directly in them runs unchained.
    """

    layers: tuple[ChainedLayer, ...] = ()
    untraced: tuple[tuple[str, str], ...] = ()

    @property
    def chained(self) -> tuple[ChainedLayer, ...]:
        """The layers that give codes."""
        return tuple(layer for layer in self.layers if layer.consumers)

    @property
    def fused(self) -> tuple[ChainedLayer, ...]:
        """The layers that take in a residual or a function."""
        return tuple(layer for layer in self.layers if layer.residual or layer.function != "none")

    def __str__(self) -> str:
        """A line for every layer."""
        lines = [f"{layer.layer}: {layer.described}" for layer in self.layers]
        return "\n".join([*lines, *(f"{name or 'the model'}: not traced: {why}" for name, why in self.untraced)])


def chain_model(model: nn.Module) -> tuple[nn.Module, ChainReport]:
    """The model with its integer layers chained wherever tracing shows what is between them.

    A module that torch.fx cannot trace is left as it is and its children are tried: those are taken for opaque that
    cannot be traced either, and where that does not help, each child is chained by itself.
    """
    layers: list[ChainedLayer] = []
    untraced: list[tuple[str, str]] = []
    chained = _chain(model, "", layers, untraced)
    return chained, ChainReport(layers=tuple(layers), untraced=tuple(untraced))


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


def _chain(module: nn.Module, name: str, layers: list[ChainedLayer], untraced: list[tuple[str, str]]) -> nn.Module:
    """``module`` rewritten, or its parts; what became of them is added to the lists."""
    if isinstance(module, IntegerLayer) or not any(isinstance(part, IntegerLayer) for part in module.modules()):
        return module
    graph = _trace(module, name, frozenset())
    left: tuple[tuple[str, nn.Module], ...] = ()
    if isinstance(graph, str):
        untraced.append((name, graph))
        children = tuple(module.named_children())
        left = tuple((child, part) for child, part in children if isinstance(_trace(part, child, frozenset()), str))
        graph = _trace(module, name, frozenset(part for _, part in left))
        left = children if isinstance(graph, str) else left
    if isinstance(graph, fx.Graph):
        modules = dict(module.named_modules(remove_duplicate=False))
        layers.extend(chain_graph(graph, modules, name))
        module = _with_forward(module, graph)
    for child, part in left:
        set_module(module, child, _chain(part, f"{name}.{child}" if name else child, layers, untraced))
    return module


def _with_forward(module: nn.Module, graph: fx.Graph) -> nn.Module:
    """The module itself, running ``graph``: its class becomes one that has all of its own but ``forward``."""
    forward = type(fx.GraphModule(module, graph)).forward
    cls = type(module)
    module.__class__ = type(
        cls.__name__, (cls,), {"forward": forward, "__doc__": cls.__doc__, "__module__": cls.__module__}
    )
    return module


def _trace(module: nn.Module, name: str, opaque: frozenset[nn.Module]) -> fx.Graph | str:
    """A module's graph, or why there is none. Inside a model, a module with optional arguments has none: which of them
    it is called with is not known.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    if name and any(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return "it has optional arguments"
    try:
        return _Tracer(opaque).trace(module, concrete_args=defaults_of(module, None))
    except TRACING_ERRORS as error:
        return f"torch.fx: {first_line(error)}"
