"""Quantizing the matrix products of attention in models of the transformers package.

Their attention modules call the implementation that ``config._attn_implementation`` names. A module that is asked for
gets a `QuantAttention` as a submodule and a configuration of its own that names vsquant's implementation; every other
module, and the masks, which the model makes by its own configuration, stay as they were.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn

from vsquant.errors import CalibrationError, RecipeError
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.attention_core import (
    OPERANDS,
    AttentionCore,
    AttentionRanges,
    ObservedAttention,
    QuantAttention,
    Softmax,
)

IMPLEMENTATION: Final = "vsquant"
"""The name of vsquant's attention implementation among those of transformers."""

SLOT: Final = "vsquant_attention"
"""The name of the submodule that an attention module gets."""

_DISPATCHER: Final = "ALL_ATTENTION_FUNCTIONS"
_MASKS_KNOWN_OF: Final = ("sdpa", "eager", None)

# Arguments by which attention modules are given the states that keys and values are made of; None is their own.
_OTHER_STATES: Final = frozenset(
    {"encoder_hidden_states", "key_value_states", "cross_attention_states", "key_hidden_states", "context", "kv_states"}
)
_RANGE_BUFFERS: Final = ("scores.range_a", "scores.range_b", "context.range_a", "context.range_b")


@dataclass(frozen=True, kw_only=True)
class AttentionEntry:
    """One attention module whose products are quantized: all that is needed to place it in a model again.

    ``name`` is the module's; ``ranges`` is None where no scale is static.
    """

    name: str
    spec: LayerSpec
    scale_mode: ScaleMode
    ranges: AttentionRanges | None


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The attention modules of a model, by name, that call a replaceable implementation; empty without transformers.

    Recognized by what their forward refers to, so nothing is run.
    """
    if "transformers" not in sys.modules:
        return {}
    return {name: module for name, module in model.named_modules() if _dispatches(module)}


def place_matmuls(model: nn.Module, entries: Sequence[AttentionEntry]) -> None:
    """Quantize the products of the named attention modules, in ``model`` itself.

    Raises:
        RecipeError: the model has no such attention module, or it runs as an implementation with masks of its own kind.
        SpecError: the spec leaves activations floating point.
        CalibrationError: the scales are static and there are no ranges.
    """
    modules = _attention_modules(model, [entry.name for entry in entries])
    for entry, module in zip(entries, modules, strict=True):
        implied_causal = _implies_causal(module, entry.name)
        core = QuantAttention(
            name=entry.name,
            spec=entry.spec,
            scale_mode=entry.scale_mode,
            ranges=entry.ranges,
            implied_causal=implied_causal,
            self_attention=_attends_to_itself(module),
        )
        _install(module, core.train(module.training))


def attention_entries(model: nn.Module) -> tuple[AttentionEntry, ...]:
    """What `place_matmuls` was given, from the model that it changed."""
    state = model.state_dict()
    cores = ((name, core) for name, core in model.named_modules() if isinstance(core, QuantAttention))
    return tuple(
        AttentionEntry(
            name=name,
            spec=core.scores.spec,
            scale_mode=core.scores.scale_mode,
            ranges=ranges_in_state(name, state),
        )
        for name, core in ((slot.removesuffix(SLOT).removesuffix("."), core) for slot, core in cores)
    )


def ranges_in_state(name: str, state: Mapping[str, Tensor]) -> AttentionRanges | None:
    """The ranges of the attention module ``name`` in a state dict, None where it has none.

    Raises:
        CalibrationError: some are there and some are not.
    """
    prefix = f"{name}.{SLOT}" if name else SLOT
    tensors = [state[key] for key in (f"{prefix}.{buffer}" for buffer in _RANGE_BUFFERS) if key in state]
    if tensors and len(tensors) != len(_RANGE_BUFFERS):
        raise CalibrationError(f"attention {name!r} must have {len(_RANGE_BUFFERS)} ranges, not {len(tensors)}")
    return AttentionRanges(*tensors) if tensors else None


@contextmanager
def observed_attention(model: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, ObservedAttention]]:
    """The named attention modules in float, gathering statistics; as they were when the block ends.

    Raises:
        RecipeError: as `place_matmuls`.
    """
    cores: dict[str, ObservedAttention] = {}
    configs: dict[str, Any] = {}
    try:
        for name, module in zip(names, _attention_modules(model, names), strict=True):
            core = ObservedAttention(
                name=name,
                implied_causal=_implies_causal(module, name),
                self_attention=_attends_to_itself(module),
            )
            configs[name] = module.config
            cores[name] = core
            _install(module, core)
        yield cores
    finally:
        for name, config in configs.items():
            module = model.get_submodule(name)
            module.config = config
            delattr(module, SLOT)


def operand_ranges(ranges: Mapping[str, Tensor]) -> AttentionRanges:
    """Ranges by operand as the record of them."""
    return AttentionRanges(*(ranges[operand] for operand in OPERANDS))


def _install(module: nn.Module, core: AttentionCore) -> None:
    """Give an attention module its core, and make it call it."""
    from transformers import AttentionInterface

    AttentionInterface.register(IMPLEMENTATION, _attention)
    config: Any = copy.deepcopy(module.config)
    config._attn_implementation = IMPLEMENTATION  # the name that modules dispatch by
    module.config = config
    module.add_module(SLOT, core)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_unused: object,
) -> tuple[Tensor, Tensor]:
    """What transformers calls; it gives implementations more arguments than any one of them needs."""
    core = module.get_submodule(SLOT)
    if s_aux is not None:
        raise RecipeError("attention with sinks (s_aux) must stay floating point; remove the rule with type: matmul")
    softmax = Softmax(
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
        bias=position_bias,
        dropout=dropout,
    )
    causal = bool(vars(module).get("is_causal", True)) if is_causal is None else is_causal
    result: tuple[Tensor, Tensor] = core(query, key, value, attention_mask, softmax, causal=causal)
    return result


def _dispatches(module: nn.Module) -> bool:
    """Whether a module's forward looks up its attention implementation."""
    forward = inspect.unwrap(type(module).forward)
    return inspect.isfunction(forward) and _DISPATCHER in forward.__code__.co_names


def _attention_modules(model: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    found = attention_modules(model) if names else {}
    for name in names:
        if name not in found:
            raise RecipeError(
                f"matmul {name!r} must be an attention module of a transformers model that calls a replaceable "
                "implementation, but the model has no such module"
            )
    return [found[name] for name in names]


def _implies_causal(module: nn.Module, name: str) -> bool:
    config: Any = module.config
    implementation = config._attn_implementation
    if implementation not in _MASKS_KNOWN_OF:
        raise RecipeError(
            f"attention {name!r} must run as 'sdpa' or 'eager' to be quantized, not {implementation!r}; "
            "load the model with attn_implementation='sdpa'"
        )
    return bool(implementation == "sdpa")


def _attends_to_itself(module: nn.Module) -> bool:
    """Whether keys and values are always made of the states that queries are made of.

    A module that can be given other states says that it was not by being causal (the decoders of BART and GPT-2); for
    their other modules the answer is no, and then only queries that see no key count as masked.
    """
    parameters = inspect.signature(inspect.unwrap(type(module).forward)).parameters
    return not _OTHER_STATES & parameters.keys() or vars(module).get("is_causal") is True
