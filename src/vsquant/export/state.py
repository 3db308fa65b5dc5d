"""The tensors of a model as a checkpoint knows them: an integer model's are those of its simulated model."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from vsquant.errors import CheckpointError
from vsquant.nn import IntegerLayer, IntegerMatmul, QuantLayer

# What integer layers hold beside the canonical tensors; the range of an output is that of the next layer's input.
_DERIVED: Final = frozenset(
    {"packed_codes", "packed_vector_scale", "packed_sums", "packed_coarse_scale", "output_range"}
)


def is_integer(model: nn.Module) -> bool:
    """Whether the model computes on integers."""
    return any(isinstance(module, (IntegerLayer, IntegerMatmul)) for module in model.modules())


def canonical_state(model: nn.Module) -> dict[str, Tensor]:
    """All tensors of a model but those that quantized layers make of their integers.

    Buffers that PyTorch leaves out of a state are there too: what they are may depend on how the model was made.

    Raises:
        CheckpointError: the state holds more than tensors.
    """
    state: dict[str, Tensor] = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"the model's state must hold tensors only, but {name!r} is a {type(value).__name__}")
    return _canonical(model, state) | _unlisted_buffers(model)


def _canonical(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with the codes and scales of integer layers where their packed tensors were."""
    layers = {
        name: module for name, module in model.named_modules(remove_duplicate=False) if isinstance(module, IntegerLayer)
    }
    weights = {id(layer): layer.quantized_weight for layer in layers.values()}
    canonical: dict[str, Tensor] = {}
    for name, tensor in state.items():
        owner, _, part = name.rpartition(".")
        if owner in layers and part == "packed_codes":
            prefix, weight = f"{owner}." if owner else "", weights[id(layers[owner])]
            parts = {"codes": weight.codes, "vector_scale": weight.vector_scale, "coarse_scale": weight.coarse_scale}
            canonical |= {f"{prefix}weight_{key}": value for key, value in parts.items() if value is not None}
        elif owner not in layers or part not in _DERIVED:
            canonical[name] = tensor
    return canonical


def _unlisted_buffers(model: nn.Module) -> dict[str, Tensor]:
    """The non-persistent buffers outside quantized layers, under every name they have."""
    made = {
        f"{name}.weight" if name else "weight"
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, QuantLayer)
    }
    listed = model.state_dict().keys() | made
    return {name: buffer for name, buffer in model.named_buffers(remove_duplicate=False) if name not in listed}
