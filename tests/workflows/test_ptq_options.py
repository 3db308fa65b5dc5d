from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

import vsquant
from vsquant import Calibrators, Recipe, Rule, reference
from vsquant.calibrate import CALIBRATORS, weight_range
from vsquant.errors import CalibrationError, NonFiniteError, RecipeError, ScaleRangeError
from vsquant.nn import QuantEmbedding, QuantLinear


def specs(model: nn.Module) -> dict[str, str | None]:
    return {layer.name: layer.spec for layer in vsquant.quantization_record(model).layers}


@pytest.mark.parametrize("spec", ["w3a8-full", "w3a8-g16", "w3a8-full-g16", "w3a8"])
def test_weight_calibrators_clip_conventional_formats_only(spec: str) -> None:
    model = nn.Linear(32, 4)
    with torch.no_grad():
        model.weight[0, 0] = 0.3
        model.weight[3] = 0.0
    clipped, whole = (
        vsquant.quantize(model, f"{spec}-tensor", calibrators=Calibrators(weight=method)) for method in ("mse", "max")
    )
    fmt = clipped.spec.weight
    ranges = weight_range(model.weight.detach(), fmt, "mse").numpy()
    assert ranges[0] < 0.3 and ranges[3] == 0.0
    nonzero = reference.quantize(model.weight[:3].detach().numpy(), fmt, coarse_range=ranges[:3])
    np.testing.assert_array_equal(clipped.weight_codes[:3].numpy(), nonzero.codes)
    np.testing.assert_array_equal(clipped.weight_coarse_scale[:3].numpy(), nonzero.coarse_scale)
    assert (clipped.weight_codes[3] == 0).all()
    errors = [float((layer.weight - model.weight.detach()).square().sum()) for layer in (clipped, whole)]
    assert errors[0] < errors[1]
    vectors = [
        vsquant.quantize(model, "w3a8-s4/8-tensor", calibrators=Calibrators(weight=method)).weight
        for method in ("mse", "max")
    ]
    assert torch.equal(*vectors)


def test_activation_calibrators_clip_where_there_are_no_vectors() -> None:
    outlier = torch.cat([torch.randn(4095), torch.tensor([40.0])]).view(-1, 16)
    largest = {}
    for name in CALIBRATORS:
        for spec in ("w8a4", "w8a4-s4/6"):
            chosen = Calibrators(activation=name)
            layer = vsquant.quantize(nn.Linear(16, 4), spec, calibration=[outlier], calibrators=chosen)
            largest[name, spec] = layer.activation_range.item()
    assert {value for (_, spec), value in largest.items() if spec == "w8a4-s4/6"} == {40.0}
    assert largest["max", "w8a4"] == 40.0
    assert largest["mse", "w8a4"] < 10.0 > largest["entropy", "w8a4"]


def test_embeddings_are_quantized_where_asked_by_row() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 24), nn.Linear(24, 4))
    recipe = Recipe(rules=(Rule(type="embedding", spec="w8a8-s6/8"), Rule(spec="w8a8-s6/8")))
    indices = torch.arange(10).view(2, 5)
    quantized = vsquant.quantize(model, recipe, calibration=[indices])
    assert isinstance(quantized[0], QuantEmbedding)
    assert quantized[0].weight_coarse_scale.shape == (10,)
    assert specs(quantized) == {"0": "w8a16-s6/x-v16", "1": "w8a8-s6/8-v16"}
    plain = vsquant.quantize(model, "w8a8-s6/8", calibration=[indices])
    assert isinstance(plain[0], nn.Embedding) and specs(plain)["0"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "mean"}, "mean"),
        ({"weight": "entropy"}, "weight must be one of max, mse, not 'entropy'"),
    ],
)
def test_unknown_calibrators_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Calibrators(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w4a4-s4/6-tensor", "w8a8-g16"])
def test_half_precision_models_are_quantized_as_their_values_in_float32(dtype: torch.dtype, spec: str) -> None:
    torch.manual_seed(0)
    half = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 8, 3), nn.Flatten(), nn.Linear(128, 5)).to(dtype)
    full = copy.deepcopy(half).to(torch.float32)
    x = torch.randn(4, 3, 8, 8, dtype=dtype)
    ours = vsquant.quantize(half, spec, calibration=[x])
    theirs = vsquant.quantize(full, spec, calibration=[x.to(torch.float32)])
    for (_, a), (_, b) in zip(vsquant.quantized_layers(ours), vsquant.quantized_layers(theirs), strict=True):
        assert torch.equal(a.weight_codes, b.weight_codes)
        assert a.weight_coarse_scale.numpy().tobytes() == b.weight_coarse_scale.numpy().tobytes()
        if a.weight_vector_scale is not None:
            assert torch.equal(a.weight_vector_scale, b.weight_vector_scale)
    first, second = ours[0], theirs[0]
    assert torch.equal(first(x), second(x.to(torch.float32)).to(dtype))
    assert ours(x).dtype == dtype


def test_the_model_itself_may_be_the_layer() -> None:
    layer = nn.Linear(16, 4)
    quantized = vsquant.quantize(layer, "w4a4-s4/6-token")
    assert isinstance(quantized, QuantLinear) and isinstance(layer, nn.Linear)


def test_calibration_batches_are_taken_one_at_a_time() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def batches() -> Iterator[torch.Tensor]:
        nonlocal most
        for _ in range(6):
            batch = torch.randn(4, 16)
            alive.append(weakref.ref(batch))
            most = max(most, sum(ref() is not None for ref in alive))
            yield batch

    quantized = vsquant.quantize(nn.Sequential(nn.Linear(16, 4)), "w4a8-s4/8", calibration=batches())
    assert vsquant.quantization_record(quantized).calibration_samples == 24
    assert len(alive) == 6
    assert most <= 3, "the first, the one in use and the one being made"


def test_a_request_that_would_quantize_nothing_is_an_error() -> None:
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    with pytest.raises(RecipeError, match=r"at least one layer must be quantized, not none; self_attn\.out_proj"):
        vsquant.quantize(model, "w4a8-s4/8-token")


def test_a_recipe_that_skips_everything_is_granted() -> None:
    quantized = vsquant.quantize(nn.Sequential(nn.Linear(16, 4)), Recipe(rules=(Rule(skip=True),)))
    assert not list(vsquant.quantized_layers(quantized))


def test_layers_of_unsupported_kinds_are_reported() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(16, 8), "up": nn.ConvTranspose2d(4, 4, 2), "head": nn.Linear(16, 4)})
    model.forward = lambda x: model["head"](x)
    quantized = vsquant.quantize(model, "w4a8-s4/8-token")
    reports = {layer.name: layer for layer in vsquant.quantization_record(quantized).layers}
    assert {name: reports[name].kind for name in ("lstm", "up")} == {"lstm": "LSTM", "up": "ConvTranspose2d"}
    assert reports["up"].note.startswith("kind not supported: left floating point; Linear, Conv1d, ")
    assert reports["up"].weights == 64
    assert reports["head"].spec is not None


def test_a_bias_that_is_not_finite_is_named() -> None:
    model = nn.Sequential(nn.Linear(16, 4))
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    with pytest.raises(NonFiniteError, match="bias of layer '0': a tensor must be finite"):
        vsquant.quantize(model, "w4a16-s4/x")


@pytest.mark.parametrize(("spec", "advice"), [("w4a8-s4/8-g16", ", which means without -g16"), ("w4a8-sfp16/fp16", "")])
def test_a_scale_beyond_fp16_says_the_way_out(spec: str, advice: str) -> None:
    linear = nn.Linear(64, 8)
    linear.weight.data *= 1e-6
    with pytest.raises(ScaleRangeError, match="kept as fp16 must lie between") as raised:
        vsquant.quantize(linear, spec, calibration=[torch.randn(4, 64)])
    assert str(raised.value).endswith(f"for this layer{advice}")
