"""Whole networks on the peers, each at its best settings."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vsquant.bench.cases import Case, ModelCase
from vsquant.bench.contender import Call, Contender, Prepared
from vsquant.bench.networks import LARGEST_ERROR, Network, calibration_inputs, folded, network
from vsquant.bench.peers.onnxruntime_layers import Session, model_files, onnx_packages
from vsquant.bench.peers.openvino_layers import Request, onednn_environment, openvino
from vsquant.bench.peers.torch_layers import inference, torch_environment, use_engine


class NetworkContender(Contender):
    """A library that runs the networks named in ``models``."""

    models: tuple[str, ...] = ("bert-base", "resnet50")

    def runs(self, case: Case) -> bool:
        return isinstance(case, ModelCase) and case.model in self.models

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, ModelCase)
        float_ = network(case)
        start, output = self.build(case, float_)
        return Prepared(
            start=start,
            output=lambda: output().reshape(-1, *float_.expected.shape[1:])[:1],
            expected=float_.expected,
            error=LARGEST_ERROR,
        )

    @abstractmethod
    def build(self, case: ModelCase, float_: Network) -> tuple[Callable[[int], Call], Callable[[], Tensor]]:
        """What starts the timed call, and what gives one result."""


class TorchNetwork(NetworkContender):
    """PyTorch in this process: float32, or int8 linear layers of one engine."""

    package = "torch"

    def __init__(self, engine: str | None) -> None:
        self.name = "torch float32" if engine is None else f"torch int8 dynamic {engine}"
        self.models = ("bert-base", "resnet50") if engine is None else ("bert-base",)
        self._engine = engine

    def environment(self, isa: str) -> dict[str, str] | None:
        return torch_environment(isa)

    def build(self, case: ModelCase, float_: Network) -> tuple[Callable[[int], Call], Callable[[], Tensor]]:
        model: Any = float_.model
        inputs = float_.inputs
        if self._engine is not None:
            from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

            use_engine(self._engine)
            specs = {nn.Linear: per_channel_dynamic_qconfig}
            model = quantize_dynamic(model, specs)  # type: ignore[no-untyped-call]
        elif case.model == "resnet50":
            model = folded(model).to(memory_format=torch.channels_last)
            inputs = {"x": inputs["x"].contiguous(memory_format=torch.channels_last)}
        call = inference(lambda: model(**inputs))
        return lambda threads: call, inference(lambda: model(**float_.first()))


class OnnxRuntimeNetwork(NetworkContender):
    """ONNX Runtime: BERT with fused attention and dynamic int8 products, ResNet-50 in QDQ form."""

    package = "onnxruntime"

    def __init__(self, model: str) -> None:
        self.name = "onnxruntime int8 " + ("dynamic" if model == "bert-base" else "QDQ")
        self.models = (model,)

    def build(self, case: ModelCase, float_: Network) -> tuple[Callable[[int], Call], Callable[[], Tensor]]:
        onnx_packages()
        with model_files() as (source, result):
            _export(float_, source)
            if case.model == "bert-base":
                _quantize_bert(source, result)
            else:
                _quantize_resnet(case, source, result)
            model = result.read_bytes()

        def start(threads: int) -> Call:
            return Session(model, float_.inputs, threads)

        return start, lambda: Session(model, float_.inputs, 2).output()


class OpenVinoNetwork(NetworkContender):
    """OpenVINO after NNCF: post-training int8 of weights and activations."""

    package = "openvino"
    name = "openvino int8 static"
    _kept: tuple[str, Any] | None = None

    def environment(self, isa: str) -> dict[str, str] | None:
        return onednn_environment(isa)

    def build(self, case: ModelCase, float_: Network) -> tuple[Callable[[int], Call], Callable[[], Tensor]]:
        quantized = self._quantized(case, float_)
        (x,) = float_.inputs.values()
        quantized.reshape({quantized.inputs[0]: list(x.shape)})

        def start(threads: int) -> Call:
            return Request(quantized, x, threads, {})

        return start, lambda: Request(quantized, x, 2, {}).output()

    def _quantized(self, case: ModelCase, float_: Network) -> Any:
        """The quantized network, which cases of another batch share."""
        if self._kept is not None and self._kept[0] == case.model:
            return self._kept[1]
        ov = openvino()
        import nncf

        converted = ov.convert_model(float_.model, example_input=float_.first())
        kind = nncf.ModelType.TRANSFORMER if case.model == "bert-base" else None
        calibration = calibration_inputs(case)
        samples = [{name: value[i : i + 1] for name, value in calibration.items()} for i in range(2)]
        data = nncf.Dataset([{name: value.numpy() for name, value in sample.items()} for sample in samples])
        self._kept = case.model, nncf.quantize(converted, data, model_type=kind, subset_size=2)
        return self._kept[1]


def _export(float_: Network, path: Any) -> None:
    """Export with a free batch dimension."""
    (name,) = float_.inputs
    torch.onnx.export(
        float_.model, (), str(path), kwargs=float_.inputs, input_names=[name], output_names=["y"], dynamo=True,
        external_data=False, optimize=True, verbose=False,
    )  # fmt: skip


def _quantize_bert(source: Any, result: Any) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    fused = source.with_name("fused.onnx")
    optimize_model(str(source), model_type="bert", num_heads=12, hidden_size=768).save_model_to_file(str(fused))
    quantize_dynamic(fused, result, per_channel=True, weight_type=QuantType.QInt8)


def _quantize_resnet(case: ModelCase, source: Any, result: Any) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.with_name("prepared.onnx")
    quant_pre_process(source, prepared)
    quantize_static(
        prepared, result, _Batches(calibration_inputs(case), case.images), quant_format=QuantFormat.QDQ,
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


class _Batches:
    """Calibration batches of the size that the graph was exported with."""

    def __init__(self, inputs: dict[str, Tensor], images: int) -> None:
        repeats = {name: value.repeat(images, 1, 1, 1)[:images].numpy() for name, value in inputs.items()}
        self._batches = iter([repeats])

    def get_next(self) -> dict[str, Any] | None:
        """The next batch, or None."""
        return next(self._batches, None)
