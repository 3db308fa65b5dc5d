"""What hardware is run with: real layers' operands as arrays, and networks with codes as hardware makes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vsquant.errors import ShapeError, SpecError
from vsquant.hardware import Lane, OutputCodes, PostProcessingUnit, RecordedLayer, layer_sums, post_processed
from vsquant.hardware.post_processing import DEFAULT_FRACTION_BITS, DEFAULT_MULTIPLIER_BITS
from vsquant.kernels.format_text import parse_format
from vsquant.nn import IntegerActivation, IntegerConv2d, IntegerLinear, QuantLayer
from vsquant.spec import IntegerFormat, Workload
from vsquant.tasks.base import Batch, run
from vsquant.transform.integer import to_integer
from vsquant.transform.shapes import conv_workload


def record_layer(model: nn.Module, name: str, batch: Batch) -> RecordedLayer:
    """One layer of a quantized model on a batch.

    Raises:
        ShapeError: the model has no integer layer of that name, or the batch does not reach it.
        VsquantError: as `vsquant.to_integer`.
    """
    return record_layers(model, batch, names=(name,))[0]


def record_layers(model: nn.Module, batch: Batch, *, names: tuple[str, ...] | None = None) -> tuple[RecordedLayer, ...]:
    """The first call of every integer layer (or of those named) of a quantized model on a batch, in the order of calls.

    A simulated model is run as its integer twin.

    Raises:
        ShapeError: the model has no integer layer of a name, or the batch does not reach it.
        VsquantError: as `vsquant.to_integer`.
    """
    simulated = any(isinstance(module, QuantLayer) for module in model.modules())
    integer = to_integer(model) if simulated else model
    layers = _integer_layers(integer)
    wanted = tuple(layers) if names is None else names
    if missing := [name for name in wanted if name not in layers]:
        raise ShapeError(f"layer must be one of the model's integer layers, {', '.join(layers)}; not {missing[0]!r}")
    found: dict[str, RecordedLayer] = {}

    def recording(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if name not in found:
                found[name] = recorded(name, layers[name], args, kwargs, output)

        return hook

    with ExitStack() as hooks, torch.inference_mode():
        for name in wanted:
            hooks.callback(layers[name].register_forward_hook(recording(name), with_kwargs=True).remove)
        run(integer, batch)
    if names is not None and (unseen := [name for name in names if name not in found]):
        raise ShapeError(f"the batch must reach layer {unseen[0]!r} to record it; it does not")
    return tuple(found.values())


@dataclass(frozen=True, kw_only=True)
class CodeDifferences:
    """Of what one layer made on the same inputs: codes and vector scales that are not those of eqs. (1)-(5)."""

    layer: str
    codes: int
    codes_differing: int
    scales: int
    scales_differing: int


class DifferenceCounter:
    """Adds up `CodeDifferences` call by call."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int, int, int]] = {}

    def add(self, layer: str, *counts: int) -> None:
        """Codes, differing codes, scales and differing scales of one call."""
        before = self._counts.get(layer, (0, 0, 0, 0))
        codes, codes_differing, scales, scales_differing = map(sum, zip(before, counts, strict=True))
        self._counts[layer] = (codes, codes_differing, scales, scales_differing)

    def differences(self) -> tuple[CodeDifferences, ...]:
        """What was counted, in the order of first calls."""
        return tuple(
            CodeDifferences(layer=layer, codes=a, codes_differing=b, scales=c, scales_differing=d)
            for layer, (a, b, c, d) in self._counts.items()
        )


@contextmanager
def on_hardware(
    integer: nn.Module,
    *,
    fraction_bits: int = DEFAULT_FRACTION_BITS,
    multiplier_bits: int = DEFAULT_MULTIPLIER_BITS,
) -> Iterator[DifferenceCounter]:
    """Within the block every layer that gives codes to the next makes them as hardware does.

    Sums come from the lane, codes and the floats of residual paths from the post-processing unit; layers that give
    floats are as they were. Each call is counted beside the codes that eqs. (1)-(5) give on the same inputs.

    Raises:
        SpecError: (in a call) the layer's gamma is dynamic or its function none that the unit has.
    """
    counter = DifferenceCounter()

    def making(name: str, layer: IntegerLinear | IntegerConv2d) -> Callable[..., IntegerActivation | None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if not isinstance(output, IntegerActivation):
                return None
            given = recorded(name, layer, args, kwargs, output)
            return _as_hardware(given, output, counter, fraction_bits, multiplier_bits)

        return hook

    with ExitStack() as hooks:
        for name, layer in _integer_layers(integer).items():
            hooks.callback(layer.register_forward_hook(making(name, layer), with_kwargs=True).remove)
        yield counter


def recorded(
    name: str, layer: IntegerLinear | IntegerConv2d, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> RecordedLayer:
    """One call of a layer, ``forward(*args, **kwargs)`` that gave ``output``, as arrays."""
    call = inspect.signature(layer.forward).bind(*args, **kwargs)
    call.apply_defaults()
    given = call.arguments
    x, weight = layer.quantized_input(given["x"]), layer.quantized_weight
    assert weight.codes is not None and weight.coarse_scale is not None and x.coarse_scale is not None
    workload = _workload(layer, x.codes, output)
    values = output.values if isinstance(output, IntegerActivation) else output
    return RecordedLayer(
        name=name,
        spec=layer.spec,
        workload=workload,
        weight_codes=weight.codes.numpy(),
        weight_scale=None if weight.vector_scale is None else weight.vector_scale.numpy(),
        weight_coarse=weight.coarse_scale.numpy().reshape(-1),
        activation_codes=x.codes.numpy(),
        activation_scale=None if x.vector_scale is None else x.vector_scale.numpy(),
        activation_coarse=x.coarse_scale.numpy(),
        bias=None if layer.bias is None else layer.bias.detach().numpy(),
        residual=None if given["residual"] is None else _by_position(given["residual"], workload),
        function=given["function"],
        values=None if values is None else _by_position(values, workload),
        output=_output_codes(output, given["output_format"]) if isinstance(output, IntegerActivation) else None,
    )


def _as_hardware(
    layer: RecordedLayer,
    output: IntegerActivation,
    counter: DifferenceCounter,
    fraction_bits: int,
    multiplier_bits: int,
) -> IntegerActivation:
    """``output`` with the codes, and the floats where it has any, that the lane and the post-processing unit make."""
    made, lane = layer.output, Lane.for_spec(layer.spec)
    assert made is not None
    unit = PostProcessingUnit(
        lane=lane, output=made.format, fraction_bits=fraction_bits, multiplier_bits=multiplier_bits
    )
    found, step = post_processed(layer, layer_sums(layer, lane).sums, unit, made.coarse_scale)
    codes = found.codes.reshape(made.codes.shape)
    scales = None if found.vector_scale is None else found.vector_scale.reshape(made.codes.shape[:-1])
    counter.add(
        layer.name,
        codes.size,
        int(np.count_nonzero(codes != made.codes)),
        0 if scales is None else scales.size,
        0 if scales is None else int(np.count_nonzero(scales != made.vector_scale)),
    )
    values = output.values
    if values is not None:
        floats = torch.from_numpy((found.values * step).astype(np.float32))
        channels_last = floats.view(values.movedim(1, -1).shape if layer.workload.kind == "conv" else values.shape)
        values = channels_last.movedim(-1, 1) if layer.workload.kind == "conv" else channels_last
    return output._replace(
        codes=_like(codes, output.codes),
        vector_scale=None if output.vector_scale is None else _like(scales, output.vector_scale),
        values=values,
    )


def _like(array: Any, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor.dtype).view(tensor.shape)


def _integer_layers(model: nn.Module) -> dict[str, IntegerLinear | IntegerConv2d]:
    """Layers that sum integers, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, (IntegerLinear, IntegerConv2d)) and layer.spec.has_integer_sums
    }


def _workload(layer: IntegerLinear | IntegerConv2d, codes: Tensor, output: Tensor | IntegerActivation) -> Workload:
    """The shape of a call on ``codes`` (N, T, vectors, V) or (N, H, W, vectors, V)."""
    if isinstance(layer, IntegerLinear):
        return Workload(
            kind="linear", outputs=layer.out_features, reduction=layer.in_features, positions=max(1, codes.shape[1])
        )
    size = output.shape[2:] if isinstance(output, Tensor) else output.codes.shape[1:-2]
    geometry = layer.geometry
    if geometry.padding_mode != "zeros":  # copies of values: the codes have them already
        geometry = replace(geometry, padding=((0, 0),) * layer.spatial)
    return conv_workload(geometry, layer.weight_shape, codes.shape[1:-2][-layer.spatial :], size[-layer.spatial :])


def _by_position(x: Tensor, workload: Workload) -> Any:
    """Floats (N, K, *spatial) or (N, ..., K) as an array (N, positions, K)."""
    rows = x.movedim(1, -1) if workload.kind == "conv" else x
    return rows.reshape(len(rows) if rows.dim() > 1 else 1, workload.positions, workload.outputs).numpy()


def _output_codes(output: IntegerActivation, format_text: str) -> OutputCodes:
    fmt = parse_format(format_text)
    assert isinstance(fmt, IntegerFormat) and output.coarse_scale is not None
    gamma = set(output.coarse_scale.flatten().tolist())
    if len(gamma) != 1:
        raise SpecError(f"output codes must have one static coarse scale, not {sorted(gamma)}")
    scale = output.vector_scale
    samples, vectors, size = output.codes.shape[0], *output.codes.shape[-2:]
    return OutputCodes(
        format=fmt,
        coarse_scale=gamma.pop(),
        codes=output.codes.reshape(samples, -1, vectors, size).numpy(),
        vector_scale=None if scale is None else scale.reshape(samples, -1, vectors).numpy(),
    )
