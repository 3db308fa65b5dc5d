"""PyTorch: float32, dynamic int8 and static int8 layers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsquant.bench.cases import COLD_BYTES, Case, ConvCase, LinearCase
from vsquant.bench.contender import Call, Contender, Prepared, RefusedError
from vsquant.bench.inputs import LayerInputs, copies, layer_inputs
from vsquant.bench.precision import FLOAT, Grid, Precision, expected_error

_ACTIVATION_BITS = 7
"""PyTorch's default reduces the range of activations by a bit, which keeps AVX2's int16 sums from saturating."""


def rotating(functions: Sequence[Callable[[], Any]]) -> Call:
    """A call that takes the next function each time."""
    if len(functions) == 1:
        return functions[0]
    turn = itertools.cycle(functions)

    def call() -> Any:
        return next(turn)()

    return call


class TorchFloat(Contender):
    """float32 by oneDNN or MKL."""

    name = "torch float32"
    package = "torch"

    def environment(self, isa: str) -> dict[str, str] | None:
        return torch_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase | ConvCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, LinearCase | ConvCase)
        inputs = layer_inputs(case)
        weight_bytes = inputs.weight.numel() * 4
        calls = [self._call(case, inputs) for _ in range(copies(case, weight_bytes, COLD_BYTES))]
        return _prepared(calls, inputs, FLOAT, weight_bytes)

    def _call(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> Callable[[], Tensor]:
        if isinstance(case, LinearCase):
            weight = inputs.weight.clone()
            return inference(lambda: F.linear(inputs.x, weight))
        layout = torch.channels_last
        x, weight = inputs.x.contiguous(memory_format=layout), inputs.weight.contiguous(memory_format=layout)
        return inference(lambda: F.conv2d(x, weight, stride=case.stride, padding=case.padding))


class TorchDynamicInt8(Contender):
    """``torch.ao.quantization.quantize_dynamic`` with one engine, weights per channel."""

    package = "torch"

    def __init__(self, engine: str) -> None:
        self.name = f"torch int8 dynamic {engine}"
        self._engine = engine

    def environment(self, isa: str) -> dict[str, str] | None:
        return torch_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, LinearCase)
        use_engine(self._engine)
        inputs = layer_inputs(case)
        count = copies(case, inputs.weight.numel(), COLD_BYTES)
        first = dynamic_int8(inputs.weight)
        calls = [inference(_bound(_twin(first), inputs.x)) for _ in range(count)]
        precision = Precision(weight=Grid(bits=8), activation=Grid(bits=_ACTIVATION_BITS, block=0))
        return _prepared(calls, inputs, precision, inputs.weight.numel())


class TorchStaticInt8(Contender):
    """Quantized convolution of the x86 engine, activations quantized per tensor with a known range, channels last."""

    name = "torch int8 static x86"
    package = "torch"

    def environment(self, isa: str) -> dict[str, str] | None:
        return torch_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, ConvCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, ConvCase)
        use_engine("x86")
        inputs = layer_inputs(case)
        x = inputs.x.contiguous(memory_format=torch.channels_last)
        layer = _static_convolution(case, inputs)
        scale = float(x.max()) / 127

        def call() -> Tensor:
            result: Tensor = layer(torch.quantize_per_tensor(x, scale, 0, torch.quint8)).dequantize()
            return result

        # 7-bit activations as by default; the result is 8-bit too.
        precision = Precision(weight=Grid(bits=8), activation=Grid(bits=6, block=0))
        return _prepared([inference(call)], inputs, precision, inputs.weight.numel())


def torch_environment(isa: str) -> dict[str, str]:
    """OneDNN and FBGEMM kept to an instruction set, and ATen's own kernels."""
    if isa != "avx2":
        return {}
    return {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
            "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}  # fmt: skip


def use_engine(engine: str) -> None:
    """Choose PyTorch's quantized engine."""
    if engine not in torch.backends.quantized.supported_engines:
        raise RefusedError(f"this PyTorch has no engine {engine!r}")
    torch.backends.quantized.engine = engine


def dynamic_int8(weight: Tensor) -> Any:
    """A dynamically quantized linear layer without bias."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone())
    quantized: nn.Sequential = quantize_dynamic(  # type: ignore[no-untyped-call]
        nn.Sequential(layer), {nn.Linear: per_channel_dynamic_qconfig}
    )
    return quantized[0]


def _twin(layer: Any) -> nn.Module:
    """The layer with packed weights of its own."""
    from torch.ao.nn.quantized.dynamic import Linear

    twin = Linear(layer.in_features, layer.out_features, bias_=False)  # type: ignore[no-untyped-call]
    twin.set_weight_bias(layer.weight(), None)
    return twin


def _static_convolution(case: ConvCase, inputs: LayerInputs) -> Any:
    from torch.ao.nn.quantized import Conv2d

    layer = Conv2d(  # type: ignore[no-untyped-call]
        case.inputs, case.outputs, case.kernel, case.stride, case.padding, bias=False
    )
    scales = inputs.weight.abs().amax(dim=(1, 2, 3)).double() / 127
    zeros = torch.zeros(case.outputs, dtype=torch.int64)
    weight = inputs.weight.contiguous(memory_format=torch.channels_last)
    layer.set_weight_bias(torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8), None)
    layer.scale = float(inputs.expected.abs().max()) / 127
    layer.zero_point = 128
    return layer


def _bound(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: layer(x)


def inference(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The call without autograd."""
    wrapped: Callable[[], Tensor] = torch.inference_mode()(call)
    return wrapped


def _prepared(
    calls: Sequence[Callable[[], Tensor]], inputs: LayerInputs, precision: Precision, weight_bytes: int
) -> Prepared:
    return Prepared(
        start=lambda threads: rotating(calls),
        output=calls[0],
        expected=inputs.expected,
        error=expected_error(inputs, precision),
        weight_bytes=weight_bytes,
    )
