"""Through a quantized model block by block: what reaches each block, and what it should give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from vsquant.nn import QuantEmbedding, QuantLayer
from vsquant.transform.blocks import Block, find_blocks
from vsquant.workflows.batches import call
from vsquant.workflows.captured import DEFAULT_MEMORY_BYTES, ModuleCall, TensorCache, captured_calls, outputs_of


@dataclass(frozen=True, kw_only=True)
class BlockData:
    """The calls of one block, one for every calibration batch.

    ``calls`` come through the quantized blocks before it, ``float_calls`` are those in the float model,
    ``targets`` what the float block gives for them.
    """

    block: Block
    calls: Sequence[ModuleCall]
    float_calls: Sequence[ModuleCall]
    targets: Sequence[Tensor]

    def target_power(self) -> float:
        """Mean square of the targets; the smallest positive number where they are zero."""
        total = sum(float(target.double().square().sum()) for target in self.targets)
        count = sum(target.numel() for target in self.targets)
        return max(total / max(count, 1), torch.finfo(torch.float64).tiny)


def learnable_layers(model: nn.Module) -> tuple[str, ...]:
    """Simulated layers whose integer codes act on activations, in the model's order: all but embeddings."""
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, QuantLayer) and not isinstance(module, QuantEmbedding) and module.weight_codes is not None
    )


def blocks_of(model: nn.Module, batch: Any) -> tuple[Block, ...]:
    """The blocks of a simulated model, in the order in which they run on ``batch``."""
    return find_blocks(model, learnable_layers(model), batch, call)


def walk_blocks(
    float_model: nn.Module,
    model: nn.Module,
    blocks: Sequence[Block],
    batches: Sequence[Any],
    *,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> Iterator[BlockData]:
    """Each of ``blocks`` with its data; what the caller then does to a block of ``model`` reaches all later ones.

    Args:
        float_model: the model whose outputs are wanted; module names are those of ``model``.
        model: the simulated quantized model.
        blocks: blocks of ``model`` in the order of execution.
        batches: calibration batches, run again for every block that does not follow another.
        memory_bytes: how much of one block's data is kept in memory; the rest goes to temporary files.
    """
    before: BlockData | None = None
    for block in blocks:
        cache = TensorCache(memory_bytes)
        if before is not None and block.follows:
            outputs = outputs_of(model.get_submodule(before.block.name), before.calls, cache)
            calls = [replace(each, x=x) for each, x in zip(before.calls, outputs, strict=True)]
            float_calls = [replace(each, x=x) for each, x in zip(before.float_calls, before.targets, strict=True)]
        else:
            calls = captured_calls(model, block.name, batches, call, cache)
            float_calls = captured_calls(float_model, block.name, batches, call, cache)
        targets = outputs_of(float_model.get_submodule(block.name), float_calls, cache)
        before = BlockData(block=block, calls=calls, float_calls=float_calls, targets=targets)
        yield before
