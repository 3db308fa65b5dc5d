"""ONNX Runtime: dynamic int8, QDQ int8 and 4-bit block weights (MatMulNBits)."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsquant.bench.cases import COLD_BYTES, Case, ConvCase, LinearCase
from vsquant.bench.contender import Call, Contender, Prepared, RefusedError
from vsquant.bench.inputs import LayerInputs, copies, layer_inputs
from vsquant.bench.peers.torch_layers import rotating
from vsquant.bench.precision import Grid, Precision, expected_error


class OnnxRuntimeLayer(Contender):
    """One kind of quantized ONNX graph of a single layer."""

    package = "onnxruntime"
    _kept: tuple[tuple[int, ...], bytes] | None = None

    @abstractmethod
    def precision(self, case: LinearCase | ConvCase) -> Precision:
        """What the graph quantizes to."""

    @abstractmethod
    def quantized(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> bytes:
        """The quantized graph, serialized."""

    @abstractmethod
    def weight_bytes(self, elements: int) -> int:
        """Bytes of that many weights."""

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, LinearCase | ConvCase)
        inputs = layer_inputs(case)
        onnx_packages()
        model = self._model(case, inputs)
        weight_bytes = self.weight_bytes(inputs.weight.numel())
        count = copies(case, weight_bytes, COLD_BYTES)

        def start(threads: int) -> Call:
            return rotating([Session(model, inputs.x, threads) for _ in range(count)])

        return Prepared(
            start=start,
            output=lambda: Session(model, inputs.x, 1).output(),
            expected=inputs.expected,
            error=expected_error(inputs, self.precision(case)),
            weight_bytes=weight_bytes,
        )

    def _model(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> bytes:
        """The graph, which linear layers of one shape share: it takes any number of rows."""
        key = (*inputs.weight.shape, 0 if isinstance(case, LinearCase) else case.images * case.size)
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self.quantized(case, inputs)
        return self._kept[1]


class DynamicInt8(OnnxRuntimeLayer):
    """``quantize_dynamic``: activations per tensor at run time, weights per channel."""

    name = "onnxruntime int8 dynamic"

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase)

    def precision(self, case: LinearCase | ConvCase) -> Precision:
        return Precision(weight=Grid(bits=8), activation=Grid(bits=8, block=0))

    def weight_bytes(self, elements: int) -> int:
        return elements

    def quantized(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> bytes:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with model_files() as (source, result):
            source.write_bytes(float_graph(case, inputs).SerializeToString())
            quantize_dynamic(source, result, per_channel=True, weight_type=QuantType.QInt8)
            return result.read_bytes()


class StaticInt8(OnnxRuntimeLayer):
    """``quantize_static`` in QDQ form: activations per tensor with a calibrated range, weights per channel."""

    name = "onnxruntime int8 QDQ"

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase | ConvCase)

    def precision(self, case: LinearCase | ConvCase) -> Precision:
        # 7 bits: the result is quantized once more.
        return Precision(weight=Grid(bits=8), activation=Grid(bits=7, block=0))

    def weight_bytes(self, elements: int) -> int:
        return elements

    def quantized(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> bytes:
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        with model_files() as (source, result):
            source.write_bytes(float_graph(case, inputs).SerializeToString())
            quantize_static(
                source,
                result,
                _Calibration(inputs.x),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return result.read_bytes()


class MatMulNBits(OnnxRuntimeLayer):
    """4-bit weights with a float scale every ``block`` elements; accuracy level 4: int8 activations, 0: float."""

    def __init__(self, block: int, accuracy_level: int) -> None:
        self.name = f"onnxruntime 4-bit b{block} level {accuracy_level}"
        self._block, self._level = block, accuracy_level

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase)

    def precision(self, case: LinearCase | ConvCase) -> Precision:
        activation = Grid(bits=8, block=self._block) if self._level == 4 else None
        return Precision(weight=Grid(bits=4, block=self._block), activation=activation)

    def weight_bytes(self, elements: int) -> int:
        return elements // 2 + elements // self._block * 4

    def quantized(self, case: LinearCase | ConvCase, inputs: LayerInputs) -> bytes:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(
            float_graph(case, inputs), block_size=self._block, is_symmetric=True, accuracy_level=self._level
        )
        quantizer.process()
        serialized: bytes = quantizer.model.model.SerializeToString()
        return serialized


class Session:
    """One session with its own copy of the weights, its input and output bound once."""

    def __init__(self, model: bytes, x: Tensor | dict[str, Tensor], threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._binding = self._session.io_binding()
        for name, value in (x if isinstance(x, dict) else {"x": x}).items():
            self._binding.bind_cpu_input(name, value.numpy())
        for result in self._session.get_outputs():
            self._binding.bind_output(result.name)

    def __call__(self) -> None:
        """Run on the bound input."""
        self._session.run_with_iobinding(self._binding)

    def output(self) -> Tensor:
        """The first result."""
        self()
        return torch.from_numpy(self._binding.copy_outputs_to_cpu()[0])


@contextmanager
def model_files() -> Iterator[tuple[Path, Path]]:
    """Places for a model and its quantized twin, for the length of a block."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"


def onnx_packages() -> tuple[Any, Any]:
    """The packages onnx and onnxruntime.

    Raises:
        RefusedError: one is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ModuleNotFoundError as error:
        raise RefusedError(f"not installed: pip install 'vsquant[bench]' ({error.name})") from None
    return onnx, onnxruntime


class _Calibration:
    """One batch, as ONNX Runtime's calibration reads it."""

    def __init__(self, x: Tensor) -> None:
        self._batches: Iterator[dict[str, np.ndarray[Any, Any]]] = iter([{"x": x.numpy()}])

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """The next batch, or None."""
        return next(self._batches, None)


def float_graph(case: LinearCase | ConvCase, inputs: LayerInputs) -> Any:
    """The float layer as an ONNX model: x to y."""
    onnx, _ = onnx_packages()
    weight = inputs.weight.t() if isinstance(case, LinearCase) else inputs.weight
    w = onnx.numpy_helper.from_array(np.ascontiguousarray(weight.numpy()), "w")
    rows: str | int = "rows" if isinstance(case, LinearCase) else case.images
    if isinstance(case, LinearCase):
        node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    else:
        node = onnx.helper.make_node(
            "Conv", ["x", "w"], ["y"], name="layer", strides=[case.stride] * 2, pads=[case.padding] * 4
        )
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [rows, *tensor.shape[1:]])
        for name, tensor in (("x", inputs.x), ("y", inputs.expected))
    )
    graph = onnx.helper.make_graph([node], "layer", [x], [y], [w])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
