"""torchao: dynamic int8 and 4-bit weights, on CPUs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vsquant.bench.cases import COLD_BYTES, Case, LinearCase
from vsquant.bench.contender import Call, Contender, Prepared, RefusedError
from vsquant.bench.inputs import copies, layer_inputs
from vsquant.bench.peers.torch_layers import inference, rotating, torch_environment
from vsquant.bench.precision import Grid, Precision, expected_error


class TorchAo(Contender):
    """``quantize_`` with int8 activations of every token; compiled by Inductor except where weights rotate."""

    package = "torchao"

    def __init__(self, bits: int) -> None:
        self.name = f"torchao int{bits} dynamic"
        self._bits = bits

    def environment(self, isa: str) -> dict[str, str] | None:
        return torch_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, LinearCase)
        config = self._config()
        inputs = layer_inputs(case)
        weight_bytes = inputs.weight.numel() * self._bits // 8
        first = _quantized(inputs.weight, config)
        layers = [copy.deepcopy(first) for _ in range(copies(case, weight_bytes, COLD_BYTES))]

        def start(threads: int) -> Call:
            if case.cold:
                return rotating([_bound(layer, inputs.x) for layer in layers])
            torch.compiler.reset()
            return _bound(torch.compile(layers[0]), inputs.x)

        weight = Grid(bits=8) if self._bits == 8 else Grid(bits=4, block=32)
        return Prepared(
            start=start,
            output=_bound(layers[0], inputs.x),
            expected=inputs.expected,
            error=expected_error(inputs, Precision(weight=weight, activation=Grid(bits=8))),
            weight_bytes=weight_bytes,
            setting="eager" if case.cold else "compiled",
        )

    def _config(self) -> Any:
        try:
            from torchao import quantization
        except ModuleNotFoundError:
            raise RefusedError("not installed: pip install 'vsquant[bench]'") from None
        if self._bits == 8:
            return quantization.Int8DynamicActivationInt8WeightConfig()
        int4 = getattr(torch, "int4")  # noqa: B009  # torch's stubs lack it
        return quantization.Int8DynamicActivationIntxWeightConfig(weight_dtype=int4)


def _quantized(weight: Tensor, config: Any) -> nn.Module:
    from torchao.quantization import quantize_

    layer = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    layer[0].weight = nn.Parameter(weight.clone())
    quantize_(layer.eval(), config)
    return layer


def _bound(layer: Any, x: Tensor) -> Callable[[], Tensor]:
    return inference(lambda: layer(x))
