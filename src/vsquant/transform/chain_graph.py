"""What in a graph can become part of an integer layer: a residual added to its output, a function applied to it."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn import functional

from vsquant.kernels import Function
from vsquant.nn import IntegerConv2d, IntegerLayer, IntegerLinear

_DROPOUTS: Final = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_FUNCTIONS: Final[Mapping[Callable[..., Any], Function]] = {
    functional.relu: "relu",
    functional.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    functional.relu6: "relu6",
    functional.gelu: "gelu",
}
_METHODS: Final[Mapping[str, Function]] = {"relu": "relu", "relu_": "relu"}
_ADDITIONS: Final = (operator.add, operator.iadd, torch.add)
_ADDING_METHODS: Final = ("add", "add_")
_IN_PLACE_OPERATORS: Final = frozenset(
    getattr(operator, f"i{name}")
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
) | {operator.setitem}


@dataclass(frozen=True, kw_only=True)
class Fused:
    """A layer's call and the calls that follow it and become part of it, in their order."""

    call: fx.Node
    absorbed: tuple[fx.Node, ...]
    addition: tuple[fx.Node, int] | None
    """The absorbed sum, and which of its summands is the residual: the graph may have been rewritten since."""
    function: Function

    @property
    def last(self) -> fx.Node:
        """The node whose value the fused call gives."""
        return self.absorbed[-1] if self.absorbed else self.call

    @property
    def residual(self) -> fx.Node | None:
        """The value that is added to the layer's output."""
        value = None if self.addition is None else self.addition[0].args[self.addition[1]]
        return value if isinstance(value, fx.Node) else None


def layer_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> IntegerLinear | IntegerConv2d | None:
    """The integer layer that a node calls on one input and nothing else."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    plain = len(node.args) == 1 and not node.kwargs and isinstance(node.args[0], fx.Node)
    return module if plain and isinstance(module, (IntegerLinear, IntegerConv2d)) else None


def drop_identities(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> None:
    """Takes out what passes its input on in evaluation mode."""
    for node in list(graph.nodes):
        if node.args and isinstance(node.args[0], fx.Node) and _is_identity(node, modules):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def fuse(call: fx.Node, modules: Mapping[str, nn.Module], mutated: frozenset[fx.Node]) -> Fused:
    """As much as can follow a layer's call: one residual, then one function; ``mutated`` as of `changed_in_place`."""
    last, addition = call, None
    absorbed: list[fx.Node] = []
    function: Function = "none"
    while len(last.users) == 1 and function == "none" and call.args[0] not in mutated:
        user = next(iter(last.users))
        summand = _other_summand(user, last) if addition is None else None
        if summand is not None and user.args[summand] not in mutated:
            addition = (user, summand)
        else:
            function = _function(user, last, modules)
            if function == "none":
                break
        last = user
        absorbed.append(user)
    return Fused(call=call, absorbed=tuple(absorbed), addition=addition, function=function)


def max_pool_of(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[tuple[int, int], ...] | None:
    """Kernel, stride, padding and dilation where a node max-pools images and does nothing else."""
    module = modules.get(str(node.target)) if node.op == "call_module" else None
    if type(module) is not nn.MaxPool2d or module.ceil_mode or module.return_indices or len(node.args) != 1:
        return None
    settings = (module.kernel_size, module.stride, module.padding, module.dilation)
    return tuple((size, size) if isinstance(size, int) else (size[0], size[1]) for size in settings)


def changed_in_place(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> frozenset[fx.Node]:
    """The values that something changes and something else reads too: calls that read them must stay where they are."""
    changed = (node.args[0] for node in graph.nodes if node.args and _is_in_place(node, modules))
    return frozenset(value for value in changed if isinstance(value, fx.Node) and len(value.users) > 1)


def _is_identity(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], (nn.Identity, *_DROPOUTS))
    if node.op != "call_function" or node.target is not functional.dropout:
        return False
    return (node.args[2] if len(node.args) > 2 else node.kwargs.get("training", True)) is False


def _other_summand(node: fx.Node, value: fx.Node) -> int | None:
    """Which argument ``node`` adds to ``value``, if that is all it does and ``value`` is what it changes, if any."""
    is_sum = node.op == "call_function" and node.target in _ADDITIONS
    is_sum = is_sum or (node.op == "call_method" and node.target in _ADDING_METHODS)
    if not is_sum or node.kwargs or len(node.args) != 2:
        return None
    in_place = node.target is operator.iadd or node.target == "add_"
    first, second = node.args
    if first is value and second is not value and isinstance(second, fx.Node):
        return 1
    return 0 if second is value and not in_place and isinstance(first, fx.Node) and first is not value else None


def _function(node: fx.Node, value: fx.Node, modules: Mapping[str, nn.Module]) -> Function:
    """The function that ``node`` applies to ``value``, "none" if it is none that kernels know."""
    if not node.args or node.args[0] is not value or len(node.args) > 1:
        return "none"
    options = {key: option for key, option in node.kwargs.items() if key != "inplace"}
    if node.op == "call_module":
        return _module_function(modules[str(node.target)])
    if node.op == "call_function" and callable(node.target):
        function = _FUNCTIONS.get(node.target, "none")
        return function if not options or (function == "gelu" and options == {"approximate": "none"}) else "none"
    return _METHODS.get(str(node.target), "none") if node.op == "call_method" and not options else "none"


def _module_function(module: nn.Module) -> Function:
    if type(module) is nn.ReLU:
        return "relu"
    if type(module) is nn.ReLU6:
        return "relu6"
    return "gelu" if type(module) is nn.GELU and module.approximate == "none" else "none"


def _is_in_place(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    if node.op == "call_module":
        module = modules[str(node.target)]
        return not isinstance(module, IntegerLayer) and bool(vars(module).get("inplace", False))
    if node.kwargs.get("inplace", False):
        return True
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or node.target in _IN_PLACE_OPERATORS
