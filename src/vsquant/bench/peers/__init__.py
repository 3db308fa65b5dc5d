"""The peers: every library that is timed beside vsquant. They are imported where they run, never by the package."""

from __future__ import annotations

from typing import Final

from vsquant.bench.contender import Contender
from vsquant.bench.peers import (
    cells,
    fake_quantizers,
    ggml,
    networks,
    onnxruntime_layers,
    openvino_layers,
    torch_layers,
    torchao_layers,
)

PEERS: Final[tuple[Contender, ...]] = (
    torch_layers.TorchFloat(),
    torch_layers.TorchDynamicInt8("x86"),
    torch_layers.TorchDynamicInt8("onednn"),
    torch_layers.TorchStaticInt8(),
    torchao_layers.TorchAo(8),
    torchao_layers.TorchAo(4),
    onnxruntime_layers.DynamicInt8(),
    onnxruntime_layers.StaticInt8(),
    onnxruntime_layers.MatMulNBits(16, 4),
    onnxruntime_layers.MatMulNBits(32, 4),
    onnxruntime_layers.MatMulNBits(16, 0),
    onnxruntime_layers.MatMulNBits(32, 0),
    openvino_layers.StaticInt8(),
    openvino_layers.CompressedWeights(8, None),
    openvino_layers.CompressedWeights(4, None),
    openvino_layers.CompressedWeights(4, 32),
    openvino_layers.CompressedWeights(4, 128),
    ggml.Ggml("Q4_0"),
    ggml.Ggml("Q4_K"),
    ggml.Ggml("Q8_0"),
    networks.TorchNetwork(None),
    networks.TorchNetwork("x86"),
    networks.TorchNetwork("onednn"),
    networks.OnnxRuntimeNetwork("bert-base"),
    networks.OnnxRuntimeNetwork("resnet50"),
    networks.OpenVinoNetwork(),
    cells.FloatCell(),
    fake_quantizers.TorchCopy(),
    fake_quantizers.VsquantEager(),
    fake_quantizers.Brevitas(),
    fake_quantizers.Quanto(),
    fake_quantizers.ModelOpt(),
    fake_quantizers.TorchAoFake(),
    fake_quantizers.Microxcaling(),
)
