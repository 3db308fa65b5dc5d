"""Free channel permutation: vectors made homogeneous before quantizing, at no cost when the network runs."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from vsquant.errors import CalibrationError, RecipeError, VsquantError
from vsquant.nn import quantize_weight
from vsquant.optimize.permutation import Profile, best_order, order_cost
from vsquant.progress import Progress, silent
from vsquant.results.permutation import PermutedChannels
from vsquant.spec.formats import TensorFormat
from vsquant.spec.layer import LayerSpec
from vsquant.transform.channels import ChannelGroup, channel_groups
from vsquant.transform.float_layers import float_weight
from vsquant.transform.permute import ROWS, ChannelStatistics, channel_statistics, reorder
from vsquant.workflows.batches import as_batches, by_argument, call

TOLERANCE: Final = 1e-4
"""Largest difference of the float outputs, relative to their largest magnitude, that the order of sums may make."""

_STEP: Final = "permuting channels, pairs of vectors"


def permuted(
    model: nn.Module,
    specs: Mapping[str, LayerSpec],
    calibration: Iterable[Any],
    progress: Progress = silent,
) -> tuple[nn.Module, tuple[PermutedChannels, ...]]:
    """A copy of a float model with channels reordered for the layers in ``specs`` (spec in force by name).

    Only channels are reordered that the model's exported graph proves to be free; the float outputs on the first batch
    are then the same to `TOLERANCE`, which is checked.

    Args:
        model: in evaluation mode, batch norms folded or not.
        specs: of the layers that will be quantized.
        calibration: batches that can be passed through again.
        progress: told how many pairs of vectors are done, which is what the search takes time by.

    Raises:
        RecipeError: the model cannot be exported, so nothing can be proven.
        CalibrationError: the calibration data does not reach a layer.
        VsquantError: the outputs differ by more than the tolerance.
    """
    batches = as_batches(calibration)
    example = by_argument(model, batches.first)
    if example is None:
        raise CalibrationError("permute needs batches whose arguments have names: tensors or mappings")
    found = channel_groups(model, example)
    if isinstance(found, str):
        raise RecipeError(f"permute needs the model's graph, but {found}; leave permute out")
    result = copy.deepcopy(model)
    layers = dict(result.named_modules())
    groups = [group for group in found if _vector_size(group, specs) is not None]
    taking = {name: layers[name] for group in groups for name in group.consumers if name in specs}
    statistics = channel_statistics(result, taking, batches, call)
    records = []
    ends = [0, *itertools.accumulate(_pairs(group, specs) for group in groups)]
    for done, group in zip(ends, groups, strict=False):
        progress(_STEP, done, ends[-1])
        record = _permute(result, group, specs, statistics)
        records += [] if record is None else [record]
    progress(_STEP, ends[-1], ends[-1])
    _check_same(model, result, batches.first)
    return result, tuple(records)


def _permute(
    model: nn.Module, group: ChannelGroup, specs: Mapping[str, LayerSpec], statistics: Mapping[str, ChannelStatistics]
) -> PermutedChannels | None:
    """Reorder one group in ``model`` itself; None where the order it has is the best that was found."""
    size = _vector_size(group, specs)
    assert size is not None
    names = [name for name in group.consumers if name in specs]
    profiles = [
        profile
        for name in names
        for profile in _profiles(name, float_weight(model.get_submodule(name)), specs[name], statistics)
    ]
    given = torch.arange(group.size)
    order = best_order(profiles, size, blocks=group.blocks)
    if bool((order == given).all()):
        return None
    before, after = order_cost(profiles, given, size), order_cost(profiles, order, size)
    sqnr_before = _weight_sqnr_db(model, names, specs)
    reorder(model, group, order)
    return PermutedChannels(
        producers=group.producers,
        consumers=tuple(names),
        channels=group.size,
        vector_size=size,
        predicted_gain_db=10 * math.log10(before / after) if after else 0.0,
        sqnr_before_db=sqnr_before,
        sqnr_after_db=_weight_sqnr_db(model, names, specs),
    )


def _vector_size(group: ChannelGroup, specs: Mapping[str, LayerSpec]) -> int | None:
    """The shortest vectors of the consumers; None where there are none, or no more than one of them."""
    sizes = [specs[name].vector_size for name in group.consumers if name in specs]
    known = [size for size in sizes if size is not None]
    return min(known) if known and min(known) < group.size else None


def _pairs(group: ChannelGroup, specs: Mapping[str, LayerSpec]) -> int:
    """Pairs of vectors between which channels may be swapped."""
    vectors = -(-group.size // (_vector_size(group, specs) or group.size))
    return vectors * vectors // 2


def _profiles(
    name: str, weight: Tensor, spec: LayerSpec, statistics: Mapping[str, ChannelStatistics]
) -> Sequence[Profile]:
    """Of a layer's weight (K, C, *kernel) and of its input: the squared error of its outputs, up to one factor."""
    if name not in statistics:
        raise CalibrationError(f"layer {name!r} must be reached by the calibration data to be permuted, but was not")
    seen, rows = statistics[name], weight.float().movedim(1, -1).reshape(-1, weight.shape[1])
    profiles = []
    if spec.weight.has_vectors:
        kept = rows[:: max(1, len(rows) // ROWS)].abs() * math.sqrt(len(rows) / len(rows[:: max(1, len(rows) // ROWS)]))
        profiles.append(Profile(magnitudes=kept, importance=seen.second_moment / _levels(spec.weight)))
    if spec.activation is not None and spec.activation.has_vectors:
        kept = seen.rows.abs() / math.sqrt(len(seen.rows))
        profiles.append(Profile(magnitudes=kept, importance=rows.square().sum(0) / _levels(spec.activation)))
    return profiles


def _levels(fmt: TensorFormat) -> float:
    """qmax²: how far a vector's step is below its range, squared."""
    return float((1 << (fmt.bits - (1 if fmt.signed else 0))) - 1) ** 2


def _weight_sqnr_db(model: nn.Module, names: Sequence[str], specs: Mapping[str, LayerSpec]) -> float | None:
    power, error = 0.0, 0.0
    for name in names:
        weight = float_weight(model.get_submodule(name)).float()
        rounded = quantize_weight(weight, specs[name].weight, name=name).dequantize(weight.shape)
        power += float(weight.double().square().sum())
        error += float((rounded.double() - weight.double()).square().sum())
    return 10 * math.log10(power / error) if error and power else None


def _check_same(model: nn.Module, other: nn.Module, batch: Any) -> None:
    with torch.inference_mode():
        expected, given = _tensors(call(model, batch)), _tensors(call(other, batch))
    for before, after in zip(expected, given, strict=True):
        largest, difference = float(before.abs().max()), float((after - before).abs().max())
        if not difference <= TOLERANCE * largest:
            raise VsquantError(
                f"permuted channels must leave the float outputs as they were, to {TOLERANCE:g} of the largest, but "
                f"{difference / largest:.1e} was seen; leave permute out, and report this model"
            )


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() and output.numel() else []
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
