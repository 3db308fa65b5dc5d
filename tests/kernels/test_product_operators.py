"""The operators behind integer layers: shapes for tracing, results in place, packed weights back and forth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vsquant import LayerSpec, kernels, packing
from vsquant.errors import ShapeError
from vsquant.kernels import Target, Walk
from vsquant.kernels.deinterleaved import deinterleave_codes, deinterleave_scales
from vsquant.kernels.schemas import ARGUMENTS
from vsquant.nn import quantize_weight
from vsquant.spec.formats import IntegerFormat

OUTPUTS = ["4u-s6-v16", "8", "4-s4-v32", "6-sfp32-v16", "8u"]


def fmt_of(text: str) -> IntegerFormat:
    fmt = kernels.format_text.parse_format(text)
    assert isinstance(fmt, IntegerFormat)
    return fmt


def weight_of(spec: LayerSpec, *shape: int, groups: int = 1) -> kernels.PackedWeight:
    q = quantize_weight(torch.randn(*shape), spec.weight, name="layer")
    return kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, spec.weight, shape, groups=groups)


@pytest.mark.parametrize("namespace", ["vsquant", "vsquant_eager"])
@pytest.mark.parametrize("operation", ARGUMENTS)
def test_every_operation_has_an_operator(namespace: str, operation: str) -> None:
    packet = getattr(getattr(torch.ops, namespace), operation)
    assert packet.overloads() == ["default", "out"]


def check(operation: str, arguments: tuple[object, ...]) -> None:
    operator = getattr(torch.ops.vsquant_eager, operation).default
    torch.library.opcheck(
        operator, arguments, test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_static")
    )


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("keep_float", [True, False])
def test_shapes_for_tracing_are_the_real_ones(output: str, keep_float: bool) -> None:
    spec = LayerSpec.parse("w4a8-s4/8")
    limit = torch.tensor([2.0])
    tail = (limit, output, "requantize", keep_float)
    weight = weight_of(spec, 20, 40)
    formats = (None, None, 20, "4-s4-v16", "8-s8-v16")
    codes = kernels.eager.quantize(torch.randn(2, 3, 40), limit, spec.activation, "group", "requantize")
    check("linear_codes", (*codes, *weight.tensors, *formats, 0, "none"))
    check("linear_requantize", (*codes, *weight.tensors, *formats, 0, "relu", *tail))
    weight = weight_of(spec, 20, 40, 3, 3)
    geometry = ([3, 3], [2, 1], [1, 0, 1, 2], [1, 1], 1)
    codes = kernels.quantize_map(torch.randn(2, 7, 6, 40), limit, spec.activation, "group", "requantize", 1)
    check("conv2d_codes", (*codes, *weight.tensors, *formats, 0, "none", *geometry))
    check("conv2d_requantize", (*codes, *weight.tensors, *formats, 0, "relu", *geometry, *tail))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shapes_on_floats(dtype: torch.dtype) -> None:
    spec = LayerSpec.parse("w4a8-s4/x")
    tail = (None, None, 20, "4-s4-v16", "8", "group", "requantize", 0, "none")
    x, limit = torch.randn(2, 3, 40).to(dtype), torch.tensor([2.0])
    check("linear", (x, limit, *weight_of(spec, 20, 40).tensors, *tail))
    weight = weight_of(spec, 20, 1, 3, 3, groups=10)
    geometry = ([3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 10)
    check("conv2d", (torch.randn(2, 5, 5, 10).to(dtype), limit, *weight.tensors, *tail, *geometry))
    check(
        "matmul", (torch.randn(2, 3, 16).to(dtype), torch.randn(2, 4, 16), limit, limit, "8", "8", "group", "paper", 0)
    )


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("walk", [None, Walk(kernel=(3, 3), padding=(1, 1, 1, 1))])
def test_requantized_outputs_are_the_codes_of_the_float_ones(output: str, walk: Walk | None) -> None:
    spec = LayerSpec.parse("w4a8-s4/8")
    target = Target(format=fmt_of(output), range=torch.tensor([40.0]))
    lead, kernel = ((2, 5), ()) if walk is None else ((2, 4, 5), (3, 3))
    rows = torch.randn(lead[0], int(np.prod(lead[1:])), 40)
    x = kernels.quantize(rows, spec.activation, coarse_range=torch.tensor([2.0]))
    x = (
        x
        if walk is None
        else kernels.QuantizedTensor(x.codes.view(*lead, 3, 16), x.vector_scale.view(*lead, 3), x.coarse_scale)
    )
    weight = weight_of(spec, 24, 40, *kernel)
    y = kernels.layer_outputs_of_codes(x, weight, spec, walk=walk, backend="eager")
    codes, kept = kernels.layer_codes(x, weight, spec, target, walk=walk, backend="eager", keep_float=True)
    assert torch.equal(kept, y)
    expected = kernels.quantize(y.view(2, -1, 24), target.format, coarse_range=target.range)
    for ours, theirs in zip(codes, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or (ours.dtype == theirs.dtype and torch.equal(ours.flatten(), theirs.flatten()))
    assert kernels.layer_codes(x, weight, spec, target, walk=walk, backend="eager")[1] is None


def test_results_can_be_written_in_place() -> None:
    spec = LayerSpec.parse("w4a8-s4/x-tensor")
    x, weight = torch.randn(2, 3, 40), weight_of(spec, 20, 40)
    out = torch.full((2, 3, 20), float("nan"))
    y = kernels.layer_outputs(x, weight, spec, backend="eager", out=out)
    assert y is out
    assert torch.equal(out, kernels.layer_outputs(x, weight, spec, backend="eager"))
    with pytest.raises(ShapeError) as error:
        kernels.layer_outputs(x, weight, spec, backend="eager", out=torch.empty(6, 20))
    assert str(error.value) == "out of linear must be torch.float32 of shape (2, 3, 20), not torch.float32 (6, 20)"


@pytest.mark.parametrize("shape", [(20, 40), (33, 20, 3, 3), (17, 5, 4), (24, 1, 3, 3)])
@pytest.mark.parametrize(
    "text", ["4-s4-v16", "2-s2-v32", "8", "5-s8-v16-top", "4", "6-s10-v48", "4-s4-v8", "4-sfp16-v16"]
)
def test_packed_weights_unpack_to_what_they_were(text: str, shape: tuple[int, ...]) -> None:
    fmt = fmt_of(text)
    groups = shape[0] if shape[1] == 1 else 1
    q = quantize_weight(torch.randn(*shape), fmt, name="layer")
    weight = kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, fmt, shape, groups=groups)
    for ours, theirs in zip(kernels.unpack_weight(weight), (q.codes, q.vector_scale, q.coarse_scale), strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)


def test_four_bit_weights_take_four_and_a_quarter_bits() -> None:
    spec = LayerSpec.parse("w4a8-s4/x")
    weight = weight_of(spec, 512, 1024)
    assert 8 * (weight.codes.numel() + weight.scale.numel()) / (512 * 1024) == 4.25
    assert weight.size_bytes == 512 * 1024 * 4.25 / 8 + 2 * 4 * 512


@pytest.mark.parametrize("text", ["4-s4-v16", "8-s9-v16-top", "3-s7-v32"])
@pytest.mark.parametrize("groups", [1, 3])
def test_torch_reads_the_layout_as_packing_does(text: str, groups: int) -> None:
    fmt = fmt_of(text)
    generator = np.random.default_rng(0)
    shape = (21, 2, 3, fmt.vector_size)
    codes = generator.integers(fmt.qmin, fmt.qmax + 1, shape, dtype=np.int8)
    scales = generator.integers(fmt.scale_min, fmt.scale_top + 1, shape[:-1], dtype=np.int16)
    stored = packing.interleave(codes, scales, fmt, groups=groups)
    ours = deinterleave_codes(torch.from_numpy(stored.codes), fmt, 21, groups)
    np.testing.assert_array_equal(ours.numpy().reshape(shape), codes)
    ours = deinterleave_scales(torch.from_numpy(stored.vector_scale), fmt, 21, groups)
    np.testing.assert_array_equal(ours.numpy().reshape(shape[:-1]), scales)


def test_codes_of_another_shape_are_refused() -> None:
    fmt = fmt_of("4-s4-v16")
    q = quantize_weight(torch.randn(8, 40), fmt, name="layer")
    with pytest.raises(ShapeError) as error:
        kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, fmt, (8, 64))
    assert str(error.value) == "codes must be (8, 4, 16) for a weight of shape (8, 64), not (8, 3, 16)"


def compiled_linear(x: Tensor, weight: kernels.PackedWeight, spec: LayerSpec) -> Tensor:
    return kernels.layer_outputs(x, weight, spec, backend="eager") * 2


def test_functions_compile_into_one_graph() -> None:
    spec = LayerSpec.parse("w4a8-s4/x-token")
    x, weight = torch.randn(2, 3, 40), weight_of(spec, 20, 40)
    compiled = torch.compile(compiled_linear, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, weight, spec), compiled_linear(x, weight, spec))
