"""The operator itself: its registration, its gradient, its refusals, and that threads and strides change nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from vsquant import kernels
from vsquant.errors import NonFiniteError, ScaleRangeError, ShapeError, SpecError
from vsquant.kernels.eager import BLOCK_ELEMENTS, QuantizedTensor
from vsquant.kernels.format_text import format_text
from vsquant.spec.comparison import COMPARISON_FORMATS
from vsquant.spec.formats import IntegerFormat

S4 = IntegerFormat(bits=4, scale=4)
FORMATS = [
    S4,
    IntegerFormat(bits=4, signed=False, scale=6),
    IntegerFormat(bits=4, scale="fp16"),
    IntegerFormat(bits=8, scale=None, vector_size=None),
    IntegerFormat(bits=6, scale=4, full_range=True, scale_top_pow2=True, coarse_fp16=True),
    *(pair[0] for pair in COMPARISON_FORMATS.values()),
]
every_format = pytest.mark.parametrize("fmt", FORMATS, ids=format_text)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [32, 21])
@every_format
def test_pytorch_accepts_the_operator(fmt, length, dtype):
    x = normal(2, 3, length).to(dtype).requires_grad_()
    operators = torch.ops.vsquant
    if not isinstance(fmt, IntegerFormat):
        torch.library.opcheck(operators.fake_quantize_comparison.default, (x, format_text(fmt), "group"))
        return
    for share, range_ in (("group", torch.tensor([2.0])), ("row", None)):
        arguments = (format_text(fmt), share, "requantize")
        torch.library.opcheck(operators.fake_quantize.default, (x, range_, *arguments))
        constant = x.detach()
        torch.library.opcheck(operators.quantize.default, (constant, range_, *arguments))
        out = {"out": torch.full_like(constant, torch.nan)}
        torch.library.opcheck(operators.fake_quantize.out, (constant, range_, *arguments), out)


@every_format
def test_one_and_two_threads_give_the_same_bits(fmt, threads):
    x = normal(2, 40, 4096)
    assert x.numel() > BLOCK_ELEMENTS
    results = []
    for count in (1, 2):
        torch.set_num_threads(count)
        results.append(kernels.fake_quantize(x, fmt))
    assert torch.equal(*results)


@every_format
def test_strides_do_not_matter_and_the_result_is_contiguous(fmt):
    x = normal(6, 50, 4).permute(2, 0, 1)
    for view in (x, x[:, ::2, 3:41], x[:1].expand(4, -1, -1)):
        result = kernels.fake_quantize(view, fmt)
        assert result.is_contiguous()
        assert torch.equal(result, kernels.fake_quantize(view.clone(memory_format=torch.contiguous_format), fmt))


@every_format
def test_the_input_is_left_as_it_was(fmt):
    x = normal(2, 3, 32)
    before = x.clone()
    result = kernels.fake_quantize(x, fmt)
    assert torch.equal(x, before)
    assert result.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


@pytest.mark.parametrize("shape", [(0, 3, 20), (2, 0, 20), (2, 3, 0)])
@pytest.mark.parametrize("share", ["group", "row"])
@every_format
def test_empty_tensors(fmt, share, shape):
    assert kernels.fake_quantize(torch.ones(shape), fmt, share=share).shape == shape
    if isinstance(fmt, IntegerFormat):
        for range_ in (None, torch.ones(1)):
            quantized = kernels.quantize(torch.ones(shape), fmt, share=share, coarse_range=range_)
            assert kernels.dequantize(quantized, shape[2]).shape == shape


def test_the_gradient_is_straight_through():
    x = normal(2, 3, 20).requires_grad_()
    gradient = normal(2, 3, 20, seed=1)
    kernels.fake_quantize(x, S4, coarse_range=torch.tensor([0.1])).backward(gradient)
    assert torch.equal(x.grad, gradient)


@pytest.mark.parametrize("share", ["group", "row"])
def test_groups_do_not_see_each_other(share):
    x = normal(5, 3, 40)
    x[2] *= 100
    together = kernels.fake_quantize(x, S4, share=share)
    for group in range(5):
        assert torch.equal(together[group], kernels.fake_quantize(x[group : group + 1], S4, share=share)[0])


INTEGER_FORMATS = [fmt for fmt in FORMATS if isinstance(fmt, IntegerFormat)]


@pytest.mark.parametrize("share", ["group", "row"])
@pytest.mark.parametrize("fmt", INTEGER_FORMATS, ids=format_text)
def test_codes_and_scales_can_be_written_in_place(fmt, share):
    x = normal(2, 5, 37)
    expected = kernels.quantize(x, fmt, share=share)
    out = QuantizedTensor(*(None if part is None else torch.full_like(part, 113) for part in expected))
    assert kernels.quantize(x, fmt, share=share, out=out) is out
    for ours, theirs in zip(out, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.equal(ours, theirs)
    wrong = out._replace(codes=torch.empty(7, dtype=out.codes.dtype))
    with pytest.raises(ShapeError, match="out_codes must"):
        kernels.quantize(x, fmt, share=share, out=wrong)


def test_codes_are_small_integers():
    for fmt, dtype in ((S4, torch.int8), (IntegerFormat(bits=8, signed=False, scale=4), torch.uint8)):
        quantized = kernels.quantize(normal(2, 3, 40), fmt, coarse_range=torch.tensor([2.0]))
        assert quantized.codes.dtype == dtype
        assert quantized.codes.shape == (2, 3, 3, 16)
        assert quantized.vector_scale.dtype == torch.int16
        assert quantized.coarse_scale.shape == (2, 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("range_", [None, torch.tensor([2.0])])
@every_format
def test_nan_and_inf_are_refused_wherever_they_are(fmt, range_, value):
    kind = "NaN" if value != value else "Inf"
    range_ = range_ if isinstance(fmt, IntegerFormat) else None
    for place in ((0, 0, 0), (1, 2, 20)):
        x = normal(2, 3, 21)
        x[place] = value
        with pytest.raises(NonFiniteError, match=f"a tensor must be finite to be quantized, but it holds {kind}"):
            kernels.fake_quantize(x, fmt, coarse_range=range_)


@every_format
def test_a_sum_that_overflows_is_no_infinity(fmt):
    x = torch.full((1, 2, 32), 3e38)
    if "fp16" in format_text(fmt) or "g16" in format_text(fmt):
        with pytest.raises(ScaleRangeError):
            kernels.fake_quantize(x, fmt)
    else:
        assert (kernels.fake_quantize(x, fmt) > 1e38).all()


@pytest.mark.parametrize("call", [kernels.fake_quantize, kernels.quantize])
def test_wrong_shapes_are_refused(call):
    with pytest.raises(ShapeError, match=r"x must be \(groups, rows, length\), not of shape \(3, 16\)"):
        call(normal(3, 16), S4)
    for wrong in (torch.ones(3), torch.ones(()), torch.ones(2, 1)):
        with pytest.raises(ShapeError, match=r"coarse_range must be one value or one per group \(2\), not of shape"):
            call(normal(2, 3, 16), S4, coarse_range=wrong)


@pytest.mark.parametrize("call", [kernels.fake_quantize, kernels.quantize])
def test_undefined_scale_modes_are_refused(call):
    with pytest.raises(SpecError, match="scale_mode must be 'paper' or 'requantize', not 'search'"):
        call(normal(2, 3, 16), S4, scale_mode="search")
    with pytest.raises(SpecError, match="'paper' must not be combined with -top"):
        call(normal(2, 3, 16), FORMATS[4], scale_mode="paper")


def test_a_scale_outside_fp16_says_its_value_and_channel():
    x = torch.ones(3, 2, 16)
    x[1] = 1e-6
    with pytest.raises(ScaleRangeError, match=r"not 1\.43e-07 \(channel 1\); use fp32 scales or integer scales"):
        kernels.fake_quantize(x, IntegerFormat(bits=4, scale="fp16"))


def test_the_operator_in_a_graph_reads_as_its_format():
    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return kernels.fake_quantize(x, FORMATS[1])

    graph = torch.export.export(Layer(), (normal(2, 3, 16),)).graph
    (call,) = (node for node in graph.nodes if node.op == "call_function")
    assert call.target is torch.ops.vsquant.fake_quantize.default
    assert call.args[2:] == ("4u-s6-v16", "group", "requantize")
