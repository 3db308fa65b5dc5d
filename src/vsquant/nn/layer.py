"""What all quantized layers with weights have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor, nn

from vsquant import kernels
from vsquant.errors import CalibrationError, NonFiniteError, ScaleRangeError, ShapeError, VsquantError
from vsquant.nn.parts import LayerParts
from vsquant.nn.weights import QuantizedWeight
from vsquant.reference.integer_linear import activation_scale_mode
from vsquant.spec.formats import IntegerFormat, TensorFormat
from vsquant.spec.layer import LayerSpec, ScaleMode

WEIGHT_STATE: Final = ("weight_codes", "weight_vector_scale", "weight_coarse_scale", "weight_values")


class Float32Module(nn.Module):
    """A module whose own state keeps its dtype when the model is moved to another."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32Module:
        """Devices are followed, dtypes are not: the arithmetic of the format is float32."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]  # torch's own
        return self


class QuantLayer(Float32Module):
    """A layer whose weight is integers and scales and whose input is quantized as it arrives.

    Invariants: ``weight`` is the float32 value of the integers (eq. 6) and is not part of the state; the integers and
    scales are buffers and are (``state_dict``). Scales, ranges and arithmetic stay float32 whatever dtype the model is
    moved to; outputs have that dtype (``output_dtype``), as the float layer's have. ``spec`` is the one in force, with
    the signedness that calibration found.
    """

    weight: Tensor
    weight_codes: Tensor | None
    weight_vector_scale: Tensor | None
    weight_coarse_scale: Tensor | None
    weight_values: Tensor | None
    activation_range: Tensor | None
    input_quantizer: Callable[[Tensor], Tensor] | None = None
    """Stands in for the quantization of the simulated layer's input (samples, rows, length) while a solver learns."""

    bias: nn.Parameter | None

    def __init__(self, parts: LayerParts) -> None:
        super().__init__()
        self.name = parts.name
        self.output_dtype = parts.dtype
        self.spec = parts.spec
        self.scale_mode: ScaleMode = parts.scale_mode
        self.weight_shape = parts.weight_shape
        self.register_buffer("weight_codes", parts.weight.codes)
        self.register_buffer("weight_vector_scale", parts.weight.vector_scale)
        self.register_buffer("weight_coarse_scale", parts.weight.coarse_scale)
        self.register_buffer("weight_values", parts.weight.values)
        self.register_buffer("activation_range", parts.activation_range)
        self.bias = parts.float32_bias()
        self.register_buffer("weight", parts.weight.dequantize(parts.weight_shape), persistent=False)
        self.register_load_state_dict_post_hook(_refresh_weight)  # type: ignore[no-untyped-call]  # torch's own
        _require_range(self)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The layer's output for ``x``, in ``output_dtype``."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantLayer:
        """What the layer holds stays float32; what it gives follows the model."""
        self.output_dtype = fn(torch.empty(0, dtype=self.output_dtype)).dtype
        super()._apply(fn, recurse)
        return self

    @abstractmethod
    def input_rows(self, x: Tensor, *, quantized: bool) -> Iterator[Tensor]:
        """The rows (groups, n, columns) that the weight meets where the layer's input is ``x``, in parts.

        Columns run as the weight's vectors do. ``quantized`` says whether ``x`` is quantized first, as the layer does.
        """

    def set_weight(self, weight: QuantizedWeight, bias_shift: Tensor | None = None) -> None:
        """Take another quantized weight of the layer's shape and format, and add ``bias_shift`` (K,) to the bias."""
        self.weight_codes = weight.codes
        self.weight_vector_scale = weight.vector_scale
        self.weight_coarse_scale = weight.coarse_scale
        self.weight_values = weight.values
        self.weight = weight.dequantize(self.weight_shape)
        if bias_shift is not None:
            assert self.bias is not None
            self.bias = nn.Parameter(self.bias.detach() + bias_shift, requires_grad=False)

    @property
    def parts(self) -> LayerParts:
        """What the layer is made of, for another layer in its place."""
        return LayerParts(
            name=self.name,
            spec=self.spec,
            scale_mode=self.scale_mode,
            weight=self.quantized_weight,
            weight_shape=self.weight_shape,
            bias=self.bias,
            activation_range=self.activation_range,
            dtype=self.output_dtype,
        )

    @property
    def quantized_weight(self) -> QuantizedWeight:
        """The weight as stored."""
        return QuantizedWeight(
            codes=self.weight_codes,
            vector_scale=self.weight_vector_scale,
            coarse_scale=self.weight_coarse_scale,
            values=self.weight_values,
        )

    def extra_repr(self) -> str:
        """The spec, for ``print(model)``."""
        return f"{self.spec}, weight={tuple(self.weight_shape)}"

    def _fake_quantize_input(self, x: Tensor) -> Tensor:
        """Eqs. (1)-(6) on float32 ``x`` (samples, rows, length); ``x`` itself where activations stay float."""
        if self.input_quantizer is not None:
            return self.input_quantizer(x)
        fmt = self.spec.activation
        if fmt is None:
            return x
        try:
            return kernels.fake_quantize(
                x,
                fmt,
                share=share_of(self.spec),
                coarse_range=self.activation_range,
                scale_mode=activation_scale_mode(self.scale_mode),
            )
        except (NonFiniteError, ScaleRangeError) as error:
            raise type(error)(f"input of layer {self.name!r}: {error}") from error

    def _quantize_input(self, x: Tensor) -> kernels.QuantizedTensor:
        """Eqs. (1)-(5) on float32 ``x`` (samples, rows, length)."""
        assert isinstance(self.spec.activation, IntegerFormat)
        try:
            return kernels.quantize(
                x,
                self.spec.activation,
                share=share_of(self.spec),
                coarse_range=self.activation_range,
                scale_mode=activation_scale_mode(self.scale_mode),
            )
        except (NonFiniteError, ScaleRangeError) as error:
            raise type(error)(f"input of layer {self.name!r}: {error}") from error

    def _check_channels(self, given: int, expected: int) -> None:
        if given != expected:
            raise ShapeError(f"input of layer {self.name!r} must have {expected} channels, not {given}")


def check_input_type(x: object, dtype: torch.dtype, name: str) -> None:
    """Refuse what a float layer of ``dtype`` would refuse as its input; float32, in which all layers compute, is taken.

    Raises:
        VsquantError: ``x`` is no tensor of floats, or of another float type than the layer's, outside of autocast.
    """
    if not isinstance(x, Tensor):
        raise VsquantError(f"input of layer {name!r} must be a tensor, not {type(x).__name__}")
    if not x.is_floating_point():
        raise VsquantError(f"input of layer {name!r} must be floating point, not {x.dtype}; convert it: x.to({dtype})")
    if x.dtype not in (dtype, torch.float32) and not torch.is_autocast_enabled(x.device.type):
        raise VsquantError(
            f"input of layer {name!r} must be {dtype} as the layer is, not {x.dtype}; "
            f"convert the input, x.to({dtype}), or the model, model.to({x.dtype})"
        )


def share_of(spec: LayerSpec) -> kernels.Share:
    """What one activation gamma spans: each row under ``-token``, otherwise the whole sample."""
    return "row" if spec.gamma == "token" else "group"


def needs_range(spec: LayerSpec) -> bool:
    """Whether a layer of this spec needs a calibrated activation range: a static coarse scale."""
    return has_static_scale(spec.activation) and not spec.is_dynamic


def has_static_scale(fmt: TensorFormat | None) -> bool:
    """Whether the format has a coarse scale that calibration could fix."""
    return isinstance(fmt, IntegerFormat) and fmt.scale not in ("fp16", "fp32")


def _require_range(layer: QuantLayer) -> None:
    if needs_range(layer.spec) and layer.activation_range is None:
        raise CalibrationError(
            f"layer {layer.name!r} has a static activation scale ({layer.spec}), so it must be calibrated: "
            "give calibration data, or use -tensor or -token"
        )


def _refresh_weight(module: nn.Module, _: object) -> None:
    assert isinstance(module, QuantLayer)
    module.weight = module.quantized_weight.dequantize(module.weight_shape)
