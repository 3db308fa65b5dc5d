"""OpenVINO: static int8 by its low-precision transformations, and compressed weights with dynamic activations."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsquant.bench.cases import COLD_BYTES, Case, ConvCase, LinearCase
from vsquant.bench.contender import Call, Contender, Prepared, RefusedError
from vsquant.bench.inputs import LayerInputs, copies, layer_inputs
from vsquant.bench.peers.torch_layers import rotating
from vsquant.bench.precision import Grid, Precision, expected_error


def openvino() -> Any:
    """The package, or why it is not there."""
    try:
        import openvino
    except ModuleNotFoundError:
        raise RefusedError("not installed: pip install 'vsquant[bench]'") from None
    return openvino


def onednn_environment(isa: str) -> dict[str, str]:
    """OneDNN kept to an instruction set; OpenVINO's own kernels ask oneDNN what there is."""
    return {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"} if isa == "avx2" else {}


class OpenVinoLayer(Contender):
    """One way to quantize a single layer."""

    package = "openvino"

    def environment(self, isa: str) -> dict[str, str] | None:
        return onednn_environment(isa)

    @abstractmethod
    def precision(self) -> Precision:
        """What it quantizes to."""

    @abstractmethod
    def model(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> Any:
        """The layer as an OpenVINO model: x to y."""

    @abstractmethod
    def weight_bytes(self, elements: int) -> int:
        """Bytes of that many weights."""

    def settings(self, case: LinearCase | ConvCase) -> dict[str, Any]:
        """Properties of the compiled model beside those that all have."""
        return {}

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, LinearCase | ConvCase)
        openvino()
        inputs = layer_inputs(case)
        model = self.model(case, inputs)
        weight_bytes = self.weight_bytes(inputs.weight.numel())
        count = copies(case, weight_bytes, COLD_BYTES)
        settings = self.settings(case)

        def start(threads: int) -> Call:
            return rotating([Request(model, inputs.x, threads, settings) for _ in range(count)])

        return Prepared(
            start=start,
            output=lambda: Request(model, inputs.x, 1, settings).output().reshape(inputs.expected.shape),
            expected=inputs.expected,
            error=expected_error(inputs, self.precision()),
            weight_bytes=weight_bytes,
        )


class StaticInt8(OpenVinoLayer):
    """FakeQuantize on weights (per channel) and activations (per tensor, a known range), turned into int8 kernels."""

    name = "openvino int8 static"

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase | ConvCase)

    def precision(self) -> Precision:
        return Precision(weight=Grid(bits=8), activation=Grid(bits=8, block=0))

    def weight_bytes(self, elements: int) -> int:
        return elements

    def model(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> Any:
        ov = openvino()
        ops = ov.opset13
        x = ops.parameter(list(inputs.x.shape), ov.Type.f32, name="x")
        largest = float(inputs.x.abs().max())
        low = -largest * 128 / 127 if isinstance(case, LinearCase) else 0.0
        qx = _fake_quantize(x, np.float32(low), np.float32(largest), 256)
        dims = tuple(range(1, inputs.weight.dim()))
        range_ = inputs.weight.abs().amax(dim=dims, keepdim=True).numpy()
        qw = _fake_quantize(ops.constant(inputs.weight.numpy()), -range_, range_, 255)
        if isinstance(case, LinearCase):
            y = ops.matmul(qx, qw, False, True)
        else:
            pad = [case.padding] * 2
            y = ops.convolution(qx, qw, [case.stride] * 2, pad, pad, [1, 1])
        return ov.Model([y], [x])


class CompressedWeights(OpenVinoLayer):
    """Weights of ``bits`` bits with a float16 scale every ``group`` elements (None: a channel).

    Activations are int8, found at run time over as many elements: the largest group that OpenVINO takes is its fastest.
    """

    def __init__(self, bits: int, group: int | None) -> None:
        self.name = f"openvino int{bits} dynamic" + (" channel" if group is None else f" g{group}")
        self._bits, self._group = bits, group

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase)

    def precision(self) -> Precision:
        return Precision(weight=Grid(bits=self._bits, block=self._group), activation=Grid(bits=8))

    def weight_bytes(self, elements: int) -> int:
        return elements * self._bits // 8

    def settings(self, case: LinearCase | ConvCase) -> dict[str, Any]:
        return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": self._group or case.inputs}

    def model(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> Any:
        ov = openvino()
        ops = ov.opset13
        outputs, length = inputs.weight.shape
        group = self._group or length
        x = ops.parameter([1, *inputs.x.shape], ov.Type.f32, name="x")
        grouped = inputs.weight.reshape(outputs, length // group, group)
        top = 2 ** (self._bits - 1) - 1
        scale = (grouped.abs().amax(dim=2, keepdim=True) / top).half()
        codes = (grouped / scale.float()).round().clamp(-top, top).to(torch.int8).numpy()
        stored = ops.constant(codes if self._bits == 8 else _four_bit(codes), shared_memory=False)
        weight = ops.multiply(ops.convert(stored, "f16"), ops.constant(scale.numpy()))
        weight = ops.convert(ops.reshape(weight, [outputs, length], False), "f32")
        return ov.Model([ops.matmul(x, weight, False, True)], [x])


class Request:
    """One compiled model with its own copy of the weights and its input bound once."""

    def __init__(self, model: Any, x: Tensor, threads: int, settings: dict[str, Any]) -> None:
        ov = openvino()
        properties = {
            "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False,
        }  # fmt: skip
        compiled = ov.Core().compile_model(model.clone(), "CPU", properties | settings)
        self._request = compiled.create_infer_request()
        shape = list(compiled.input(0).get_partial_shape().to_shape())
        self._x = np.ascontiguousarray(x.numpy()).reshape(shape)
        self._request.set_input_tensor(ov.Tensor(self._x, shared_memory=True))
        self.runtime_model = compiled.get_runtime_model

    def __call__(self) -> None:
        """Run on the bound input."""
        self._request.infer()

    def output(self) -> Tensor:
        """The first result."""
        self()
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())


def _fake_quantize(value: Any, low: Any, high: Any, levels: int) -> Any:
    ops = openvino().opset13
    ends = [ops.constant(np.asarray(end, dtype=np.float32)) for end in (low, high, low, high)]
    return ops.fake_quantize(value, *ends, levels)


def _four_bit(codes: np.ndarray[Any, Any]) -> Any:
    ov = openvino()
    low, high = codes.reshape(-1, 2).T
    bytes_ = ((low & 15) | ((high & 15) << 4)).astype(np.uint8)
    return ov.Tensor(bytes_, ov.Shape(list(codes.shape)), ov.Type.i4)
