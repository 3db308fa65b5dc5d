"""What the layers of a model read, stage by stage, without running the model from its start for every stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from vsquant.transform.blocks import Block
from vsquant.transform.stages import Stage, read_stage, watch_layers
from vsquant.workflows.batches import Batches, call
from vsquant.workflows.captured import (
    DEFAULT_MEMORY_BYTES,
    ModuleCall,
    TensorCache,
    captured_calls,
    outputs_of,
    run_module,
)


@dataclass(frozen=True, kw_only=True)
class _FloatBlock:
    """One call of a block in the float model: what its stages read (by their first layers), and what it gives."""

    call: ModuleCall
    reads: Mapping[str, Tensor]
    output: Tensor


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """The calls of one block, one for every batch: through the quantized layers before it, and in the float model."""

    block: Block
    calls: Sequence[ModuleCall]
    floats: Sequence[_FloatBlock]


class StageInputs:
    """Reads the inputs of stages in their order, each through the model as it is by then.

    Within a block (`vsquant.transform.blocks`) of several layers a stage runs that block alone, on the calls that are
    kept of it; the float block runs once. A block that follows another is given the outputs of that one. All other
    stages, and blocks that follow none, run the model from its start. Values are those of such a run, bit for bit.

    Args:
        model: the quantized model.
        float_model: the float model, with the same names; None where its inputs are not wanted.
        stages: the stages that will be read.
        blocks: blocks of ``model`` in the order of execution.
        batches: calibration data, read again wherever the model is run from its start.
        memory_bytes: how much of one block's data stays in memory; the rest is in temporary files.
    """

    def __init__(
        self,
        model: nn.Module,
        float_model: nn.Module | None,
        stages: Sequence[Stage],
        blocks: Sequence[Block],
        batches: Batches,
        *,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self._model, self._float_model, self._batches = model, float_model, batches
        self._homes = {name: block for block in blocks if len(block.layers) > 1 for name in block.layers}
        self._firsts = tuple(stage.layers[0] for stage in stages)
        self._before = {block.name: before for before, block in pairwise(blocks)}
        self._memory_bytes = memory_bytes
        self._kept: _Kept | None = None

    def read(self, stage: Stage) -> Iterator[tuple[Tensor, Tensor | None]]:
        """What the stage reads, and what it reads in the float model: ``stage.calls`` pairs for every batch."""
        homes = [self._homes.get(name) for name in stage.layers]
        if homes[0] is None or any(home is not homes[0] for home in homes):
            return self._from_start(stage)
        return self._within(stage, homes[0])

    def _from_start(self, stage: Stage) -> Iterator[tuple[Tensor, Tensor | None]]:
        for batch in self._batches:
            floats: list[Tensor] | list[None] = [None] * stage.calls
            if self._float_model is not None:
                floats = _read(self._float_model, stage, batch, call)
            yield from zip(_read(self._model, stage, batch, call), floats, strict=True)

    def _within(self, stage: Stage, block: Block) -> Iterator[tuple[Tensor, Tensor | None]]:
        if self._kept is None or self._kept.block is not block:
            self._kept = self._enter(block, self._kept)
        module = self._model.get_submodule(block.name)
        for number, each in enumerate(self._kept.calls):
            [x] = _read(self._model, stage, each, lambda model, each: _run(module, each))
            yield x, self._kept.floats[number].reads[stage.layers[0]] if self._kept.floats else None

    def _enter(self, block: Block, before: _Kept | None) -> _Kept:
        cache = TensorCache(self._memory_bytes)
        if before is not None and block.follows and self._before[block.name] is before.block:
            outputs = outputs_of(self._model.get_submodule(before.block.name), before.calls, cache)
            calls = [replace(each, x=x) for each, x in zip(before.calls, outputs, strict=True)]
            float_calls = [replace(each.call, x=each.output) for each in before.floats]
        else:
            calls = captured_calls(self._model, block.name, self._batches, call, cache)
            float_calls = self._captured_floats(block, cache)
        return _Kept(block=block, calls=calls, floats=self._float_blocks(block, float_calls, cache))

    def _captured_floats(self, block: Block, cache: TensorCache) -> list[ModuleCall]:
        if self._float_model is None:
            return []
        return captured_calls(self._float_model, block.name, self._batches, call, cache)

    def _float_blocks(self, block: Block, calls: Sequence[ModuleCall], cache: TensorCache) -> list[_FloatBlock]:
        """The float block run on each of ``calls``, everything kept that a later stage or block may ask for."""
        if self._float_model is None:
            return []
        module = self._float_model.get_submodule(block.name)
        layers = {name: self._float_model.get_submodule(name) for name in self._firsts if name in block.layers}
        return [_float_block(module, layers, each, cache) for each in calls]


def _float_block(
    module: nn.Module, layers: Mapping[str, nn.Module], each: ModuleCall, cache: TensorCache
) -> _FloatBlock:
    reads: dict[str, Tensor] = {}

    def note(name: str, x: Tensor) -> None:
        reads[name] = cache.keep(x)

    output = watch_layers(module, layers, note, each, _run)
    return _FloatBlock(call=each, reads=reads, output=cache.keep(output))


def _read(model: nn.Module, stage: Stage, batch: Any, run: Callable[[nn.Module, Any], Any]) -> list[Tensor]:
    read: list[Tensor] = []
    read_stage(model, stage, batch, run, read.append)
    return read


def _run(module: nn.Module, each: ModuleCall) -> Tensor:
    """The module's output for a call that is kept: it works on a copy, since it may write over its input."""
    return run_module(module, replace(each, x=each.x.clone()))
