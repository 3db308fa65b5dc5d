"""Fake-quantization by others: 4 bits, a scale for every 16 elements where they have one, a result in a tensor."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from vsquant.bench.cases import Case, FakeQuantizeCase
from vsquant.bench.contender import Contender, Prepared, RefusedError
from vsquant.bench.inputs import matrix
from vsquant.bench.peers.torch_layers import inference, torch_environment
from vsquant.bench.precision import SLACK, Grid
from vsquant.kernels import eager
from vsquant.spec import IntegerFormat, LayerSpec

BLOCK = 16


class FakeQuantizer(Contender):
    """One library's fake-quantizer of a matrix; ``grid`` is what its result may be away from the matrix."""

    grid: ClassVar[Grid | None] = Grid(bits=4, block=BLOCK)

    def environment(self, isa: str) -> dict[str, str] | None:
        return torch_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, FakeQuantizeCase)

    @abstractmethod
    def function(self, x: Tensor) -> Callable[[], Tensor]:
        """The call that is timed."""

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, FakeQuantizeCase)
        x = matrix(case)
        try:
            call = inference(self.function(x))
        except ModuleNotFoundError as missing:
            raise RefusedError(f"not installed ({missing.name}): {self.install()}") from None
        error = 0.0 if self.grid is None else SLACK * self.grid.relative_error(x)
        return Prepared(start=lambda threads: call, output=call, expected=x, error=error)

    def install(self) -> str:
        """How to get the library."""
        return "pip install 'vsquant[bench]'"


class TorchCopy(FakeQuantizer):
    """A plain copy into a warm buffer: what reading and writing alone take."""

    name = "torch copy"
    package = "torch"
    grid = None

    def function(self, x: Tensor) -> Callable[[], Tensor]:
        out = torch.empty_like(x)
        return lambda: out.copy_(x)


class VsquantEager(FakeQuantizer):
    """vsquant's own eager kernel: plain PyTorch."""

    name = "eager PyTorch w4-s4"
    package = "torch"

    def function(self, x: Tensor) -> Callable[[], Tensor]:
        fmt = LayerSpec.parse("w4a8-s4/x").weight
        assert isinstance(fmt, IntegerFormat)
        return lambda: eager.fake_quantize(x[None], None, fmt, "row", "requantize")[0]


class Brevitas(FakeQuantizer):
    """A weight quantizer: 4 bits, a float scale of every row (its groups of 16 are slower)."""

    name = "brevitas int4 channel"
    package = "brevitas"
    grid = Grid(bits=4)

    def function(self, x: Tensor) -> Callable[[], Tensor]:
        from brevitas.nn import QuantLinear
        from brevitas.quant.scaled_int import Int8WeightPerChannelFloat

        layer = QuantLinear(
            x.shape[1], x.shape[0], bias=False, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=4
        )
        layer.weight.data = x
        layer.eval()
        return lambda: layer.quant_weight().value


class Quanto(FakeQuantizer):
    """optimum-quanto's qint4 weights, groups of 16, and back."""

    name = "optimum-quanto int4 g16"
    package = "optimum-quanto"

    def function(self, x: Tensor) -> Callable[[], Tensor]:
        from optimum.quanto import MaxOptimizer, qint4, quantize_weight

        optimizer = MaxOptimizer()

        def call() -> Tensor:
            scale, shift = optimizer(x, qint4, axis=0, group_size=BLOCK)
            quantized = quantize_weight(x, qint4, 0, scale, shift, group_size=BLOCK, optimized=False)
            result: Tensor = quantized.dequantize()
            return result

        return call


class ModelOpt(FakeQuantizer):
    """NVIDIA modelopt's TensorQuantizer, blocks of 16, one-level (its two-level format needs CUDA)."""

    name = "nvidia-modelopt int4 b16"
    package = "nvidia-modelopt"

    def function(self, x: Tensor) -> Callable[[], Tensor]:
        from modelopt.torch.quantization.config import QuantizerAttributeConfig
        from modelopt.torch.quantization.nn import TensorQuantizer

        quantizer = TensorQuantizer(QuantizerAttributeConfig(num_bits=4, block_sizes={-1: BLOCK}))
        return lambda: quantizer(x)


class TorchAoFake(FakeQuantizer):
    """torchao's affine primitives, blocks of 16."""

    name = "torchao int4 b16"
    package = "torchao"

    def function(self, x: Tensor) -> Callable[[], Tensor]:
        from torchao.quantization.quant_primitives import (
            MappingType,
            choose_qparams_affine,
            dequantize_affine,
            quantize_affine,
        )

        block, range_ = (1, BLOCK), (torch.int8, -7, 7)

        def call() -> Tensor:
            scale, zero = choose_qparams_affine(x, MappingType.SYMMETRIC, block, *range_)
            codes = quantize_affine(x, block, scale, zero, *range_)
            result: Tensor = dequantize_affine(codes, block, scale, zero, *range_)
            return result

        return call


class Microxcaling(FakeQuantizer):
    """Microsoft's MX emulation, int4 elements, shared exponents of 16."""

    name = "microxcaling int4 b16"
    package = "mx"
    grid = Grid(bits=3, block=BLOCK)

    def install(self) -> str:
        return "not on the package index; install github.com/microsoft/microxcaling"

    def function(self, x: Tensor) -> Callable[[], Tensor]:
        from mx.mx_ops import _quantize_mx

        return lambda: _quantize_mx(x, 8, "int4", axes=[-1], block_size=BLOCK)
