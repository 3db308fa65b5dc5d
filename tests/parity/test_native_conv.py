"""Native convolutions give the eager backend's bits: every walk over the input, every kind of scale."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vsquant import LayerSpec, kernels
from vsquant.errors import NonFiniteError, ShapeError, SpecError
from vsquant.kernels import Epilogue, PackedWeight, Target, Walk, native
from vsquant.kernels.eager import QuantizedTensor
from vsquant.kernels.eager_products import quantize_map
from vsquant.kernels.format_text import parse_format
from vsquant.nn import quantize_weight
from vsquant.spec.formats import IntegerFormat

pytestmark = pytest.mark.skipif(not native.LIBRARY.is_file(), reason="the native library was not built")

SPECS = [
    "w4a8-s4/x",
    "w4a8-s4/x-tensor",
    "w4a8u-s4/x-full",
    "w4a4-s4/4-tensor",
    "w4a4u-s4/4",
    "w4a4u-s4/6",
    "w4a8-s4/8",
    "w4a8-s4/10-tensor",
    "w4a8-s8/x",
    "w8a8-tensor",
    "w8a8u",
    "w8a8-s8/8",
    "w8a8-s10/10-tensor",
    "w2a2-s2/2-v48",
    "w3a5-s5/x-full-top",
    "w6a4-sx/4-v32",
    "w5a6-s8/3-v64-tensor",
    "w4a4-s4/6-p4-tensor",
    "w8a4-s9/10-p3-top",
    "w4a8-s4/x-v8",
    "w4a4-s4/4-v2-tensor",
    "w8a8u-sx/8-v24",
    "w4a4-s4/6-p4-v12-tensor",
    "w4a8-sfp16/x",
    "w4a8-s4/fp32-v24",
    "w8a8u-sfp32/fp32",
    "w8a4-sx/fp32",
]
STEM = Walk(kernel=(7, 7), stride=(2, 2), padding=(3, 3, 3, 3))
SAME = Walk(kernel=(3, 3), padding=(1, 1, 1, 1))
WALKS: dict[str, tuple[Walk, int, int, tuple[int, int]]] = {
    "1x1": (Walk(), 40, 24, (5, 4)),
    "1x1 whole vectors": (Walk(), 64, 64, (3, 7)),
    "1x1 stride 2": (Walk(stride=(2, 2)), 32, 33, (5, 5)),
    "1x1 padded": (Walk(padding=(1, 0, 0, 2)), 32, 33, (5, 5)),
    "3x3": (SAME, 20, 17, (6, 5)),
    "3x3 on one pixel": (SAME, 64, 150, (1, 1)),
    "stride, dilation, uneven padding": (
        Walk(kernel=(3, 2), stride=(2, 1), padding=(0, 1, 2, 0), dilation=(2, 3)),
        33,
        8,
        (9, 8),
    ),
    "2 groups": (Walk(kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1), groups=2), 40, 6, (7, 7)),
    "2 groups as long, padded, as a padded pixel": (Walk(kernel=(3, 3), groups=2), 20, 24, (5, 6)),
    "3 groups of a line": (Walk(kernel=(1, 5), padding=(0, 0, 2, 2), groups=3), 48, 51, (1, 9)),
    "4 groups of whole vectors": (Walk(kernel=(3, 3), padding=(1, 1, 1, 1), groups=4), 64, 64, (4, 5)),
    "8 groups of 4 channels": (Walk(kernel=(3, 3), padding=(1, 1, 1, 1), groups=8), 32, 32, (6, 6)),
    "stem": (STEM, 3, 70, (13, 14)),
    "stem, stride beyond the kernel": (Walk(kernel=(3, 3), stride=(4, 4)), 3, 16, (9, 9)),
    "stem, 6 channels": (Walk(kernel=(5, 4), stride=(2, 1), padding=(2, 1, 0, 3), dilation=(2, 1)), 6, 5, (11, 8)),
    "stem, one channel": (Walk(kernel=(2, 2)), 1, 5, (2, 2)),
}
DEPTHWISE: dict[str, tuple[Walk, int, int, tuple[int, int]]] = {
    "3x3": (Walk(kernel=(3, 3), padding=(1, 1, 1, 1), groups=20), 20, 20, (6, 7)),
    "whole blocks": (Walk(kernel=(3, 3), padding=(1, 1, 1, 1), stride=(2, 2), groups=144), 144, 144, (9, 9)),
    "5x5, three outputs a channel": (
        Walk(kernel=(5, 5), padding=(2, 2, 2, 2), stride=(2, 2), groups=10),
        10,
        30,
        (9, 6),
    ),
    "dilation, a line": (Walk(kernel=(1, 3), padding=(0, 0, 2, 2), dilation=(1, 2), groups=33), 33, 33, (1, 11)),
    "one pixel": (Walk(kernel=(3, 3), padding=(1, 1, 1, 1), groups=48), 48, 48, (1, 1)),
}
DEPTHWISE_SPECS = ["w8a8-tensor", "w8a8u", "w4a8", "w3a5u-tensor", "w8a8-full"]
CHAINED = ["w4a8-s4/x", "w4a4u-s4/6", "w8a8-tensor", "w4a8-sfp32/6-v20"]
TARGETS = ["4-s4-v16", "4u-s6-v16", "8u", "8-s4-v32", "4-s4-v8", "6-sfp32-v16"]


def poisoned_like(result: Tensor | None) -> Tensor | None:
    """Memory for such a result that holds anything but it."""
    return None if result is None else torch.full_like(result, float("nan") if result.is_floating_point() else 113)


def normal(*shape: int, unsigned: bool = False) -> Tensor:
    x = torch.randn(*shape) * torch.randn(shape[-1]).exp()
    return x.abs() if unsigned else x


def packed(walk: Walk, channels: int, outputs: int, fmt: IntegerFormat) -> PackedWeight:
    weight = normal(outputs, channels // walk.groups, *walk.kernel)
    q = quantize_weight(weight + weight.sign() / 64, fmt, name="layer")  # no scale too small for fp16
    return kernels.pack_weight(q.codes, q.vector_scale, q.coarse_scale, fmt, tuple(weight.shape), groups=walk.groups)


def image(spec: LayerSpec, samples: int, size: tuple[int, int], channels: int) -> Tensor:
    assert spec.activation is not None
    return normal(samples, *size, channels, unsigned=not spec.activation.signed)


def codes(spec: LayerSpec, x: Tensor, groups: int) -> QuantizedTensor:
    assert isinstance(spec.activation, IntegerFormat)
    limit = torch.tensor([2.5]) if spec.gamma == "static" else None
    return quantize_map(x, limit, spec.activation, "group", "requantize", groups)


ALL_WALKS = WALKS | {f"depthwise {name}": walk for name, walk in DEPTHWISE.items()}
CASES = [(text, name) for text in [*SPECS, CHAINED[-1]] for name in WALKS] + [
    (text, f"depthwise {name}") for text in DEPTHWISE_SPECS for name in DEPTHWISE
]


@pytest.mark.parametrize(("text", "walk_name"), CASES)
def test_floats(text: str, walk_name: str) -> None:
    spec, (walk, channels, outputs, size) = LayerSpec.parse(text), ALL_WALKS[walk_name]
    weight, limit = (
        packed(walk, channels, outputs, spec.weight),
        torch.tensor([3.7]) if spec.gamma == "static" else None,
    )
    for samples, dtype in [(2, torch.float32), (1, torch.bfloat16), (0, torch.float32)]:
        x = image(spec, samples, size, channels).to(dtype)
        shape = (samples, *walk.output_size(*size), outputs)
        epilogue = Epilogue(bias=torch.randn(outputs), residual=torch.randn(shape).to(dtype), function="relu")
        theirs = kernels.layer_outputs(
            x, weight, spec, activation_range=limit, epilogue=epilogue, walk=walk, backend="eager"
        )
        out = torch.full(shape, float("nan"), dtype=dtype)
        for given in (None, out):
            ours = kernels.layer_outputs(
                x, weight, spec, activation_range=limit, epilogue=epilogue, walk=walk, backend="cpu", out=given
            )
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("text", "walk_name"), CASES)
def test_codes(text: str, walk_name: str) -> None:
    spec, (walk, channels, outputs, size) = LayerSpec.parse(text), ALL_WALKS[walk_name]
    weight = packed(walk, channels, outputs, spec.weight)
    for samples in (2, 0):
        x = codes(spec, image(spec, samples, size, channels), walk.groups)
        epilogue = Epilogue(bias=torch.randn(outputs), function="relu6")
        theirs = kernels.layer_outputs_of_codes(x, weight, spec, epilogue=epilogue, walk=walk, backend="eager")
        out = torch.full(theirs.shape, float("nan"))
        for given in (None, out):
            ours = kernels.layer_outputs_of_codes(
                x, weight, spec, epilogue=epilogue, walk=walk, backend="cpu", out=given
            )
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("text", "walk_name"), [case for case in CASES if case[0] in CHAINED])
def test_codes_of_the_next_layer(text: str, walk_name: str, target: str) -> None:
    spec, (walk, channels, outputs, size) = LayerSpec.parse(text), ALL_WALKS[walk_name]
    fmt = parse_format(target)
    assert isinstance(fmt, IntegerFormat)
    aim = Target(format=fmt, range=torch.tensor([30.0]))
    weight = packed(walk, channels, outputs, spec.weight)
    x = codes(spec, image(spec, 2, size, channels), walk.groups)
    for keep_float in (False, True):
        theirs, their_y = kernels.layer_codes(x, weight, spec, aim, walk=walk, keep_float=keep_float, backend="eager")
        ours, y = kernels.layer_codes(x, weight, spec, aim, walk=walk, keep_float=keep_float, backend="cpu")
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
                walk=walk,
                keep_float=keep_float,
                backend=backend,
                out=out,  # type: ignore[arg-type]
            )
            assert given is out
            for part, theirs_part in zip((*out[0], out[1]), (*theirs, their_y), strict=True):
                assert theirs_part is None if part is None else torch.equal(part, theirs_part)


@pytest.mark.parametrize("walk_name", ALL_WALKS)
def test_threads_and_reused_memory_give_the_same_bits(walk_name: str) -> None:
    walk, channels, outputs, size = ALL_WALKS[walk_name]
    spec = LayerSpec.parse("w8a8" if walk_name not in WALKS else "w4a8-s4/8")
    weight, x = packed(walk, channels, outputs, spec.weight), image(spec, 3, size, channels)
    limit = torch.tensor([2.0])
    one = kernels.layer_outputs(x, weight, spec, activation_range=limit, walk=walk, backend="cpu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for _ in range(3):
            y = kernels.layer_outputs(x, weight, spec, activation_range=limit, walk=walk, backend="cpu")
            assert torch.equal(y, one)
    finally:
        torch.set_num_threads(before)


def arguments() -> list[object]:
    spec = LayerSpec.parse("w4a8-s4/x")
    weight = packed(SAME, 40, 20, spec.weight)
    x = torch.randn(1, 4, 5, 40)
    texts = ["4-s4-v16", "8", "group", "requantize", 0, "none"]
    geometry = [[3, 3], [1, 1], [1, 1, 1, 1], [1, 1], 1]
    return [x, torch.ones(1), *weight.tensors, None, None, 20, *texts, *geometry]


@pytest.mark.parametrize(
    ("at", "wrong", "error", "message"),
    [
        (0, torch.randn(1, 4, 40), ShapeError, "x must have the shape (any, any, any, any), not (1, 4, 40)"),
        (0, torch.randn(1, 4, 5, 0), ShapeError, "x must have channels, not 0 of them"),
        (0, torch.ones(1, 4, 5, 40) / 0, NonFiniteError, "a tensor must be finite to be quantized, but it holds Inf"),
        (11, "row", SpecError, "share must be 'group' for a convolution, not 'row'"),
        (15, [3], ShapeError, "kernel must have 2 sizes, not 1"),
        (15, [5, 3], ShapeError, "weight_codes must have the shape (2, 45, 128), not (2, 27, 128)"),
        (15, [7, 3], ShapeError, "the kernel must fit into the padded input, not span more than its 4 x 5"),
        (16, [0, 1], ShapeError, "stride must lie between 1 and 32768, not 0"),
        (17, [1, 1, -1, 1], ShapeError, "padding must lie between 0 and 32768, not -1"),
        (19, 3, ShapeError, "groups must divide 40 input and 20 output channels, not be 3"),
        (19, 0, ShapeError, "groups must divide 40 input and 20 output channels, not be 0"),
    ],
)
def test_wrong_arguments_are_named(at: int, wrong: object, error: type[Exception], message: str) -> None:
    given = arguments()
    given[at] = wrong
    with pytest.raises(ValueError) as raised:
        torch.ops.vsquant.conv2d(*given)
    assert isinstance(native.translated(raised.value), error)
    assert str(native.translated(raised.value)) == message
