"""Integer layers as functions: linear layers and convolutions on floats, on codes, and from codes to the next codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from vsquant.kernels import native
from vsquant.kernels.convolutions import Walk
from vsquant.kernels.eager import QuantizedTensor
from vsquant.kernels.eager_products import FLOAT_ACTIVATIONS
from vsquant.kernels.epilogue import Epilogue, Requantized, plain_tensors
from vsquant.kernels.format_text import format_text
from vsquant.kernels.gradients import refusing_gradient
from vsquant.kernels.operators import Share, quantize
from vsquant.kernels.packed_weight import PackedWeight
from vsquant.kernels.registry import Backend, Choice, choose, operator
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import LayerSpec, ScaleMode

NO_EPILOGUE = Epilogue()
REQUANTIZED_OUT: Final = tuple(f"out_{name}" for name in Requantized._fields)
"""What operators that requantize call the memory for their results."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The codes that a layer gives to the next: their format (or its text), its static range A (1,), and how scales are
    settled.
    """

    format: IntegerFormat | str
    range: Tensor
    scale_mode: ScaleMode = "requantize"


class Prepared(NamedTuple):
    """What is the same at every call of a layer: the operator, and the texts of both formats."""

    operator: Any
    weight_format: str
    activation_format: str


class SettledLayer(NamedTuple):
    """An operation on floats with everything that is the same at every call: out_features to product_bits."""

    operator: Any
    constants: tuple[int | str, ...]


def settle(weight: PackedWeight, spec: LayerSpec, operation: str, *, scale_mode: ScaleMode) -> SettledLayer:
    """Settles ``operation``, "linear" or "conv2d", for `settled_outputs`; arguments as of `layer_outputs`.

    Raises:
        BackendError: as `vsquant.kernels.registry.choose`.
    """
    backend = choose_for(weight, spec, operation, scale_mode=scale_mode).backend
    called, *texts = _prepared(weight, spec, operation, backend, "default")
    return SettledLayer(called, (weight.shape[0], *texts, share_in(spec), scale_mode, spec.product_bits or 0))


def settled_outputs(
    layer: SettledLayer,
    x: Tensor,
    activation_range: Tensor | None,
    weight: tuple[Tensor | None, ...],
    epilogue: Epilogue = NO_EPILOGUE,
    walk: Walk | None = None,
) -> Tensor:
    """As `layer_outputs`, at little cost for each call; ``weight`` are the tensors of a `PackedWeight`."""
    bias, residual, function = epilogue
    given = (x, activation_range, *weight, bias, residual, *layer.constants, function)
    y: Tensor = _call(layer.operator, given if walk is None else (*given, *_geometry(walk)), None)
    return y


def prepare(weight: PackedWeight, spec: LayerSpec, operation: str, *, overload: str = "default") -> Prepared:
    """Settles which backend runs ``operation`` with this weight, once for many calls.

    Raises:
        BackendError: as `vsquant.kernels.registry.choose`.
    """
    return _prepared(weight, spec, operation, choose_for(weight, spec, operation).backend, overload)


def choose_for(
    weight: PackedWeight, spec: LayerSpec, operation: str, *, scale_mode: ScaleMode = "requantize"
) -> Choice:
    """The backend that runs ``operation`` with this weight.

    Raises:
        BackendError: as `vsquant.kernels.registry.choose`.
    """
    return choose(operation, weight.format, spec.activation, depthwise=weight.codes.dim() == 2, scale_mode=scale_mode)


def share_in(spec: LayerSpec) -> str:
    """Which activations share gamma, as operators are told."""
    return "row" if spec.gamma == "token" else "group"


def layer_outputs(
    x: Tensor,
    weight: PackedWeight,
    spec: LayerSpec,
    *,
    activation_range: Tensor | None = None,
    scale_mode: ScaleMode = "requantize",
    epilogue: Epilogue = NO_EPILOGUE,
    walk: Walk | None = None,
    backend: Backend | Prepared | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """A layer on floats: ``x`` (samples, rows, C) to (samples, rows, K), or with ``walk`` a two-dimensional
    convolution, (N, H, W, C) to (N, H', W', K), in the dtype of ``x``.

    ``activation_range`` (1,) makes gamma static; ``out`` takes the result. ``backend`` is settled by the registry where
    it is neither named nor already settled (`prepare`).

    Raises:
        NonFiniteError, ScaleRangeError: as `vsquant.kernels.quantize`.
        BackendError: VSQUANT_BACKEND names a backend that cannot run this.
    """
    operation = "linear" if walk is None else "conv2d"
    arguments = (share_in(spec), scale_mode, spec.product_bits or 0, epilogue.function, *_geometry(walk))
    y: Tensor = _run(operation, (x, activation_range), weight, spec, epilogue, arguments, backend, out)
    return y


def layer_outputs_of_codes(
    x: QuantizedTensor,
    weight: PackedWeight,
    spec: LayerSpec,
    *,
    epilogue: Epilogue = NO_EPILOGUE,
    walk: Walk | None = None,
    backend: Backend | Prepared | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """As `layer_outputs` on codes (samples, rows, vectors, V) or (N, H, W, groups * vectors, V); float32."""
    operation = "linear_codes" if walk is None else "conv2d_codes"
    arguments = (spec.product_bits or 0, epilogue.function, *_geometry(walk))
    y: Tensor = _run(operation, plain_tensors(x), weight, spec, epilogue, arguments, backend, out)
    return y


def input_codes(
    x: Tensor, fmt: IntegerFormat, *, share: Share, activation_range: Tensor | None, scale_mode: ScaleMode
) -> QuantizedTensor:
    """`vsquant.kernels.quantize` for the input of a layer on codes, through which a gradient of ``x`` is refused."""
    quantized = quantize(x, fmt, share=share, coarse_range=activation_range, scale_mode=scale_mode)
    if not torch.is_grad_enabled():
        return quantized
    codes, scale, coarse = quantized
    return QuantizedTensor(
        codes,
        None if scale is None else refusing_gradient(scale, (x,)),
        None if coarse is None else refusing_gradient(coarse, (x,)),
    )


def layer_codes(
    x: QuantizedTensor,
    weight: PackedWeight,
    spec: LayerSpec,
    target: Target,
    *,
    epilogue: Epilogue = NO_EPILOGUE,
    walk: Walk | None = None,
    backend: Backend | Prepared | None = None,
    keep_float: bool = False,
    out: tuple[QuantizedTensor, Tensor | None] | None = None,
) -> tuple[QuantizedTensor, Tensor | None]:
    """As `layer_outputs_of_codes`, quantized as ``target`` says; and the float32 outputs if they are kept. ``out`` is
    such a result, and takes this one.
    """
    operation = "linear_requantize" if walk is None else "conv2d_requantize"
    text = target.format if isinstance(target.format, str) else format_text(target.format)
    output = (target.range, text, target.scale_mode, keep_float)
    arguments = (spec.product_bits or 0, epilogue.function, *_geometry(walk), *output)
    if out is not None:
        given = dict(zip(REQUANTIZED_OUT, (*plain_tensors(out[0]), _plain_y(out)), strict=True))
        _run(operation, plain_tensors(x), weight, spec, epilogue, arguments, backend, given)
        return out
    codes, scale, coarse, y = _run(operation, plain_tensors(x), weight, spec, epilogue, arguments, backend, None)
    # What a format has not comes as an empty tensor of one dimension.
    quantized = QuantizedTensor(codes, scale if scale.dim() > 1 else None, coarse if coarse.dim() > 1 else None)
    return quantized, y if keep_float else None


def matmul(
    left: Tensor,
    right: Tensor,
    left_format: IntegerFormat,
    right_format: IntegerFormat,
    *,
    ranges: tuple[Tensor, Tensor] | None = None,
    share: str = "group",
    scale_mode: ScaleMode = "requantize",
    product_bits: int | None = None,
    backend: Backend | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``left`` (groups, M, K) times ``right`` (groups, L, K) transposed, both quantized; in the dtype of ``left``.

    ``ranges`` hold one value or one per group.
    """
    left_range, right_range = (None, None) if ranges is None else ranges
    formats = format_text(left_format), format_text(right_format)
    chosen = backend or choose("matmul", right_format, left_format, scale_mode=scale_mode).backend
    arguments = (left, right, left_range, right_range, *formats, share, scale_mode, product_bits or 0)
    product: Tensor = _call(operator("matmul", chosen, "default" if out is None else "out"), arguments, out)
    return product


def _run(
    operation: str,
    inputs: tuple[Any, ...],
    weight: PackedWeight,
    spec: LayerSpec,
    epilogue: Epilogue,
    arguments: tuple[Any, ...],
    backend: Backend | Prepared | None,
    out: Tensor | Mapping[str, Tensor] | None,
) -> Any:
    if not isinstance(backend, Prepared):
        chosen = backend or choose_for(weight, spec, operation).backend
        backend = _prepared(weight, spec, operation, chosen, "default" if out is None else "out")
    texts = backend.weight_format, backend.activation_format
    given = (*inputs, *weight.tensors, epilogue.bias, epilogue.residual, weight.shape[0], *texts, *arguments)
    return _call(backend.operator, given, out)


def _prepared(weight: PackedWeight, spec: LayerSpec, operation: str, backend: Backend, overload: str) -> Prepared:
    activation = FLOAT_ACTIVATIONS if spec.activation is None else format_text(spec.activation)
    return Prepared(operator(operation, backend, overload), format_text(weight.format), activation)


def _call(called: Any, arguments: tuple[Any, ...], out: Tensor | Mapping[str, Tensor] | None) -> Any:
    """The operator's result; what native code refuses is raised as what it is in vsquant."""
    try:
        if out is None:
            result = called(*arguments)
            if not torch.is_grad_enabled():
                return result
            if isinstance(result, Tensor):
                return refusing_gradient(result, arguments)
            return tuple(refusing_gradient(part, arguments) for part in result)
        return called(*arguments, out=out) if isinstance(out, Tensor) else called(*arguments, **out)
    except ValueError as error:
        raise native.translated(error) from None


def _plain_y(out: tuple[QuantizedTensor, Tensor | None]) -> Tensor:
    """The memory for floats, empty where they are not kept."""
    (codes, _, _), y = out
    return codes.new_empty(0, dtype=torch.float32) if y is None else y


def _geometry(walk: Walk | None) -> tuple[Any, ...]:
    if walk is None:
        return ()
    return list(walk.kernel), list(walk.stride), list(walk.padding), list(walk.dilation), walk.groups
