"""Which rule of a recipe decides which layer of a model: found before anything is changed."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from torch import nn

from vsquant.errors import RecipeError
from vsquant.spec.layer import LayerSpec
from vsquant.transform.recipe import DEFAULT_KINDS, FirstLast, Kind, Recipe, Rule

NO_RULE: Final = "no rule"
"""`Match.rule_text` of a layer that no rule matches."""

_BASES: Final[Mapping[type[nn.Module], Kind]] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Embedding: "embedding",
}

# Their forward reads the weights of the layers inside without calling these.
_WEIGHT_READERS: Final = (nn.MultiheadAttention, nn.TransformerEncoderLayer)

_NAMES_SHOWN: Final = 6


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer that can be quantized, whatever a recipe says of it."""

    name: str
    """Dotted name, "" for the model itself."""
    aliases: tuple[str, ...]
    """Other names of the same module object."""
    module: nn.Module
    kind: Kind
    custom_forward: bool
    """Whether the module computes more than its base class does, e.g. pads its input in ``forward``."""
    obstacle: str
    """Why the layer cannot be replaced and so stays floating point; empty where it can."""
    note: str
    """What else a report should say of it: shared parameters."""


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a recipe decides for one layer.

    Invariants: ``requested is None`` means the layer stays floating point, and then ``note`` says why;
    ``rule_index is None`` (no rule matches) implies it.
    """

    name: str
    aliases: tuple[str, ...]
    module: nn.Module
    kind: Kind
    custom_forward: bool
    rule_index: int | None
    rule_text: str
    requested: LayerSpec | None
    note: str

    @property
    def transposed(self) -> bool:
        """Whether a linear layer keeps its weight as (in, out), as the ``Conv1D`` of transformers does."""
        return self.kind == "linear" and not isinstance(self.module, nn.Linear)

    @property
    def reduction_length(self) -> int:
        """Elements that vectors are made of at one position: input channels of a group, features, embedding_dim.

        0 for a matmul, whose operands are known only when it runs.
        """
        if isinstance(self.module, nn.Linear):
            return self.module.in_features
        if isinstance(self.module, (nn.Conv1d, nn.Conv2d)):
            return self.module.in_channels // self.module.groups
        if isinstance(self.module, nn.Embedding):
            return self.module.embedding_dim
        return int(self.module.get_parameter("weight").shape[0]) if self.transposed else 0


def match_layers(model: nn.Module, recipe: Recipe, *, matmuls: Sequence[str] = ()) -> list[Match]:
    """What the recipe decides for each layer of the model, in the order of ``model.named_modules()``.

    Args:
        model: any model; it is only read.
        recipe: the first rule that matches a layer's name (or an alias) and type decides.
        matmuls: names of the attention modules whose matmuls can be quantized; each is a layer of kind "matmul".

    Raises:
        RecipeError: a rule decides no layer: it matches none, or earlier rules take all that it matches.
    """
    layers = list(find_layers(model, matmuls))
    matches = [_decide(layer, recipe) for layer in layers]
    decided = {match.rule_index for match in matches}
    for index, rule in enumerate(recipe.rules):
        if index not in decided:
            raise RecipeError(_idle_rule_message(index, rule, layers, matches))
    return matches


def find_layers(model: nn.Module, matmuls: Sequence[str] = ()) -> Iterator[Layer]:
    """The layers of a model that can be quantized, each module object once, in the order of ``named_modules()``."""
    names = _names_by_module(model)
    owners = _owners_by_parameter(model)
    readers = [(name, type(module).__name__) for name, module in model.named_modules() if _reads_weights(module)]
    wanted_matmuls = set(matmuls)
    for name, module in model.named_modules():
        base = _base_of(module)
        if base is None and name not in wanted_matmuls:
            continue
        first, *aliases = names[id(module)]
        yield Layer(
            name=first,
            aliases=tuple(aliases),
            module=module,
            kind="matmul" if base is None else _kind_of(base),
            custom_forward=base is not None and _has_custom_forward(module, base),
            obstacle=_obstacle((first, *aliases), readers),
            note="" if base is None else _sharing(module, names[id(module)], owners),
        )


def apply_first_last(matches: Sequence[Match], order: Sequence[str], policy: FirstLast) -> list[Match]:
    """The matches after the policy for the first and the last quantized linear or convolution layer.

    Args:
        matches: result of `match_layers`.
        order: names of layers in the order of their first call; names of other modules are ignored.
        policy: "same" changes nothing, "8bit" makes both 8-bit per-channel, "float" leaves both floating point.

    Raises:
        RecipeError: the policy is not "same" and no quantized layer is among ``order``.
    """
    if policy == "same":
        return list(matches)
    by_name = {
        name: match
        for match in matches
        if match.requested is not None and match.kind in DEFAULT_KINDS
        for name in (match.name, *match.aliases)
    }
    executed = [by_name[name].name for name in order if name in by_name]
    if not executed:
        raise RecipeError(
            f"first_last: {policy} must find the first and last quantized layer executed, but none was; "
            "give data that reaches them, or use first_last: same"
        )
    ends = {executed[0]: "first", executed[-1]: "last"}
    return [_as_end(match, ends[match.name], policy) if match.name in ends else match for match in matches]


def eight_bit(spec: LayerSpec) -> LayerSpec:
    """The 8-bit per-channel spec in place of ``spec``: weights only, unsigned and γ mode as they are there."""
    if spec.activation is None:
        return LayerSpec.parse("w8a16")
    return replace(LayerSpec.parse("w8a8" if spec.activation.signed else "w8a8u"), gamma=spec.gamma)


def _as_end(match: Match, end: str, policy: FirstLast) -> Match:
    requested = eight_bit(match.requested) if policy == "8bit" and match.requested is not None else None
    return replace(match, requested=requested, note=_joined(match.note, f"{end} layer: {policy}"))


def _decide(layer: Layer, recipe: Recipe) -> Match:
    index = next((i for i, rule in enumerate(recipe.rules) if _applies(rule, layer)), None)
    rule = None if index is None else recipe.rules[index]
    if rule is None:
        reason = f"give it a rule with type: {layer.kind}" if layer.kind not in DEFAULT_KINDS else "no rule matches"
    else:
        reason = "skipped by the recipe" if rule.skip else layer.obstacle
    return Match(
        name=layer.name,
        aliases=layer.aliases,
        module=layer.module,
        kind=layer.kind,
        custom_forward=layer.custom_forward,
        rule_index=index,
        rule_text=NO_RULE if rule is None else rule.text,
        requested=None if rule is None or layer.obstacle else rule.spec,
        note=_joined(reason, layer.note),
    )


def _applies(rule: Rule, layer: Layer) -> bool:
    named = any(rule.matches_name(name) for name in (layer.name, *layer.aliases))
    return named and rule.matches_type(layer.kind, type(layer.module).__name__)


def _names_by_module(model: nn.Module) -> dict[int, list[str]]:
    names: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return names


def _owners_by_parameter(model: nn.Module) -> dict[int, list[tuple[str, int]]]:
    """Per parameter object: the full name of each place that holds it, and the id of the module there."""
    owners: dict[int, list[tuple[str, int]]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            full_name = f"{module_name}.{name}" if module_name else name
            owners.setdefault(id(parameter), []).append((full_name, id(module)))
    return owners


def _sharing(module: nn.Module, names: Sequence[str], owners: Mapping[int, Sequence[tuple[str, int]]]) -> str:
    notes = [f"shared with {', '.join(names[1:])}"] if len(names) > 1 else []
    for name, parameter in module.named_parameters(recurse=False):
        others = [full_name for full_name, owner in owners[id(parameter)] if owner != id(module)]
        if others:
            notes.append(f"{name} tied to {', '.join(others)}")
    return "; ".join(notes)


def _reads_weights(module: nn.Module) -> bool:
    return isinstance(module, _WEIGHT_READERS)


def _obstacle(names: Sequence[str], readers: Sequence[tuple[str, str]]) -> str:
    for reader, class_name in readers:
        prefix = f"{reader}." if reader else ""
        if any(name.startswith(prefix) and name != reader for name in names):
            where = f"{class_name} {reader!r}" if reader else f"the model, a {class_name},"
            return (
                f"left float: {where} reads its weights without calling it; a module that calls its layers in its "
                "forward can be quantized"
            )
    return ""


def _base_of(module: nn.Module) -> type[nn.Module] | None:
    """The class that the module is, or is derived from, among those whose layers can be quantized."""
    bases = (*_BASES, _transformers_conv1d())
    return next((base for base in bases if base is not None and isinstance(module, base)), None)


def _kind_of(base: type[nn.Module]) -> Kind:
    return _BASES.get(base, "linear")


def _transformers_conv1d() -> type[nn.Module] | None:
    """The linear layer with a transposed weight of GPT-2 and its kin, if transformers is in use at all."""
    module = sys.modules.get("transformers.pytorch_utils")
    return None if module is None else module.Conv1D


def _has_custom_forward(module: nn.Module, base: type[nn.Module]) -> bool:
    methods = ("forward", "_conv_forward") if base in (nn.Conv1d, nn.Conv2d) else ("forward",)
    return "forward" in vars(module) or any(
        getattr(type(module), method) is not getattr(base, method) for method in methods
    )


def _idle_rule_message(index: int, rule: Rule, layers: Sequence[Layer], matches: Sequence[Match]) -> str:
    taken = [match for layer, match in zip(layers, matches, strict=True) if _applies(rule, layer)]
    start = f"rule {index + 1} ({rule.text}) must decide at least one layer, not none: "
    if taken:
        takers = sorted({match.rule_index + 1 for match in taken if match.rule_index is not None})
        numbers = ", ".join(map(str, takers))
        names = _shown([match.name for match in taken], rule)
        return f"{start}rule {numbers} takes all that it matches ({names}); put it before, or drop it"
    if rule.type == "matmul" and not any(layer.kind == "matmul" for layer in layers):
        return (
            f"{start}the model has no attention of transformers that takes another implementation; products that a "
            "module computes itself stay floating point"
        )
    opt_in = [layer for layer in layers if any(rule.matches_name(name) for name in (layer.name, *layer.aliases))]
    if opt_in:
        kinds = ", ".join(sorted({layer.kind for layer in opt_in}))
        return f"{start}its pattern matches only layers of type {kinds} ({_shown([e.name for e in opt_in], rule)})"
    if not layers:
        return f"{start}the model has no layer that can be quantized"
    return f"{start}the model's layers are {_shown([layer.name for layer in layers], rule)}"


def _shown(names: Sequence[str], rule: Rule) -> str:
    """A few of the names, those like the rule's pattern first, and how many more there are."""
    near = difflib.get_close_matches(rule.match.removeprefix("re:"), names, n=_NAMES_SHOWN)
    ordered = [*near, *(name for name in names if name not in near)]
    more = len(names) - _NAMES_SHOWN
    return ", ".join(map(repr, ordered[:_NAMES_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
