"""vsquant itself: integer layers and fake-quantization through the operators, checked against the eager kernels."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vsquant.bench.cases import COLD_BYTES, Case, ConvCase, FakeQuantizeCase, LinearCase
from vsquant.bench.contender import Contender, ParityError, Prepared
from vsquant.bench.inputs import LayerInputs, copies, layer_inputs, matrix
from vsquant.bench.peers.torch_layers import rotating
from vsquant.bench.precision import Grid, Precision, expected_error, relative_error
from vsquant.kernels import PackedWeight, choose, eager, layer_outputs, native, pack_weight, quantize
from vsquant.kernels.convolutions import Walk
from vsquant.kernels.format_text import format_text
from vsquant.spec import IntegerFormat, LayerSpec

PREFIX = "vsquant "


class VsquantLayer(Contender):
    """A linear layer or convolution in one format, activations quantized inside."""

    def __init__(self, spec: str) -> None:
        self.name = PREFIX + spec
        self._spec = LayerSpec.parse(spec)

    def environment(self, isa: str) -> dict[str, str] | None:
        return isa_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase | ConvCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, LinearCase | ConvCase)
        inputs = layer_inputs(case)
        layer = _Layer(case, inputs, self._spec)
        backend = choose(layer.operation, layer.weight.format, self._spec.activation)
        layer.check()
        calls = [layer.copy().call() for _ in range(copies(case, layer.weight.size_bytes, COLD_BYTES))]
        return Prepared(
            start=lambda threads: rotating(calls),
            output=layer.output,
            expected=inputs.expected,
            error=expected_error(inputs, _precision(self._spec)),
            checked="equal to eager, bit for bit" if backend.backend == "cpu" else "",
            weight_bytes=layer.weight.size_bytes,
            setting=f"native {native.status().isa}" if backend.backend == "cpu" else f"eager: {backend.others['cpu']}",
        )


class VsquantFakeQuantize(Contender):
    """The fused fake-quantization operator in one format, into a warm buffer; gamma of every row."""

    def __init__(self, spec: str) -> None:
        self.name = PREFIX + spec
        self._format = weight_format(LayerSpec.parse(spec))

    def environment(self, isa: str) -> dict[str, str] | None:
        return isa_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, FakeQuantizeCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, FakeQuantizeCase)
        x = matrix(case)[None]
        out, text = torch.empty_like(x), format_text(self._format)
        operator = torch.ops.vsquant.fake_quantize.out

        def call() -> Tensor:
            operator(x, None, text, "row", "requantize", out=out)
            return out

        check_equal(call(), eager.fake_quantize(x, None, self._format, "row", "requantize"))
        grid = Grid(bits=self._format.bits, block=self._format.vector_size)
        return Prepared(
            start=lambda threads: call,
            output=lambda: call()[0],
            expected=x[0],
            error=1.5 * grid.relative_error(x[0]),
            checked="equal to eager, bit for bit",
        )


class _Layer:
    """One copy of a layer's packed weights with its input, its buffer and the operator's arguments."""

    def __init__(self, case: LinearCase | ConvCase, inputs: LayerInputs, spec: LayerSpec) -> None:
        self._case, self._inputs, self._spec = case, inputs, spec
        self.weight = _packed(_Held(inputs.weight), weight_format(spec))
        self._range = inputs.x.abs().max().reshape(1) if spec.gamma == "static" else None
        if isinstance(case, LinearCase):
            self.operation, self._walk = "linear", None
            self._x = inputs.x[None]
        else:
            self.operation = "conv2d"
            self._walk = Walk(
                kernel=(case.kernel,) * 2, stride=(case.stride,) * 2, padding=(case.padding,) * 4, dilation=(1, 1)
            )
            self._x = inputs.x.permute(0, 2, 3, 1).contiguous()
        self._out = torch.empty(0)

    def copy(self) -> _Layer:
        """The same layer with weights and buffer of its own."""
        twin = object.__new__(_Layer)
        twin.__dict__ |= self.__dict__
        tensors = [tensor.clone() for tensor in self.weight.tensors]
        twin.weight = PackedWeight(
            codes=tensors[0], scale=tensors[1], sums=tensors[2], coarse=tensors[3],
            format=self.weight.format, shape=self.weight.shape, groups=self.weight.groups,
        )  # fmt: skip
        twin._out = self.run()
        return twin

    def run(self, **options: Any) -> Tensor:
        """The layer's result in its own layout, (1, rows, K) or (N, H', W', K)."""
        return layer_outputs(self._x, self.weight, self._spec, activation_range=self._range, walk=self._walk, **options)

    def call(self) -> Callable[[], Tensor]:
        """What is timed: float in, float out, into the same buffer each time."""
        return lambda: self.run(out=self._out)

    def output(self) -> Tensor:
        """The result in the layout of the float result."""
        y = self.run()
        return y[0] if self._walk is None else y.permute(0, 3, 1, 2)

    def check(self) -> None:
        """Compare with the eager kernel."""
        check_equal(self.run(), self.run(backend="eager"))


def check_equal(y: Tensor, eager: Tensor) -> None:
    """Refuse a result that is not the eager kernel's, bit for bit.

    Raises:
        ParityError: they differ.
    """
    if not torch.equal(y, eager):
        count = int((y != eager).sum())
        raise ParityError(f"{count} of {y.numel()} results differ from eager (error {relative_error(y, eager):.2g})")


def weight_format(spec: LayerSpec) -> IntegerFormat:
    """The weight's format; the cases hold no comparison format."""
    assert isinstance(spec.weight, IntegerFormat)
    return spec.weight


def isa_environment(isa: str) -> dict[str, str]:
    """Vsquant kept to an instruction set."""
    return {} if isa == "native" else {"VSQUANT_ISA": isa}


class _Held:
    """A tensor as a key: the same object, not the same values."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.tensor is self.tensor

    def __hash__(self) -> int:
        return id(self.tensor)


@lru_cache(maxsize=16)
def _packed(held: _Held, fmt: IntegerFormat) -> PackedWeight:
    """(K, C) or (K, C, R, S), gamma per output channel."""
    weight = held.tensor
    rows = weight.movedim(1, -1)
    quantized = quantize(rows.reshape(weight.shape[0], -1, weight.shape[1]), fmt)
    lead = tuple(rows.shape[:-1])
    codes = quantized.codes.reshape(*lead, *quantized.codes.shape[2:])
    scale = quantized.vector_scale
    coarse = quantized.coarse_scale
    return pack_weight(
        codes,
        None if scale is None else scale.reshape(*lead, -1),
        None if coarse is None else coarse.reshape(-1),
        fmt,
        tuple(weight.shape),
    )


def _precision(spec: LayerSpec) -> Precision:
    """Vector scales of M bits move a step by up to half a unit: a bit less of precision is allowed where M is 4."""
    weight, activation = weight_format(spec), spec.activation
    assert isinstance(activation, IntegerFormat)
    tensor = None if spec.gamma == "token" else 0
    return Precision(
        weight=Grid(bits=weight.bits, block=weight.vector_size),
        activation=Grid(bits=activation.bits - activation.has_vectors, block=activation.vector_size or tensor),
    )
