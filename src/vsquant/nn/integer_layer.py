"""What all integer layers have in common: packed weights, the backend that runs them, and codes between layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from vsquant import kernels
from vsquant.errors import CalibrationError, NonFiniteError, ScaleRangeError, ShapeError, SpecError
from vsquant.nn.layer import Float32Module, check_input_type, needs_range, share_of
from vsquant.nn.parts import LayerParts
from vsquant.nn.weights import QuantizedWeight
from vsquant.reference.integer_linear import activation_scale_mode
from vsquant.spec.formats import FloatFormat, IntegerFormat
from vsquant.spec.layer import ScaleMode


class IntegerActivation(NamedTuple):
    """What an integer layer gives to the next one instead of floats.

    ``codes`` are (*lead, vectors, V), ``lead`` the dimensions of the outputs without their channels (channels last);
    ``vector_scale`` (*lead, vectors) and ``coarse_scale`` (samples, 1) may be None, as the format says. ``values`` are
    the float outputs, of the shape of a float layer's, where something else needs them; those of images are views of
    channels-last memory, and ``contiguous`` says that others are to be given a contiguous copy (`floats_of`).
    """

    codes: Tensor
    vector_scale: Tensor | None
    coarse_scale: Tensor | None
    values: Tensor | None
    contiguous: bool = False


def floats_of(x: IntegerActivation) -> Tensor:
    """The floats that an integer layer kept beside its codes, laid out as PyTorch would."""
    assert x.values is not None
    return x.values.contiguous() if x.contiguous else x.values


class Fusion(NamedTuple):
    """What a layer does with its outputs besides giving them: ``residual`` is added after the bias, then ``function``
    is applied; with a ``target``, outputs are codes, and floats beside them where ``keep_float``.
    """

    residual: Tensor | None = None
    function: kernels.Function = "none"
    target: kernels.Target | None = None
    keep_float: bool = False

    @classmethod
    def of(
        cls,
        residual: Tensor | None,
        function: kernels.Function,
        output_format: str | None,
        output_range: Tensor | None,
        output_mode: ScaleMode,
        keep_float: bool,
    ) -> Fusion:
        """From the plain arguments that calls in a graph are made of; formats travel as texts."""
        if output_format is None or output_range is None:
            return cls(residual=residual, function=function)
        target = kernels.Target(format=output_format, range=output_range, scale_mode=output_mode)
        return cls(residual=residual, function=function, target=target, keep_float=keep_float)

    def epilogue(self, bias: Tensor | None, residual: Tensor | None) -> kernels.Epilogue:
        """The epilogue of a kernel, ``residual`` in the layout that it wants."""
        return kernels.Epilogue(bias=bias, residual=residual, function=self.function)


class IntegerLayer(Float32Module):
    """A layer that computes on integers: eqs. (7)-(8) on packed weights.

    Invariants: the packed weight is the only one, and is in the state (``state_dict``); ``weight_codes``,
    ``weight_vector_scale``, ``weight_coarse_scale`` and ``weight`` are made from it on every access. Outputs have
    ``output_dtype``, as the simulated layer's. What a call fuses with the layer comes with the call (`Fusion`).
    """

    operations: ClassVar[tuple[str, ...]] = ()
    """What the layer calls of `vsquant.kernels.schemas`."""

    packed_codes: Tensor
    packed_vector_scale: Tensor
    packed_sums: Tensor
    packed_coarse_scale: Tensor
    activation_range: Tensor | None
    bias: nn.Parameter | None

    def __init__(self, parts: LayerParts, *, groups: int = 1) -> None:
        super().__init__()
        self.name = parts.name
        self.spec = parts.spec
        self.scale_mode: ScaleMode = parts.scale_mode
        self.weight_shape = parts.weight_shape
        self.output_dtype = parts.dtype
        packed = _packed(parts, groups)
        self.weight_format, self.weight_groups = packed.format, groups
        self.register_buffer("packed_codes", packed.codes)
        self.register_buffer("packed_vector_scale", packed.scale)
        self.register_buffer("packed_sums", packed.sums)
        self.register_buffer("packed_coarse_scale", packed.coarse)
        self.register_buffer("activation_range", parts.activation_range)
        self.bias = parts.float32_bias()
        self._settled: kernels.SettledLayer | None = None
        if self.operations:
            mode = activation_scale_mode(self.scale_mode)
            self._settled = kernels.settle(packed, self.spec, self.operations[0], scale_mode=mode)
        self._prepared = tuple(kernels.prepare(packed, self.spec, operation) for operation in self.operations[1:])
        if needs_range(self.spec) and parts.activation_range is None and self.operations:
            raise CalibrationError(
                f"layer {self.name!r} has a static activation scale ({self.spec}), so it must have a range"
            )

    @abstractmethod
    def forward(self, x: Any) -> Any:
        """The layer's output for ``x``."""

    @abstractmethod
    def input_codes(self, x: Any) -> Tensor:
        """The codes that the layer makes of its input, or is given: to be counted and compared."""

    def _quantized_input(self, x: Tensor) -> kernels.QuantizedTensor:
        """The quantized input of `_outputs`, float32, as kernels on codes take it."""
        return self._quantize(x)

    @property
    def packed_weight(self) -> kernels.PackedWeight:
        """The weight as kernels read it."""
        return kernels.PackedWeight(
            codes=self.packed_codes,
            scale=self.packed_vector_scale,
            sums=self.packed_sums,
            coarse=self.packed_coarse_scale,
            format=self.weight_format,
            shape=self.weight_shape,
            groups=self.weight_groups,
        )

    @property
    def quantized_weight(self) -> QuantizedWeight:
        """The weight as codes and scales, unpacked."""
        codes, vector_scale, coarse_scale = kernels.unpack_weight(self.packed_weight)
        return QuantizedWeight(codes=codes, vector_scale=vector_scale, coarse_scale=coarse_scale)

    @property
    def weight_codes(self) -> Tensor | None:
        """Codes as of `QuantizedWeight`, unpacked."""
        return self.quantized_weight.codes

    @property
    def weight_vector_scale(self) -> Tensor | None:
        """Vector scales as of `QuantizedWeight`, unpacked."""
        return self.quantized_weight.vector_scale

    @property
    def weight_coarse_scale(self) -> Tensor | None:
        """Coarse scales as of `QuantizedWeight`."""
        return self.quantized_weight.coarse_scale

    @property
    def weight(self) -> Tensor:
        """The float32 value of the weight (eq. 6), made anew: some models ask layers for its dtype."""
        return self.quantized_weight.dequantize(self.weight_shape)

    @property
    def choices(self) -> Mapping[str, kernels.Choice]:
        """For every operation of the layer the backend that runs it, and why another does not."""
        return {
            operation: kernels.choose_for(
                self.packed_weight, self.spec, operation, scale_mode=activation_scale_mode(self.scale_mode)
            )
            for operation in self.operations
        }

    def extra_repr(self) -> str:
        """The spec, for ``print(model)``."""
        return f"{self.spec}, weight={tuple(self.weight_shape)}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> IntegerLayer:
        """What the layer holds keeps its dtype; what it gives follows the model."""
        self.output_dtype = fn(torch.empty(0, dtype=self.output_dtype)).dtype
        super()._apply(fn, recurse)
        return self

    def _check_kind(self, x: object) -> None:
        if not isinstance(x, (Tensor, IntegerActivation)):
            check_input_type(x, self.output_dtype, self.name)

    def _as_computed(self, x: Tensor) -> Tensor:
        """``x`` in the dtype from which outputs are rounded once to ``output_dtype``.

        Raises:
            VsquantError: ``x`` is not of a type that the layer takes.
        """
        if x.dtype == self.output_dtype and x.dtype != torch.float64:
            return x
        check_input_type(x, self.output_dtype, self.name)
        return x.to(torch.float32)

    def _outputs(self, x: Tensor, epilogue: kernels.Epilogue, walk: kernels.Walk | None) -> Tensor:
        """Floats to floats; ``x`` (samples, rows, C) or (N, H, W, C)."""
        assert self._settled is not None
        if self.scale_mode == "best-of-three" and self.spec.activation is not None:
            return self._outputs_of_codes(self._quantized_input(x.to(torch.float32)), epilogue, walk)
        held = self._buffers  # attributes of modules are found slowly
        weight = held["packed_codes"], held["packed_vector_scale"], held["packed_sums"], held["packed_coarse_scale"]
        try:
            y = kernels.settled_outputs(self._settled, x, held["activation_range"], weight, epilogue, walk)
        except (NonFiniteError, ScaleRangeError) as error:
            raise type(error)(f"input of layer {self.name!r}: {error}") from error
        return y if y.dtype is self.output_dtype else y.to(self.output_dtype)

    def _outputs_of_codes(
        self, x: kernels.QuantizedTensor, epilogue: kernels.Epilogue, walk: kernels.Walk | None
    ) -> Tensor:
        y = kernels.layer_outputs_of_codes(
            x, self.packed_weight, self.spec, epilogue=epilogue, walk=walk, backend=self._prepared[0]
        )
        return y.to(self.output_dtype)

    def _codes(
        self,
        x: kernels.QuantizedTensor,
        target: kernels.Target,
        epilogue: kernels.Epilogue,
        walk: kernels.Walk | None,
        *,
        keep_float: bool,
    ) -> tuple[kernels.QuantizedTensor, Tensor | None]:
        try:
            return kernels.layer_codes(
                x,
                self.packed_weight,
                self.spec,
                target,
                epilogue=epilogue,
                walk=walk,
                backend=self._prepared[1],
                keep_float=keep_float,
            )
        except (NonFiniteError, ScaleRangeError) as error:
            raise type(error)(f"output of layer {self.name!r}: {error}") from error

    def _quantize(self, rows: Tensor) -> kernels.QuantizedTensor:
        """Eqs. (1)-(5) on float32 ``rows`` (samples, rows, length)."""
        assert isinstance(self.spec.activation, IntegerFormat)
        try:
            return kernels.input_codes(
                rows,
                self.spec.activation,
                share=share_of(self.spec),
                activation_range=self.activation_range,
                scale_mode=activation_scale_mode(self.scale_mode),
            )
        except (NonFiniteError, ScaleRangeError) as error:
            raise type(error)(f"input of layer {self.name!r}: {error}") from error

    def _check_channels(self, given: int, expected: int) -> None:
        if given != expected:
            raise ShapeError(f"input of layer {self.name!r} must have {expected} channels, not {given}")


def _packed(parts: LayerParts, groups: int) -> kernels.PackedWeight:
    fmt, weight = parts.spec.weight, parts.weight
    if isinstance(fmt, FloatFormat) or weight.codes is None:
        raise SpecError(
            f"layer {parts.name!r} must have an integer format to run on integers, not the comparison format "
            f"{parts.spec}, which is simulated only"
        )
    return kernels.pack_weight(
        weight.codes, weight.vector_scale, weight.coarse_scale, fmt, tuple(parts.weight_shape), groups=groups
    )
