"""What a model's graph says of its convolutions, linear layers and batch norms. Analysis only: nothing is rewritten."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Batch: TypeAlias = Tensor | Mapping[str, Tensor]
"""One batch of model inputs, as for tasks; dimension 0 is samples."""

AFFINE_LAYERS: Final = (nn.Conv1d, nn.Conv2d, nn.Linear)

# What forward functions of models raise when they meet what tracing puts in place of tensors.
TRACING_ERRORS: Final = (
    fx.proxy.TraceError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
)

_AFFINE_FUNCTIONS: Final = frozenset({functional.conv1d, functional.conv2d, functional.linear})
_ATEN: Final = torch.ops.aten
_AFFINE_OPERATORS: Final = frozenset(
    {
        _ATEN.conv1d.default,
        _ATEN.conv1d.padding,
        _ATEN.conv2d.default,
        _ATEN.conv2d.padding,
        _ATEN.linear.default,
    }
)


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The calls of one run of a model, by name of the module whose parameters they use."""

    affine_calls: Mapping[fx.Node, str]
    """Calls that compute weight * x + bias with a convolution's or linear layer's own weight, nothing else."""
    norm_calls: Mapping[fx.Node, str]
    """Calls of batch norms."""
    uses: Mapping[str, int]
    """How often each module, or any parameter of it, is used."""


def trace(model: nn.Module, example: Batch | None) -> Trace | str:
    """Traces the model symbolically, or where that fails by exporting it with the example.

    Returns:
        The trace, or why there is none.
    """
    try:
        return _symbolic(model, example)
    except TRACING_ERRORS as error:
        reason = f"torch.fx cannot trace the model: {first_line(error)}"
    if example is None:
        return f"{reason}; give an example batch or declare the pairs"
    try:
        return _exported(model, example)
    except TRACING_ERRORS as error:
        return f"{reason}; torch.export cannot either: {first_line(error)}; declare the pairs"


def has_base_forward(module: nn.Module) -> bool:
    """Whether a convolution, linear layer or batch norm computes what its class in torch.nn does."""
    if isinstance(module, _BatchNorm):
        return type(module).forward is _BatchNorm.forward and "forward" not in vars(module)
    base = next(base for base in AFFINE_LAYERS if isinstance(module, base))
    methods = ("forward",) if base is nn.Linear else ("forward", "_conv_forward")
    inherited = all(getattr(type(module), method) is getattr(base, method) for method in methods)
    return inherited and "forward" not in vars(module)


class _Tracer(fx.Tracer):
    """Stops at plain layers; sees through those with a forward of their own, wherever they are defined."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, (*AFFINE_LAYERS, _BatchNorm)):
            return has_base_forward(m)
        return super().is_leaf_module(m, module_qualified_name)


def _symbolic(model: nn.Module, example: Batch | None) -> Trace:
    graph = _Tracer().trace(model, concrete_args=_defaults(model, example))
    modules = dict(model.named_modules(remove_duplicate=False))
    affine: dict[fx.Node, str] = {}
    norms: dict[fx.Node, str] = {}
    calls: Counter[str] = Counter()
    reads: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            name = str(node.target)
            calls[name] += 1
            if isinstance(modules[name], AFFINE_LAYERS):
                affine[node] = name
            elif isinstance(modules[name], _BatchNorm):
                norms[node] = name
        elif node.op == "get_attr":
            owner = str(node.target).rpartition(".")[0]
            reads[owner] = max(reads.get(owner, 0), len(node.users))
        elif node.op == "call_function" and node.target in _AFFINE_FUNCTIONS:
            weight = _argument(node, 1, "weight")
            if weight is not None and weight.op == "get_attr" and str(weight.target).endswith(".weight"):
                affine[node] = str(weight.target).removesuffix(".weight")
    return Trace(affine_calls=affine, norm_calls=norms, uses=calls + Counter(reads))


def _exported(model: nn.Module, example: Batch) -> Trace:
    args, kwargs = ((example,), {}) if isinstance(example, Tensor) else ((), dict(example))
    program = torch.export.export(model, args, kwargs, strict=False)
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    affine: dict[fx.Node, str] = {}
    norms: dict[fx.Node, str] = {}
    uses: Counter[str] = Counter()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            owner = names[node.name].rpartition(".")[0]
            uses[owner] = max(uses[owner], len(node.users))
        elif node.op == "call_function" and node.target in _AFFINE_OPERATORS:
            weight = _argument(node, 1, "weight")
            owner, _, attribute = names.get(weight.name if weight is not None else "", "").rpartition(".")
            if attribute == "weight":
                affine[node] = owner
        elif node.op == "call_function" and node.target is _ATEN.batch_norm.default:
            mean = _argument(node, 3, "running_mean")
            owner, _, attribute = names.get(mean.name if mean is not None else "", "").rpartition(".")
            if attribute == "running_mean":
                norms[node] = owner
    return Trace(affine_calls=affine, norm_calls=norms, uses=uses)


def _argument(node: fx.Node, position: int, name: str) -> fx.Node | None:
    value = node.args[position] if len(node.args) > position else node.kwargs.get(name)
    return value if isinstance(value, fx.Node) else None


def _defaults(model: nn.Module, example: Batch | None) -> dict[str, Any]:
    """Values of the arguments that a batch leaves at their defaults."""
    given: Sequence[str] = () if example is None or isinstance(example, Tensor) else tuple(example)
    parameters = inspect.signature(model.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty and p.name not in given}


def first_line(error: Exception) -> str:
    """The first line of an error's message, for a reason within a sentence."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
