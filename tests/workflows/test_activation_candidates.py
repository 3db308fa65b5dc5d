"""Models whose activations take the best of three vector scales: simulated, integer, saved and refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vsquant
from vsquant import Calibrators, kernels
from vsquant.errors import CalibrationError, SpecError
from vsquant.nn import IntegerConv2d, IntegerLinear, IntegerMatmul, QuantMatmul
from vsquant.spec.layer import LayerSpec

THREE = Calibrators(candidates=3)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(20, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 18, 3, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(18 * 16, 10),
    ).eval()  # fmt: skip


def inputs(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    scale = torch.randn(count, 20, 1, 1, generator=generator).exp()
    return torch.randn(count, 20, 6, 6, generator=generator) * scale


@pytest.mark.parametrize("spec", ["w4a4u-s4/3", "w4a4-s4/4-v8-tensor", "w4a4u-s4/4-p6", "w4a4-s4/x", "w4a16-s4/x"])
def test_integer_layers_give_the_simulated_codes_and_sums(spec: str) -> None:
    x = inputs()
    model = vsquant.quantize(network(), spec, calibration=[x], calibrators=THREE)
    integer = vsquant.to_integer(model)
    torch.testing.assert_close(integer(x), model(x), rtol=1e-4, atol=1e-4)
    conv, activation = integer[0], model[0].spec.activation
    assert isinstance(conv, IntegerConv2d)
    if activation is None:
        return
    maps = x.movedim(1, -1).flatten(1, 2)
    quantized = kernels.quantize(maps, activation, coarse_range=model[0].activation_range, scale_mode="best-of-three")
    assert torch.equal(conv.input_codes(x).flatten(), quantized.codes.flatten())
    plain = kernels.quantize(maps, activation, coarse_range=model[0].activation_range)
    assert torch.equal(quantized.codes, plain.codes) == (not activation.two_level)


def test_native_products_are_those_of_the_eager_definition() -> None:
    layer = vsquant.quantize(nn.Linear(40, 24), "w4a4-s4/4-tensor", calibrators=THREE)
    integer = vsquant.to_integer(layer)
    assert isinstance(integer, IntegerLinear)
    choice = integer.choices["linear"]
    assert choice.backend == "eager" and "best of three" in choice.others["cpu"]
    x = torch.randn(3, 5, 40) * torch.randn(3, 5, 1).exp()
    whole = kernels.layer_outputs(
        x, integer.packed_weight, integer.spec, scale_mode="best-of-three", backend="eager",
        epilogue=kernels.Epilogue(integer.bias, None, "none"),
    )  # fmt: skip
    assert torch.equal(integer(x), whole)


def test_other_dtypes_samples_and_residuals() -> None:
    layer = vsquant.quantize(nn.Linear(40, 24), "w4a4-s4/4-tensor", calibrators=THREE)
    integer = vsquant.to_integer(layer)
    for shape in ((40,), (3, 40), (0, 5, 40)):
        x = torch.randn(*shape)
        torch.testing.assert_close(integer(x), layer(x))
    half = integer.to(torch.bfloat16)
    y = half(torch.randn(2, 3, 40).bfloat16(), residual=torch.ones(2, 3, 24).bfloat16())
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("spec", ["w4a4-s4/3-tensor", "w4a4-s4/3-token", "w8a4-s4/3-p5-tensor"])
def test_products_of_two_activations(spec: str) -> None:
    product, plain = (
        QuantMatmul(name="scores", spec=LayerSpec.parse(spec), scale_mode=mode, unsigned_a=False, ranges=None)
        for mode in ("best-of-three", "requantize")
    )
    a, b = torch.randn(2, 3, 5, 32), torch.randn(2, 3, 32, 7)
    integer = IntegerMatmul.of(product)
    assert integer.choices["matmul"].backend == "eager"
    torch.testing.assert_close(integer(a, b), product(a, b), rtol=1e-4, atol=1e-4)
    assert not torch.equal(product(a, b), plain(a, b))


def test_layers_of_a_chain_keep_their_floats() -> None:
    model = vsquant.quantize(network(), "w4a4u-s4/4", calibration=[inputs()], calibrators=THREE)
    plain, chained = (vsquant.to_integer(model, chain=chain) for chain in (False, True))
    assert torch.equal(plain(inputs()), chained(inputs()))
    reasons = str(vsquant.chain_report(chained))
    assert "chooses among three vector scales" in reasons


def test_saved_and_loaded(tmp_path) -> None:
    model = vsquant.quantize(network(), "w4a4u-s4/3", calibration=[inputs()], calibrators=THREE)
    vsquant.save(model, tmp_path / "model.safetensors")
    loaded = vsquant.load(tmp_path / "model.safetensors", network())
    assert loaded[0].scale_mode == "best-of-three"
    assert torch.equal(loaded(inputs()), model(inputs()))
    for each in (model, loaded):
        assert vsquant.quantization_record(each).method == "rtn + best-of-three activations"


def test_weights_are_those_without(tmp_path) -> None:
    one, three = (
        vsquant.quantize(network(), "w4a4u-s4/3", calibration=[inputs()], calibrators=each) for each in (None, THREE)
    )
    assert all(torch.equal(one[i].weight, three[i].weight) for i in (0, 2, 5))
    assert not torch.equal(one(inputs()), three(inputs()))
    searched = vsquant.quantize(
        network(), "w4a4u-s4/3", calibration=[inputs()], calibrators=THREE, method=vsquant.ScaleSearch()
    )
    assert searched[0].scale_mode == "best-of-three" and not torch.equal(searched[0].weight, one[0].weight)


def test_inputs_are_nearer_than_with_one_candidate() -> None:
    x = inputs(8).movedim(1, -1).flatten(1, 2)
    fmt = LayerSpec.parse("w4a4-s4/3").activation
    one, three = (
        (kernels.fake_quantize(x, fmt, scale_mode=mode) - x).square().sum() for mode in ("requantize", "best-of-three")
    )
    assert three < 0.95 * one


def test_what_is_refused() -> None:
    for candidates in (0, 2, "3"):
        with pytest.raises(CalibrationError, match=f"candidates must be 1 or 3 vector scales, not {candidates!r}"):
            Calibrators(candidates=candidates)
    with pytest.raises(SpecError, match="scale_mode must not be 'paper' with candidates=3"):
        vsquant.quantize(network(), "w4a4-s4/4-tensor", scale_mode="paper", calibrators=THREE)
    with pytest.raises(SpecError, match=r"not 'best-of-three', which is for activations; use calibrators=Calibrators"):
        vsquant.quantize(network(), "w4a4-s4/4-tensor", scale_mode="best-of-three")
