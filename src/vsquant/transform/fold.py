"""Folding batch norms into the layers before them, where it is proven (or declared) that nothing comes between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vsquant.errors import RecipeError, ShapeError
from vsquant.transform.trace import AFFINE_LAYERS, Batch, Trace, has_base_forward, trace

# Dimensions of the input over whose channels a batch norm and the layer before agree.
_INPUT_DIMENSIONS: Final[Mapping[type[nn.Module], int]] = {nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4}


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """What became of every batch norm of a model."""

    folded: tuple[tuple[str, str], ...]
    """(layer, batch norm) that became one; the batch norm is now an ``nn.Identity``."""
    unfolded: tuple[tuple[str, str], ...]
    """(batch norm, why it is still there)."""


def fold_batchnorm(
    model: nn.Module, *, pairs: Sequence[tuple[str, str]] | None = None, example: Batch | None = None
) -> FoldReport:
    """Folds batch norms in eval mode into the Conv1d, Conv2d or Linear before them, in ``model`` itself.

    W' = W * g / sqrt(var + eps) and b' = (b - mean) * g / sqrt(var + eps) + beta, in float64, then in the weight's
    dtype. That nothing comes between is proven from a trace of the model (torch.fx, else torch.export with
    ``example``), or declared by ``pairs``. What cannot be proven is left as it was, and the report says why.

    Args:
        model: the model, of any mode; batch norms in training mode are left.
        pairs: (layer, batch norm) names that are adjacent; the model is then not traced.
        example: a batch; needed to export a model, to fold linear layers (its run shows that their output is two-
            dimensional), and to check declared pairs.

    Raises:
        RecipeError: a declared pair names no such modules, repeats one, or is seen not to be adjacent.
        ShapeError: the layer and the batch norm of a declared pair have different channel counts.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    names = _first_names(model)
    reasons = {name: _norm_problem(name, norm, names) for name, norm in norms.items()}
    usable = [name for name, problem in reasons.items() if not problem]
    if pairs is not None:
        candidates = [pair for pair in _declared(model, pairs, example) if pair[1] in usable]
        reasons.update(dict.fromkeys(usable, "is not among the declared pairs"))
    else:
        candidates, unproven = _proven(model, usable, names, example)
        reasons.update(unproven)
    folded = []
    for layer_name, norm_name in candidates:
        reasons[norm_name] = _layer_problem(model, layer_name, names)
        if not reasons[norm_name]:
            _fold(model, layer_name, norm_name)
            folded.append((layer_name, norm_name))
    return FoldReport(folded=tuple(folded), unfolded=tuple((name, why) for name, why in reasons.items() if why))


def _proven(
    model: nn.Module, norms: Sequence[str], names: Mapping[str, str], example: Batch | None
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Pairs that a trace proves adjacent, and why each other batch norm has none."""
    if not norms:
        return [], {}
    traced = trace(model, example)
    if isinstance(traced, str):
        return [], dict.fromkeys(norms, traced)
    found: list[tuple[str, str]] = []
    reasons: dict[str, str] = {}
    for norm in norms:
        layer, reason = _layer_before(norm, traced, names)
        if reason:
            reasons[norm] = reason
        else:
            found.append((layer, norm))
    linear = [pair for pair in found if isinstance(model.get_submodule(pair[0]), nn.Linear)]
    refused = _not_two_dimensional(model, linear, example)
    return [pair for pair in found if pair[1] not in refused], {**reasons, **refused}


def _layer_before(norm: str, traced: Trace, names: Mapping[str, str]) -> tuple[str, str]:
    """The one layer whose output goes to the batch norm and nowhere else, or why there is none."""
    calls = [node for node, name in traced.norm_calls.items() if names[name] == norm]
    if len(calls) != 1:
        return "", "is never called" if not calls else f"is called {len(calls)} times"
    if _uses(norm, traced, names) > 1:
        return "", "its parameters are also used elsewhere"
    source = calls[0].args[0] if calls[0].args else calls[0].kwargs["input"]
    layer = next((names[name] for node, name in traced.affine_calls.items() if node is source), None)
    if layer is None:
        return "", "its input is not the output of a convolution or linear layer"
    if _uses(layer, traced, names) > 1:
        return "", f"{layer!r} or its parameters are used more than once"
    if any(user is not calls[0] for node in traced.affine_calls if node is source for user in node.users):
        return "", f"the output of {layer!r} is also used elsewhere"
    return layer, ""


def _uses(name: str, traced: Trace, names: Mapping[str, str]) -> int:
    return sum(count for used, count in traced.uses.items() if names.get(used) == name)


def _first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a module, aliases included, to the first name of the same object."""
    first = {id(module): name for name, module in model.named_modules()}
    return {name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)}


def _not_two_dimensional(model: nn.Module, pairs: Sequence[tuple[str, str]], example: Batch | None) -> dict[str, str]:
    """Why batch norms after linear layers stay: over (N, L, C) they normalize L, not the layer's channels."""
    if not pairs:
        return {}
    if example is None or _has_state_to_change(model):
        need = "needs an example batch, and a model in eval mode, to see the shape of the output of"
        return {norm: f"{need} {layer!r}" for layer, norm in pairs}
    inputs = _run_and_watch(model, pairs, example)
    return {
        norm: f"the output of {layer!r} has {inputs[norm][0].dim()} dimensions, not 2"
        for layer, norm in pairs
        if inputs[norm][0].dim() != _INPUT_DIMENSIONS[nn.Linear]
    }


def _run_and_watch(model: nn.Module, pairs: Sequence[tuple[str, str]], example: Batch) -> Mapping[str, list[Tensor]]:
    """Tensors seen in one run: the outputs of the layers and the inputs of the batch norms, by name, in call order."""
    seen: dict[str, list[Tensor]] = {name: [] for pair in pairs for name in pair}

    def output_of(name: str) -> Any:
        return lambda module, args, output: seen[name].append(output)

    def input_of(name: str) -> Any:
        return lambda module, args: seen[name].append(args[0])

    with ExitStack() as hooks, torch.inference_mode():
        for layer, norm in pairs:
            hooks.callback(model.get_submodule(layer).register_forward_hook(output_of(layer)).remove)
            hooks.callback(model.get_submodule(norm).register_forward_pre_hook(input_of(norm)).remove)
        model(example) if isinstance(example, Tensor) else model(**example)
    return seen


def _declared(model: nn.Module, pairs: Sequence[tuple[str, str]], example: Batch | None) -> Sequence[tuple[str, str]]:
    """The declared pairs, once they are known to be possible."""
    modules = dict(model.named_modules(remove_duplicate=False))
    counts = Counter(name for pair in pairs for name in pair)
    for layer, norm in pairs:
        pair = f"batch-norm pair ({layer!r}, {norm!r})"
        for name, types, what in (
            (layer, AFFINE_LAYERS, "a Conv1d, Conv2d or Linear"),
            (norm, (nn.BatchNorm1d, nn.BatchNorm2d), "a BatchNorm1d or BatchNorm2d"),
        ):
            if name not in modules:
                raise RecipeError(f"{pair} must name modules of the model; it has no {name!r}")
            if not isinstance(modules[name], types):
                raise RecipeError(f"{name!r} of {pair} must be {what}, not a {type(modules[name]).__name__}")
            if counts[name] > 1:
                raise RecipeError(f"{name!r} of {pair} must be in one pair, not {counts[name]}")
        channels, features = _channels(modules[layer]), modules[norm].num_features
        if channels != features:
            raise ShapeError(f"{pair} must have equal channel counts, not {channels} and {features}")
    if example is not None and not _has_state_to_change(model):
        _check_adjacent(model, pairs, example)
    return pairs


def _check_adjacent(model: nn.Module, pairs: Sequence[tuple[str, str]], example: Batch) -> None:
    seen = _run_and_watch(model, pairs, example)
    for layer, norm in pairs:
        outputs, inputs = seen[layer], seen[norm]
        adjacent = len(outputs) == len(inputs) == 1 and outputs[0] is inputs[0]
        dimensions = next(n for base, n in _INPUT_DIMENSIONS.items() if isinstance(model.get_submodule(layer), base))
        if not adjacent or inputs[0].dim() != dimensions:
            raise RecipeError(
                f"batch-norm pair ({layer!r}, {norm!r}) must be adjacent; on the example batch "
                f"the output of {layer!r} is not what {norm!r} normalizes"
            )


def _channels(layer: nn.Module) -> int:
    return int(layer.get_parameter("weight").shape[0])


def _norm_problem(name: str, norm: _BatchNorm, names: Mapping[str, str]) -> str:
    """Why a batch norm cannot be folded into any layer; empty if it can."""
    if not isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)) or not has_base_forward(norm):
        return f"is a {type(norm).__name__}, not a plain BatchNorm1d or BatchNorm2d"
    if norm.training:
        return "is in training mode; call model.eval() first"
    if norm.running_mean is None or norm.running_var is None:
        return "has no running statistics"
    return "is shared under several names" if _is_shared(name, names) else ""


def _layer_problem(model: nn.Module, name: str, names: Mapping[str, str]) -> str:
    """Why a layer cannot take in the batch norm after it; empty if it can."""
    layer = model.get_submodule(name)
    if _is_shared(name, names):
        return f"{name!r} is shared under several names"
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        return f"the weight of {name!r} is computed, not a parameter"
    if _is_tied(model, layer):
        return f"a parameter of {name!r} is tied to another module's"
    if not has_base_forward(layer) and not _adds_own_bias(layer):
        return f"{name!r} has a forward of its own that does not add its bias"
    return ""


def _is_shared(name: str, names: Mapping[str, str]) -> bool:
    return Counter(names.values())[names[name]] > 1


def _has_state_to_change(model: nn.Module) -> bool:
    """Whether a run would change the model: batch norms in training mode update their statistics."""
    return any(isinstance(module, _BatchNorm) and module.training for module in model.modules())


def _is_tied(model: nn.Module, layer: nn.Module) -> bool:
    owners = Counter(
        id(parameter)
        for module in model.modules()
        for _, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
    )
    return any(owners[id(parameter)] > 1 for parameter in layer.parameters(recurse=False))


@torch.no_grad()
def _adds_own_bias(layer: nn.Module) -> bool:
    """Whether a layer with a forward of its own adds ``self.bias`` to its output, tried on an input of zeros."""
    assert isinstance(layer, AFFINE_LAYERS)
    original, weight = layer.bias, layer.weight
    probe = torch.arange(1, len(weight) + 1, dtype=weight.dtype, device=weight.device)
    layer.bias = nn.Parameter(probe)
    try:
        output = layer(weight.new_zeros(_smallest_input(layer)))
    except (RuntimeError, TypeError, ValueError):
        return False
    finally:
        layer.bias = original
    return bool((output == probe.reshape(1, -1, *[1] * (output.dim() - 2))).all())


def _smallest_input(layer: nn.Conv1d | nn.Conv2d | nn.Linear) -> tuple[int, ...]:
    if isinstance(layer, nn.Linear):
        return (1, layer.in_features)
    extent = (d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
    return (1, layer.in_channels, *extent)


@torch.no_grad()
def _fold(model: nn.Module, layer_name: str, norm_name: str) -> None:
    layer, norm = model.get_submodule(layer_name), model.get_submodule(norm_name)
    assert isinstance(layer, AFFINE_LAYERS)
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gain, offset = (norm.weight.double(), norm.bias.double()) if norm.affine else (1.0, 0.0)
    scale = gain / torch.sqrt(variance + norm.eps)
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias.double()
    weight = layer.weight.double() * scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
    layer.weight.copy_(weight)
    folded_bias = ((bias - mean) * scale + offset).to(layer.weight.dtype)
    layer.bias = nn.Parameter(folded_bias, requires_grad=layer.weight.requires_grad)
    parent, _, child = norm_name.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
