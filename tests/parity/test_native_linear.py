"""Native linear layers give the eager backend's bits: every kind of scale, awkward shapes, every epilogue."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vsquant import LayerSpec, kernels
from vsquant.errors import NonFiniteError, ShapeError, SpecError
from vsquant.kernels import Epilogue, PackedWeight, Target, native
from vsquant.kernels.eager import QuantizedTensor
from vsquant.kernels.format_text import parse_format
from vsquant.nn import quantize_weight
from vsquant.spec.formats import IntegerFormat

pytestmark = pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native library was not built")

SPECS = [
    "w4a8-s4/x-token",
    "w4a8-s4/x-tensor",
    "w4a8-s4/x",
    "w4a8u-s4/x",
    "w4a8-s4/x-full",
    "w4a8-s4/x-top",
    "w4a8-s6/x",
    "w4a8-s8/x-token",
    "w4a8-s10/x",
    "w4a4-s4/4-tensor",
    "w4a4u-s4/4",
    "w4a4u-s4/6",
    "w4a8-s4/4",
    "w4a8-s4/8-token",
    "w4a8u-s4/8",
    "w4a8-s6/8",
    "w4a8-s4/10-tensor",
    "w8a8-tensor",
    "w8a8u",
    "w8a8-s8/x",
    "w8a8-s8/8",
    "w8a8-s10/10-tensor",
    "w8a8-sx/8",
    "w6a4-sx/4-v32-token",
    "w5a6-s8/3-v64-tensor",
    "w2a2-s2/2-v48",
    "w2a4-s6/4",
    "w3a8-s5/x",
    "w3a5-s5/x-full-top",
    "w4a4-s4/6-p4-tensor",
    "w4a6-s6/10-p8",
    "w8a4-s9/10-p3-top-token",
    "w4a8-s4/8-p11-v32-full",
    "w4a8-s4/x-v8",
    "w4a4-s4/4-v2-token",
    "w6a8-s6/8-v24-tensor",
    "w4a8-sx/4-v20-token",
    "w8a8u-sx/8-v40",
    "w4a4-s4/6-p4-v12-tensor",
    "w4a8-sfp16/x-token",
    "w8a8u-sfp32/x",
    "w4a8-s4/fp32",
    "w4a8u-sfp16/fp32-v48",
    "w8a8-sfp32/fp16-v24-full",
    "w8a4-sx/fp32-v10",
    "w4a8-sfp32/10-v16-token",
]
SHAPES = [
    (1, 1, 16, 16),
    (2, 3, 40, 37),
    (1, 5, 130, 7),
    (3, 1, 384, 48),
    (1, 33, 100, 130),
    (0, 3, 16, 8),
    (2, 0, 16, 8),
]
TARGETS = ["4-s4-v16", "4u-s6-v16", "8", "8u", "8-s4-v32", "5-s10-v64", "4-s4-v8", "6-sfp16-v16", "7u"]


def poisoned_like(result: Tensor | None) -> Tensor | None:
    """Memory for such a result that holds anything but it."""
    return None if result is None else torch.full_like(result, float("nan") if result.is_floating_point() else 113)


def normal(*shape: int, unsigned: bool = False) -> Tensor:
    x = torch.randn(*shape) * torch.randn(shape[-1]).exp()
    return x.abs() if unsigned else x


def packed(outputs: int, channels: int, fmt: IntegerFormat) -> PackedWeight:
    weight = normal(outputs, channels)
    q = quantize_weight(weight, fmt, name="layer")
    return kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, fmt, tuple(weight.shape))


def activations(spec: LayerSpec, samples: int, rows: int, channels: int) -> Tensor:
    assert spec.activation is not None
    return normal(samples, rows, channels, unsigned=not spec.activation.signed)


def codes(spec: LayerSpec, x: Tensor) -> QuantizedTensor:
    share = "row" if spec.gamma == "token" else "group"
    return kernels.quantize(
        x, spec.activation, share=share, coarse_range=torch.tensor([2.5]) if share == "group" else None
    )


def poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, float("nan"), dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text", SPECS)
def test_floats(text: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    spec = LayerSpec.parse(text)
    samples, rows, channels, outputs = shape
    x, weight = activations(spec, samples, rows, channels).to(dtype), packed(outputs, channels, spec.weight)
    limit = torch.tensor([3.7]) if spec.gamma == "static" else None
    epilogue = Epilogue(
        bias=torch.randn(outputs), residual=torch.randn(samples, rows, outputs).to(dtype), function="relu"
    )
    out = poisoned(samples, rows, outputs, dtype=dtype)
    theirs = kernels.layer_outputs(x, weight, spec, activation_range=limit, epilogue=epilogue, backend="eager")
    for given in (None, out):
        ours = kernels.layer_outputs(
            x, weight, spec, activation_range=limit, epilogue=epilogue, backend="cpu", out=given
        )
        assert torch.equal(ours, theirs)
    assert torch.equal(out, theirs)


@pytest.mark.parametrize("text", SPECS)
def test_codes(text: str) -> None:
    spec = LayerSpec.parse(text)
    for samples, rows, channels, outputs in SHAPES:
        weight = packed(outputs, channels, spec.weight)
        x = codes(spec, activations(spec, samples, rows, channels))
        epilogue = Epilogue(residual=torch.randn(samples, rows, outputs).bfloat16(), function="relu6")
        theirs = kernels.layer_outputs_of_codes(x, weight, spec, epilogue=epilogue, backend="eager")
        out = poisoned(samples, rows, outputs)
        assert torch.equal(kernels.layer_outputs_of_codes(x, weight, spec, epilogue=epilogue, backend="cpu"), theirs)
        kernels.layer_outputs_of_codes(x, weight, spec, epilogue=epilogue, backend="cpu", out=out)
        assert torch.equal(out, theirs)


@pytest.mark.parametrize("scale_mode", ["requantize", "paper"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "text",
    [
        "w4a8-s4/x",
        "w4a4u-s4/6",
        "w8a8-tensor",
        "w4a8-s4/8-token",
        "w8a4-s9/10-p3-token",
        "w4a8-sfp32/6",
        "w4a8-s4/6-v12",
    ],
)
def test_codes_of_the_next_layer(text: str, target: str, scale_mode: str) -> None:
    spec, fmt = LayerSpec.parse(text), parse_format(target)
    assert isinstance(fmt, IntegerFormat)
    aim = Target(format=fmt, range=torch.tensor([30.0]), scale_mode=scale_mode)  # type: ignore[arg-type]
    for samples, rows, channels, outputs in [(1, 1, 16, 16), (2, 3, 40, 37), (1, 21, 48, 150), (2, 2, 64, 64)]:
        weight = packed(outputs, channels, spec.weight)
        x = codes(spec, activations(spec, samples, rows, channels))
        for keep_float in (False, True):
            theirs, their_y = kernels.layer_codes(x, weight, spec, aim, keep_float=keep_float, backend="eager")
            ours, y = kernels.layer_codes(x, weight, spec, aim, keep_float=keep_float, backend="cpu")
            for ours_part, theirs_part in zip((*ours, y), (*theirs, their_y), strict=True):
                assert (ours_part is None) == (theirs_part is None)
                if ours_part is not None and theirs_part is not None:
                    assert ours_part.dtype == theirs_part.dtype
                    assert torch.equal(ours_part, theirs_part)
            for backend in ("eager", "cpu"):
                out = (QuantizedTensor(*(poisoned_like(part) for part in theirs)), poisoned_like(their_y))
                given = kernels.layer_codes(
                    x,
                    weight,
                    spec,
                    aim,
                    keep_float=keep_float,
                    backend=backend,
                    out=out,  # type: ignore[arg-type]
                )
                assert given is out
                for part, theirs_part in zip((*out[0], out[1]), (*theirs, their_y), strict=True):
                    assert theirs_part is None if part is None else torch.equal(part, theirs_part)


@pytest.mark.parametrize("text", ["w4a8-s4/x-token", "w8a8-s10/10-tensor", "w4a4-s4/4", "w8a8-tensor"])
def test_threads_give_the_same_bits(text: str) -> None:
    spec = LayerSpec.parse(text)
    limit = torch.tensor([3.7]) if spec.gamma == "static" else None
    x, weight = normal(2, 90, 112), packed(200, 112, spec.weight)
    one = kernels.layer_outputs(x, weight, spec, activation_range=limit, backend="cpu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in range(5):
            assert torch.equal(kernels.layer_outputs(x, weight, spec, activation_range=limit, backend="cpu"), one)
    finally:
        torch.set_num_threads(before)


def test_memory_that_is_reused_leaves_no_trace() -> None:
    spec = LayerSpec.parse("w4a8-s4/8-token")
    calls = [
        (x := normal(1, rows, channels), packed(24, channels, spec.weight))
        for rows, channels in [(3, 48), (40, 200), (1, 16)]
    ]
    expected = [kernels.layer_outputs(x, weight, spec, backend="eager") for x, weight in calls]
    for _ in range(3):
        for (x, weight), y in zip(calls, expected, strict=True):
            assert torch.equal(kernels.layer_outputs(x, weight, spec, backend="cpu"), y)


@pytest.mark.parametrize("channels", [16, 144, 640, 9472])
@pytest.mark.parametrize(
    "text", ["w4a8-s4/x", "w4a8-s8/x", "w4a8-s4/8", "w4a8-s6/10", "w8a8-s10/10", "w8a8u-s10/10-full"]
)
def test_sums_of_the_largest_operands_do_not_wrap(text: str, channels: int) -> None:
    spec = LayerSpec.parse(text)
    assert spec.activation is not None
    vectors, size = -(-channels // spec.vector_size), spec.vector_size
    sign = torch.tensor([1, -1], dtype=torch.int8).repeat(8)[:, None, None]
    top = torch.full((16, vectors, size), spec.weight.qmax, dtype=torch.int8) * sign
    sigma = torch.full((16, vectors), spec.weight.scale_top, dtype=torch.int16)
    weight = kernels.pack_weight(top, sigma, torch.ones(16), spec.weight, (16, channels))
    largest = torch.uint8 if spec.activation.qmax > 127 else torch.int8
    shape = (1, 9, vectors, size) if spec.activation.has_vectors else (1, 9, 1, channels)
    scale = torch.full(shape[:3], spec.activation.scale_top, dtype=torch.int16) if spec.activation.has_vectors else None
    x = QuantizedTensor(torch.full(shape, spec.activation.qmax, dtype=largest), scale, torch.ones(1, 1))
    theirs = kernels.layer_outputs_of_codes(x, weight, spec, backend="eager")
    assert torch.equal(kernels.layer_outputs_of_codes(x, weight, spec, backend="cpu"), theirs)


def arguments() -> list[object]:
    spec = LayerSpec.parse("w4a8-s4/x")
    weight = packed(20, 40, spec.weight)
    return [
        torch.randn(1, 2, 40),
        torch.ones(1),
        *weight.tensors,
        torch.ones(20),
        None,
        20,
        "4-s4-v16",
        "8",
        "group",
        "requantize",
        0,
        "none",
    ]


@pytest.mark.parametrize(
    ("at", "wrong", "error", "message"),
    [
        (0, torch.randn(1, 2, 64), ShapeError, "weight_codes must have the shape (2, 4, 128), not (2, 3, 128)"),
        (0, torch.randn(2, 40), ShapeError, "x must have the shape (any, any, any), not (2, 40)"),
        (0, torch.zeros(1, 2, 40).double(), ShapeError, "x must be float32, bfloat16 or float16, not float64"),
        (0, torch.ones(1, 2, 40) / 0, NonFiniteError, "a tensor must be finite to be quantized, but it holds Inf"),
        (1, torch.ones(2), ShapeError, "activation_range must have the shape (1,), not (2,)"),
        (2, torch.ones(1, 3, 128).byte(), ShapeError, "weight_codes must have the shape (2, 3, 128), not (1, 3, 128)"),
        (2, torch.ones(2, 3, 128).char(), ShapeError, "weight_codes must be uint8, not int8"),
        (3, torch.ones(2, 3, 4).byte(), ShapeError, "weight_scale must have the shape (2, 3, 8), not (2, 3, 4)"),
        (4, torch.ones(19).int(), ShapeError, "weight_sums must have the shape (20,), not (19,)"),
        (5, torch.zeros(21), ShapeError, "weight_coarse must have the shape (20,), not (21,)"),
        (6, torch.zeros(19), ShapeError, "bias must have the shape (20,), not (19,)"),
        (7, torch.zeros(1, 2, 19), ShapeError, "residual must have the shape (1, 2, 20), not (1, 2, 19)"),
        (8, 48, ShapeError, "weight_codes must have the shape (3, 3, 128), not (2, 3, 128)"),
        (8, -1, ShapeError, "out_features must be at least 0, not -1"),
        (10, "4-s4-v32", SpecError, "weights and activations must have the same vector size, not 16 and 32"),
        (14, "tanh", SpecError, "function must be 'none', 'relu', 'relu6' or 'gelu', not 'tanh'"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(at: int, wrong: object, error: type[Exception], message: str) -> None:
    given = arguments()
    given[at] = wrong
    with pytest.raises(ValueError) as raised:
        torch.ops.vsquant.linear(*given)
    assert isinstance(native.translated(raised.value), error)
    assert str(native.translated(raised.value)) == message
