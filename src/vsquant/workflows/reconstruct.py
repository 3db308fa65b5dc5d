"""Block reconstruction: the codes of each block learned so that the block gives what it gives in the float model.

Block by block in the order of execution, as BRECQ (Li et al. 2021, arXiv 2102.05426): inputs come through the already
quantized prefix, targets from the float model. Rounding is learned as by AdaRound (`vsquant.optimize.learned_rounding`)
while elements of activations stay float at random, as in QDrop (Wei et al. 2022, arXiv 2203.05740). A block keeps what
it started with unless what it learned has the smaller error on samples that it did not learn from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vsquant import kernels
from vsquant.nn import (
    QuantizedWeight,
    QuantLayer,
    element_codes,
    element_steps,
    needs_range,
    with_element_codes,
)
from vsquant.nn.layer import share_of
from vsquant.optimize import Reconstruction
from vsquant.optimize.learned_range import quantize_with_range
from vsquant.optimize.learned_rounding import RoundingVariables, Schedule, drop, learn
from vsquant.progress import Progress, silent
from vsquant.reference.integer_linear import activation_scale_mode
from vsquant.spec.formats import IntegerFormat
from vsquant.transform.float_layers import float_weight
from vsquant.workflows.block_files import BlockFiles
from vsquant.workflows.block_walk import BlockData, blocks_of, walk_blocks
from vsquant.workflows.captured import ModuleCall, run_module

HELD_OUT: Final = 8
"""Every this many-th sample is held out: not learned from, it decides whether a block keeps what was learned."""


_ERRORS: Final = "held-out errors"


@dataclass(frozen=True, kw_only=True)
class BlockReport:
    """One block's mean squared error on held-out samples over the mean square of its float output."""

    name: str
    error_before: float
    error_after: float
    """Of what was learned, kept or not."""

    @property
    def kept_start(self) -> bool:
        """Whether the block stayed as it was."""
        return not self.error_after < self.error_before


@dataclass(frozen=True, kw_only=True)
class _State:
    """What a layer may learn."""

    weight: QuantizedWeight
    activation_range: Tensor | None


def reconstruct(
    float_model: nn.Module,
    model: nn.Module,
    batches: Sequence[Any],
    method: Reconstruction,
    *,
    files: BlockFiles | None = None,
    progress: Progress = silent,
) -> tuple[BlockReport, ...]:
    """Learn the codes of a simulated model block by block, in ``model`` itself.

    Scales stay as they are, and with ``method.learn_ranges`` static activation ranges learn too. Layers in no block
    (`vsquant.transform.blocks`) stay as they are.

    Args:
        float_model: the float model that ``model`` was made of, batch norms folded.
        model: the simulated model, quantized by the method to start from.
        batches: calibration batches.
        method: iterations, learning rate and the other options.
        files: where finished blocks are kept, and found again by the next run of the same arguments.
        progress: told the iterations done, of all blocks together.

    Returns:
        What became of each block, in the order of execution.
    """
    blocks = blocks_of(model, batches[0])
    total = len(blocks) * method.iterations
    reports = []
    for index, data in enumerate(walk_blocks(float_model, model, blocks, batches)):
        done = index * method.iterations
        progress("reconstructing blocks", done, total)
        learner = _Learner(float_model, model, data, method)
        stored = None if files is None else files.load(data.block.name)
        if stored is not None:
            reports.append(learner.restore(stored))
            continue
        reports.append(
            learner.run(
                lambda iteration, done=done: progress("reconstructing blocks", done + iteration, total)  # type: ignore[misc]
            )
        )
        if files is not None:
            files.save(data.block.name, learner.state(reports[-1]))
    progress("reconstructing blocks", total, total)
    return tuple(reports)


class _Learner:
    """Learns one block."""

    def __init__(self, float_model: nn.Module, model: nn.Module, data: BlockData, method: Reconstruction) -> None:
        self._data, self._method = data, method
        self._module = model.get_submodule(data.block.name)
        self._layers = {name: _layer(model, name) for name in data.block.layers}
        self._variables = {
            name: rounding_variables(layer, float_weight(float_model.get_submodule(name)))
            for name, layer in self._layers.items()
        }
        # The logarithm of a range against the one it starts from: what is learned has no unit.
        self._log_ranges = {
            name: torch.zeros(1, requires_grad=True)
            for name, layer in self._layers.items()
            if method.learn_ranges and needs_range(layer.spec)
        }
        self._generator = torch.Generator().manual_seed(method.seed)
        self._learned, self._held = split_samples(data.calls)
        self._power = data.target_power()

    def run(self, tick: Callable[[int], None]) -> BlockReport:
        """Learn, and leave in the block the better of what it had and what was learned."""
        start = {
            name: _State(weight=layer.quantized_weight, activation_range=layer.activation_range)
            for name, layer in self._layers.items()
        }
        before = self._held_out_error()
        method = self._method
        learn(
            list(self._variables.values()),
            self._loss_on(self._trainable()),
            Schedule(
                iterations=method.iterations,
                learning_rate=method.learning_rate,
                warmup=method.warmup,
                regularisation=method.regularisation,
            ),
            others=list(self._log_ranges.values()),
            tick=tick,
        )
        self._put({name: self._outcome(name, state) for name, state in start.items()})
        after = self._held_out_error()
        report = BlockReport(name=self._data.block.name, error_before=before, error_after=after)
        if report.kept_start:
            self._put(start)
        return report

    def state(self, report: BlockReport) -> Mapping[str, Tensor]:
        """What a later run needs in place of `run`."""
        tensors = {_ERRORS: torch.tensor([report.error_before, report.error_after], dtype=torch.float64)}
        for name, layer in self._layers.items():
            assert layer.weight_codes is not None
            tensors[f"{name}.codes"] = layer.weight_codes
            if layer.activation_range is not None:
                tensors[f"{name}.range"] = layer.activation_range
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> BlockReport:
        """The block as `state` had it, without learning."""
        for name, layer in self._layers.items():
            layer.set_weight(replace(layer.quantized_weight, codes=tensors[f"{name}.codes"]))
            layer.activation_range = tensors.get(f"{name}.range")
        before, after = tensors[_ERRORS].tolist()
        return BlockReport(name=self._data.block.name, error_before=before, error_after=after)

    def _outcome(self, name: str, start: _State) -> _State:
        learned = self._log_ranges.get(name)
        range_ = start.activation_range
        return _State(
            weight=with_element_codes(start.weight, self._variables[name].codes()),
            activation_range=range_ if learned is None or range_ is None else range_ * learned.detach().exp(),
        )

    def _put(self, states: Mapping[str, _State]) -> None:
        for name, state in states.items():
            self._layers[name].set_weight(state.weight)
            self._layers[name].activation_range = state.activation_range

    def _loss_on(self, trained: nn.Module) -> Callable[[int], Tensor]:
        """The error of one draw of samples, relative to the power of the float output."""
        data, method = self._data, self._method
        inner = {name: f"{_within(name, data.block.name)}weight" for name in self._layers}

        def loss(iteration: int) -> Tensor:
            weights = {inner[name]: variables.weight() for name, variables in self._variables.items()}

            def run(*args: Any, **kwargs: Any) -> Any:
                return functional_call(trained, weights, args, kwargs)

            errors: list[Tensor] = []
            elements: list[int] = []
            for batch, rows in draw_samples(self._learned, method.batch_size, self._generator):
                each = data.calls[batch]
                x = drop(data.float_calls[batch].x[rows], each.x[rows], method.activation_drop, self._generator)
                error = (run_module(run, each.rows(rows, x)) - data.targets[batch][rows]).square()
                errors.append(error.mean())
                elements.append(error.numel())
            shares = torch.tensor(elements) / sum(elements)
            return (torch.stack(errors) * shares).sum() / self._power

        return loss

    def _trainable(self) -> nn.Module:
        """A copy of the block for learning: no parameter of its own learns, layers quantize their input as `_input`."""
        module = copy.deepcopy(self._module)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        for name in self._layers:
            layer = module.get_submodule(_within(name, self._data.block.name).removesuffix("."))
            assert isinstance(layer, QuantLayer)
            layer.spec = replace(layer.spec, product_bits=None)
            layer.input_quantizer = self._input_quantizer(name, layer)
        return module

    def _input_quantizer(self, name: str, layer: QuantLayer) -> Callable[[Tensor], Tensor] | None:
        """Quantization of a layer's input, dropping some and with a range that may learn; None where it stays float."""
        fmt, range_, learned = layer.spec.activation, layer.activation_range, self._log_ranges.get(name)
        if fmt is None:
            return None
        scale_mode = activation_scale_mode(layer.scale_mode)

        def quantize(x: Tensor) -> Tensor:
            if learned is not None and range_ is not None:
                assert isinstance(fmt, IntegerFormat)
                quantized = quantize_with_range(x, range_ * learned.exp(), fmt, scale_mode=scale_mode)
            else:
                quantized = kernels.fake_quantize(
                    x, fmt, share=share_of(layer.spec), coarse_range=range_, scale_mode=scale_mode
                )
            return drop(x, quantized, self._method.activation_drop, self._generator)

        return quantize

    def _held_out_error(self) -> float:
        """Mean squared error of the block as it is, on held-out samples, relative to the power of the float output."""
        total, count = 0.0, 0
        with torch.no_grad():
            for each, target, held in zip(self._data.calls, self._data.targets, self._held, strict=True):
                for rows in torch.split(held, self._method.batch_size) if len(held) else ():
                    y = run_module(self._module, each.rows(rows))
                    total += float((y - target[rows]).double().square().sum())
                    count += y.numel()
        return total / count / self._power


def rounding_variables(layer: QuantLayer, weight: Tensor) -> RoundingVariables:
    """The codes of a layer as variables; ``weight`` is its float weight."""
    fmt, stored = layer.spec.weight, layer.quantized_weight
    assert isinstance(fmt, IntegerFormat)
    return RoundingVariables(
        weight,
        element_steps(stored, layer.weight_shape),
        element_codes(stored, layer.weight_shape),
        qmin=fmt.qmin,
        qmax=fmt.qmax,
    )


def split_samples(calls: Sequence[ModuleCall]) -> tuple[list[Tensor], list[Tensor]]:
    """Samples of every batch to learn from and those held out; all are both where there are fewer than `HELD_OUT`."""
    counts = [each.x.shape[0] for each in calls]
    everything = [torch.arange(count) for count in counts]
    if sum(counts) < HELD_OUT:
        return everything, everything
    numbers = torch.split(torch.arange(sum(counts)), counts)
    held = [(each % HELD_OUT) == HELD_OUT - 1 for each in numbers]
    return (
        [rows[~mask] for rows, mask in zip(everything, held, strict=True)],
        [rows[mask] for rows, mask in zip(everything, held, strict=True)],
    )


def draw_samples(rows: Sequence[Tensor], size: int, generator: torch.Generator) -> list[tuple[int, Tensor]]:
    """``size`` samples, or all: of one batch, drawn by how many samples it has, and of more where that has too few."""
    counts = torch.tensor([float(len(each)) for each in rows])
    drawn: list[tuple[int, Tensor]] = []
    while size > 0 and counts.any():
        batch = int(torch.multinomial(counts, 1, generator=generator))
        order = torch.randperm(len(rows[batch]), generator=generator)[:size]
        drawn.append((batch, rows[batch][order]))
        counts[batch] = 0.0
        size -= len(order)
    return drawn


def _layer(model: nn.Module, name: str) -> QuantLayer:
    layer = model.get_submodule(name)
    assert isinstance(layer, QuantLayer)
    return layer


def _within(name: str, block: str) -> str:
    """The prefix of a layer's state in its block: "" for the block itself, otherwise with a dot at the end."""
    return "" if name == block else f"{name[len(block) + 1 :] if block else name}."
