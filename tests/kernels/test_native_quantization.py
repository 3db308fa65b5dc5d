"""The quantization operators as others call them: into given buffers, compiled, exported, and with eager's errors."""

from __future__ import annotations

import pytest
import torch

from vsquant import kernels
from vsquant.errors import NonFiniteError, ScaleRangeError, ShapeError, SpecError
from vsquant.kernels import eager, native
from vsquant.spec.comparison import MXFP4
from vsquant.spec.formats import IntegerFormat

S4 = IntegerFormat(bits=4, scale=4)
FP16 = IntegerFormat(bits=4, scale="fp16")
G16 = IntegerFormat(bits=4, scale=4, coarse_fp16=True)
PLAIN = IntegerFormat(bits=8, scale=None, vector_size=None)
needs_native = pytest.mark.skipif(not native.status().available, reason="the native library was not built")


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("fmt", [S4, PLAIN, MXFP4], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("share", ["group", "row"])
def test_out_is_filled_whatever_it_held(fmt, dtype, share):
    x = normal(2, 3, 37).to(dtype)
    out = torch.full_like(x, torch.nan)
    assert kernels.fake_quantize(x, fmt, share=share, out=out) is out
    assert torch.equal(out, kernels.fake_quantize(x, fmt, share=share))


@pytest.mark.parametrize("share", ["group", "row"])
@pytest.mark.parametrize("range_", [None, torch.tensor([2.0])])
@pytest.mark.parametrize("fmt", [S4, PLAIN], ids=str)
def test_out_may_be_the_input(fmt, range_, share):
    x = normal(2, 90, 400)
    expected = kernels.fake_quantize(x, fmt, share=share, coarse_range=range_)
    kernels.fake_quantize(x, fmt, share=share, coarse_range=range_, out=x)
    assert torch.equal(x, expected)


def test_results_too_large_for_the_caches():
    x = normal(2, 1024, 4096)
    for share, range_ in (("row", None), ("group", None), ("group", torch.tensor([2.0, 3.0]))):
        out = torch.full_like(x, torch.nan)
        kernels.fake_quantize(x, S4, share=share, coarse_range=range_, out=out)
        assert torch.equal(out, eager.fake_quantize(x, range_, S4, share, "requantize"))


@pytest.mark.parametrize(
    "out",
    [torch.empty(2, 3, 31), torch.empty(2, 3, 32).half(), torch.empty(2, 32, 3).transpose(1, 2)],
    ids=["shape", "dtype", "strides"],
)
def test_an_out_that_does_not_fit_is_refused(out):
    with pytest.raises(ShapeError, match=r"out must be contiguous and torch\.float32 of shape \(2, 3, 32\) as x is"):
        kernels.fake_quantize(normal(2, 3, 32), S4, out=out)


def test_out_takes_no_gradient():
    x = normal(1, 2, 32).requires_grad_()
    with pytest.raises(SpecError, match="out must not be given where a gradient is wanted"):
        kernels.fake_quantize(x, S4, out=torch.empty(1, 2, 32))
    with torch.no_grad():
        kernels.fake_quantize(x, S4, out=torch.empty(1, 2, 32))


def test_codes_carry_no_gradient():
    quantized = kernels.quantize(normal(1, 2, 32).requires_grad_(), S4)
    assert not any(part.requires_grad for part in quantized)


@pytest.mark.parametrize("fmt", [S4, PLAIN, FP16, IntegerFormat(bits=4, signed=False, scale="fp32")], ids=str)
def test_single_level_and_plain_formats_leave_out_what_they_have_not(fmt):
    quantized = kernels.quantize(normal(2, 3, 40), fmt)
    assert (quantized.vector_scale is None) == (not fmt.has_vectors)
    assert (quantized.coarse_scale is None) == (not fmt.has_coarse_scale)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", ["group", "row"])
@pytest.mark.parametrize(("fmt", "range_"), [(FP16, None), (G16, None), (G16, torch.tensor([1.0, 1.0, 1e-9]))])
def test_a_scale_outside_fp16_is_refused_in_eagers_words(fmt, range_, share, dtype):
    x = normal(3, 4, 40).to(dtype)
    x[1, 2, 16:] = 1e-7
    x[2] = 1e-7
    for ours, theirs in ((kernels.fake_quantize, eager.fake_quantize), (kernels.quantize, eager.quantize)):
        with pytest.raises(ScaleRangeError) as plain:
            theirs(x, range_, fmt, share, "requantize")
        with pytest.raises(ScaleRangeError) as refused:
            ours(x, fmt, share=share, coarse_range=range_)
        assert str(refused.value) == str(plain.value)


@needs_native
@pytest.mark.parametrize(("values", "kind"), [([torch.inf, torch.nan], "NaN"), ([-torch.inf], "Inf")])
def test_nan_is_named_before_inf_and_both_before_scales(values, kind):
    x = torch.full((1, 2, 48), 1e-9)
    x[0, 1, -len(values) :] = torch.tensor(values)
    with pytest.raises(NonFiniteError, match=f"a tensor must be finite to be quantized, but it holds {kind}"):
        kernels.quantize(x, FP16)


@needs_native
def test_the_operator_itself_says_what_it_takes():
    operator = torch.ops.vsquant.fake_quantize.default
    for error, x, range_, arguments, message in (
        ("ShapeError", normal(2, 3), None, ("4-s4-v16", "group", "paper"), r"x must be \(groups, rows, length\)"),
        (
            "ShapeError",
            normal(1, 2, 3).double(),
            None,
            ("4", "group", "paper"),
            "x must be float32, bfloat16 or float16",
        ),
        ("ShapeError", normal(2, 3, 4), torch.ones(3), ("4", "row", "paper"), r"one value or one per group \(2\)"),
        ("SpecError", normal(2, 3, 4), None, ("4-s4", "row", "paper"), "a tensor format must read like"),
        ("SpecError", normal(2, 3, 4), None, ("4", "token", "paper"), "share must be 'group' or 'row', not 'token'"),
        (
            "SpecError",
            normal(2, 3, 4),
            None,
            ("4-s4-v16-top", "row", "paper"),
            "'paper' must not be combined with -top",
        ),
    ):
        with pytest.raises(ValueError, match=f"{error}: .*{message}"):
            operator(x, range_, *arguments)


@pytest.mark.parametrize("fmt", [S4, PLAIN, MXFP4], ids=str)
def test_a_compiled_graph_holds_the_operators_whole(fmt):
    def layer(x: torch.Tensor) -> torch.Tensor:
        y = kernels.fake_quantize(x * 2, fmt) + 1
        if isinstance(fmt, IntegerFormat):
            return y + kernels.dequantize(kernels.quantize(y, fmt, share="row"), y.shape[-1])
        return y

    def into(x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        return kernels.fake_quantize(x, fmt, out=out) + 1

    x = normal(2, 3, 40)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), layer(x))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(kernels.fake_quantize(x, fmt).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))
    with torch.no_grad():
        out = torch.full_like(x, torch.nan)
        compiled_into = torch.compile(into, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled_into(x, out), kernels.fake_quantize(x, fmt) + 1)
        assert torch.equal(out, kernels.fake_quantize(x, fmt))


def test_an_exported_graph_of_any_number_of_rows():
    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return kernels.fake_quantize(x, S4), kernels.quantize(x, S4, share="row").codes

    rows = torch.export.Dim("rows", min=2, max=512)
    program = torch.export.export(Layer(), (normal(2, 3, 40),), dynamic_shapes=({1: rows},))
    x = normal(2, 7, 40)
    for ours, theirs in zip(program.module()(x), Layer()(x), strict=True):
        assert torch.equal(ours, theirs)
