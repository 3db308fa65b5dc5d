"""The cost of running on integers: what a simulated model's integer twin does on a task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vsquant.nn import IntegerEmbedding, IntegerLayer, IntegerMatmul
from vsquant.progress import Progress, silent
from vsquant.results.integers import CodeFlips, IntegerComparison
from vsquant.tasks.base import Task
from vsquant.transform.integer import chain_report, to_integer
from vsquant.workflows.record import quantized_layers


class FlipCounter:
    """Codes of layers' inputs, of a simulated model and then of its integer twin, compared call by call."""

    def __init__(self) -> None:
        self._expected: dict[str, list[Tensor]] = defaultdict(list)
        self._counts: dict[str, tuple[int, int]] = {}

    def expect(self, layer: str, codes: Tensor) -> None:
        """The simulated model's codes."""
        self._expected[layer].append(codes)

    def compare(self, layer: str, codes: Tensor) -> None:
        """The integer model's codes of the same call."""
        expected = self._expected[layer].pop(0)
        total, flipped = self._counts.get(layer, (0, 0))
        different = int((expected.flatten() != codes.flatten()).sum())
        self._counts[layer] = (total + codes.numel(), flipped + different)

    def flips(self) -> tuple[CodeFlips, ...]:
        """What was counted, in the order of first calls."""
        return tuple(
            CodeFlips(layer=layer, codes=total, flipped=flipped) for layer, (total, flipped) in self._counts.items()
        )


def compare_with_integer(
    task: Task, simulated: nn.Module, *, limit: int | None = None, progress: Progress = silent
) -> IntegerComparison:
    """Evaluate a simulated model and its integer twin on the same samples, and count the codes that flip between them.

    Raises:
        VsquantError: as `vsquant.to_integer`.
        DataError: as `Task.evaluate`.
    """
    integer = to_integer(simulated)
    scores = task.evaluate(simulated, limit=limit, progress=progress)
    with counted_flips(simulated, integer) as counter:
        integer_scores = task.evaluate(integer, limit=limit, progress=progress)
    return IntegerComparison(
        simulated=scores,
        integer=integer_scores,
        flips=counter.flips(),
        chained=len({layer.layer for layer in chain_report(integer).chained}),
        layers=sum(1 for _ in quantized_layers(integer)),
    )


@contextmanager
def counted_flips(simulated: nn.Module, integer: nn.Module) -> Iterator[FlipCounter]:
    """Within the block every call of ``integer`` calls ``simulated`` first, on the same inputs, and counts flips."""
    counter = FlipCounter()
    twins = {name: module for name, module in integer.named_modules() if _has_codes(module)}
    originals = dict(simulated.named_modules())
    with ExitStack() as hooks:
        for name, twin in twins.items():
            expect, compare = _telling(counter.expect, name, twin), _telling(counter.compare, name, twin)
            hooks.callback(originals[name].register_forward_pre_hook(expect).remove)
            hooks.callback(twin.register_forward_pre_hook(compare).remove)
        first = integer.register_forward_pre_hook(_calling(simulated), with_kwargs=True, prepend=True)
        hooks.callback(first.remove)
        yield counter


def _has_codes(module: nn.Module) -> bool:
    if isinstance(module, IntegerEmbedding):
        return False
    return isinstance(module, IntegerMatmul) or (
        isinstance(module, IntegerLayer) and module.spec.activation is not None
    )


def _telling(tell: Callable[[str, Tensor], None], name: str, twin: nn.Module) -> Callable[..., None]:
    assert isinstance(twin, (IntegerLayer, IntegerMatmul))

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        tell(name, twin.input_codes(*inputs))

    return hook


def _calling(simulated: nn.Module) -> Callable[..., None]:
    def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        with torch.inference_mode():
            simulated(*arguments, **named)

    return hook
