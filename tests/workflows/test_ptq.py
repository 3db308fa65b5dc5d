from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant import Recipe, Rule, reference
from vsquant.errors import CalibrationError, NonFiniteError, RecipeError, ShapeError, SpecError, VsquantError
from vsquant.workflows.ptq import NOTHING_SEEN, permute_prepared, plan, prepare, quantize_prepared


class Cnn(nn.Module):
    """A stem, a depthwise convolution, a shared layer and a head; runs the head's neighbour before the stem's."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(32, 10)
        self.stem = nn.Conv2d(3, 32, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, groups=32)
        self.mix = nn.Conv2d(32, 32, 1)
        self.again = self.mix

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem_bn(self.stem(x)))
        x = torch.relu(self.depthwise(x))
        x = self.again(self.mix(x))
        return self.head(x.mean(dim=(2, 3)))


def cnn() -> Cnn:
    torch.manual_seed(0)
    model = Cnn()
    nn.init.uniform_(model.stem_bn.weight, 0.5, 2.0)
    nn.init.normal_(model.stem_bn.running_mean)
    nn.init.uniform_(model.stem_bn.running_var, 0.5, 2.0)
    return model.eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


BATCHES = [images()[:2], images()[2:]]


@torch.no_grad()
def error(model: nn.Module, quantized: nn.Module) -> float:
    expected = model(images())
    return float((quantized(images()) - expected).norm() / expected.norm())


def layer_specs(model: nn.Module) -> dict[str, str | None]:
    return {layer.name: layer.spec for layer in vsquant.quantization_record(model).layers}


def snapshot(model: nn.Module) -> tuple[dict[str, Tensor], str, bool, int]:
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return {name: x.clone() for name, x in model.state_dict().items()}, str(model), model.training, hooks


def assert_unchanged(model: nn.Module, before: tuple[dict[str, Tensor], str, bool, int]) -> None:
    state, text, training, hooks = snapshot(model)
    assert (text, training, hooks) == before[1:]
    assert all(torch.equal(state[name], x) for name, x in before[0].items()) and state.keys() == before[0].keys()


@pytest.mark.parametrize(
    ("spec", "bound"),
    [
        ("w8a8-s8/8", 0.02),
        ("w8a8u-s6/6-v32-tensor", 0.05),
        ("w6a6u-s6/6-p8", 0.1),
        ("w8a8-full-g16", 0.05),
        ("w8a8-s8/8-top-full", 0.05),
        ("w8a16-sfp16/x", 0.02),
        ("nvfp4", 0.4),
        ("mxint8", 0.1),
        ("int4-g128", 0.4),
    ],
)
def test_outputs_stay_near_those_of_the_float_model(spec: str, bound: float) -> None:
    model = cnn()
    before = snapshot(model)
    quantized = vsquant.quantize(model, spec, calibration=BATCHES)
    assert 0 < error(model, quantized) < bound
    assert_unchanged(model, before)


def test_the_record_tells_every_layer() -> None:
    quantized = vsquant.quantize(cnn(), "w4a4u-s4/6", calibration=BATCHES)
    record = vsquant.quantization_record(quantized)
    assert layer_specs(quantized) == {
        "head": "w4a4-s4/6-v16",
        "stem": "w4a4-s4/6-v16",
        "depthwise": "w8a8u",
        "mix": "w4a4-s4/6-v16",
    }
    notes = {layer.name: layer.note for layer in record.layers}
    assert notes["depthwise"] == "groups of 1 channels are fewer than V=16: fallback"
    assert notes["mix"] == "shared with again; input goes below zero: signed"
    assert (record.folded, record.unfolded) == ((("stem", "stem_bn"),), ())
    assert (record.calibration_samples, record.scale_mode) == (4, "requantize")
    assert {layer.name: layer.padding for layer in record.layers}["stem"] == 13 / 16


def test_a_shared_layer_is_unsigned_only_if_all_its_inputs_are() -> None:
    specs = layer_specs(vsquant.quantize(cnn(), "w4a4u", calibration=BATCHES))
    assert (specs["mix"], specs["depthwise"]) == ("w4a4", "w4a4u")


def test_batch_norms_that_stay_are_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.BatchNorm2d(16)).eval()
    record = vsquant.quantization_record(vsquant.quantize(model, "w8a8-tensor"))
    assert record.folded == ()
    assert record.unfolded == (("2", "its input is not the output of a convolution or linear layer"),)


def test_training_mode_is_kept_and_disturbs_nothing() -> None:
    model = cnn().train()
    before = snapshot(model)
    quantized = vsquant.quantize(model, "w8a8-s8/8", calibration=BATCHES)
    assert_unchanged(model, before)
    assert not quantized.training
    assert torch.equal(quantized(images()), vsquant.quantize(cnn(), "w8a8-s8/8", calibration=BATCHES)(images()))


@pytest.mark.parametrize("policy", ["8bit", "float"])
def test_first_and_last_are_those_executed(policy: str) -> None:
    for spec, eight in (("w4a4-s4/6", "w8a8"), ("w4a4-sfp32/fp32", "w8a8"), ("w4a4-s4/6-tensor", "w8a8-tensor")):
        specs = layer_specs(vsquant.quantize(cnn(), spec, calibration=BATCHES, first_last=policy))
        assert specs["stem"] == specs["head"] == (eight if policy == "8bit" else None)
        assert specs["mix"] == str(vsquant.LayerSpec.parse(spec))


@pytest.mark.parametrize("policy", ["8bit", "float"])
def test_first_and_last_need_data_to_be_known(policy: str) -> None:
    with pytest.raises(CalibrationError, match=f"first_last: {policy} needs to see which layer runs first"):
        vsquant.quantize(nn.Linear(4, 4), "w4a4-s4/6-tensor", first_last=policy)
    assert vsquant.quantize(nn.Linear(4, 4), "w4a4-s4/6-tensor") is not None


def test_where_nothing_needs_data_one_batch_tells_the_order() -> None:
    calls = []
    model = cnn()
    model.stem.register_forward_hook(lambda *args: calls.append(1))
    quantized = vsquant.quantize(model, "w4a4-s4/6-tensor", calibration=BATCHES, first_last="float")
    assert layer_specs(quantized)["stem"] is None
    assert len(calls) <= 2


def test_a_fallback_is_calibrated_where_the_request_needs_no_data() -> None:
    quantized = vsquant.quantize(cnn(), "w4a4-sfp32/fp32", calibration=BATCHES)
    assert layer_specs(quantized)["depthwise"] == "w8a8"
    with pytest.raises(CalibrationError, match="layer 'depthwise' with w8a8 needs its input observed"):
        vsquant.quantize(cnn(), "w4a4-sfp32/fp32")


@pytest.mark.parametrize("mode", ["requantize", "paper"])
def test_weights_are_those_of_the_reference_on_the_folded_model(mode: str) -> None:
    quantized = vsquant.quantize(cnn(), "w4a4-s4/6", calibration=BATCHES, scale_mode=mode)
    folded = prepare(cnn(), BATCHES).model
    for name, layer in vsquant.quantized_layers(quantized):
        weight = folded.get_submodule(name).weight.detach()
        rows = reference.conv_weight_rows(
            weight.reshape(*weight.shape, *[1] * (4 - weight.dim())).numpy(), layer.spec.weight.vector_size
        )
        theirs = reference.quantize(rows, layer.spec.weight, "row", mode)
        np.testing.assert_array_equal(layer.weight_codes.flatten().numpy(), theirs.codes.ravel())


def test_preparing_once_serves_many_specs_and_caches_weights() -> None:
    prepared = prepare(cnn(), BATCHES)
    before = snapshot(prepared.model)
    cache: dict = {}
    first = quantize_prepared(prepared, Recipe.from_spec("w4a4-s4/6"), weight_cache=cache)
    second = quantize_prepared(prepared, Recipe.from_spec("w4a8-s4/6"), weight_cache=cache)
    assert {key[1] for key in cache} == {str(first.mix.spec.weight), str(first.depthwise.spec.weight)}
    assert first.mix.weight_codes.data_ptr() == second.mix.weight_codes.data_ptr()
    assert torch.equal(first(images()), vsquant.quantize(cnn(), "w4a4-s4/6", calibration=BATCHES)(images()))
    assert_unchanged(prepared.model, before)


def test_a_plan_needs_no_data_until_a_layer_does() -> None:
    model = cnn()
    plans = plan(model, NOTHING_SEEN, Recipe.from_spec("w4a4-s4/6-tensor"))
    assert [layer.match.name for layer in plans] == ["head", "stem", "depthwise", "mix"]
    with pytest.raises(CalibrationError, match="needs calibration data that reaches it"):
        plan(model, NOTHING_SEEN, Recipe.from_spec("w4a4-s4/6"))


def test_progress_is_told_of_both_steps() -> None:
    steps = []
    vsquant.quantize(cnn(), "w4a4-s4/6", calibration=BATCHES, progress=lambda *step: steps.append(step))
    assert steps[:3] == [("calibrating", n, 2) for n in range(3)]
    assert steps[3:] == [("quantizing weights", n, 4) for n in range(5)]


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ([], "calibration data must hold at least one batch, not none"),
        (images(), r"calibration must be an iterable of batches, not one Tensor; pass \[batch\]"),
        ({"x": images()}, r"calibration must be an iterable of batches, not one dict; pass \[batch\]"),
        (7, "calibration must be an iterable of batches, not one int"),
        ([images(), "images"], "calibration batch 2 must be a tensor, a tuple of arguments or a mapping .* not str"),
        ([{"image": images()}], "calibration batch 1 must be what the model takes .* not this dict"),
        ([(images(), torch.zeros(4))], "a calibration batch must hold the arguments of the model: too many positional"),
        (None, "layer 'head' with w4a4-s4/6-v16 needs its input observed; pass calibration=batches"),
    ],
)
def test_bad_calibration_data_is_refused(calibration: object, message: str) -> None:
    model = cnn()
    before = snapshot(model)
    with pytest.raises(CalibrationError, match=message):
        vsquant.quantize(model, "w4a4-s4/6", calibration=calibration)  # type: ignore[arg-type]
    assert_unchanged(model, before)


@pytest.mark.parametrize("batch", [(images(),), [images()], {"x": images()}, images()])
def test_batches_of_every_form_give_the_same_bits(batch: object) -> None:
    quantized = vsquant.quantize(cnn(), "w4a4-s4/6", calibration=iter([batch]))
    expected = vsquant.quantize(cnn(), "w4a4-s4/6", calibration=[images()])
    assert torch.equal(quantized(images()), expected(images()))


@pytest.mark.parametrize("name", ["stem", "depthwise", "mix", "head"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("spec", ["w4a4-s4/6", "w4a4-s4/6-tensor", "nvfp4", "w8a8u"])
def test_bad_weights_name_their_own_layer(name: str, value: float, spec: str) -> None:
    model = cnn()
    model.get_submodule(name).weight.data.view(-1)[5] = value
    before = str(model)
    with pytest.raises(
        NonFiniteError, match=f"weight of layer '{name}': .* it holds {'NaN' if value != value else 'Inf'}"
    ):
        vsquant.quantize(model, spec, calibration=BATCHES)
    assert str(model) == before


def test_a_bad_batch_norm_names_the_layer_it_is_folded_into() -> None:
    model = cnn()
    model.stem_bn.running_var[3] = float("nan")
    with pytest.raises(NonFiniteError, match="weight of layer 'stem'"):
        vsquant.quantize(model, "w4a4-s4/6", calibration=BATCHES)


def test_bad_activations_name_the_layer() -> None:
    bad = images()
    bad[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="the input of 'stem' must be finite"):
        vsquant.quantize(cnn(), "w4a4-s4/6", calibration=[bad])
    quantized = vsquant.quantize(cnn(), "w4a4-s4/6", calibration=BATCHES)
    with pytest.raises(NonFiniteError, match=r"input of layer 'stem': .* it holds NaN"):
        quantized(bad)


def test_wrong_shapes_name_the_layer() -> None:
    with pytest.raises(ShapeError, match="input of layer 'stem' must have 3 channels, not 4"):
        vsquant.quantize(cnn(), "w4a4-s4/6", calibration=[torch.zeros(1, 4, 8, 8)])
    quantized = vsquant.quantize(cnn(), "w4a4-s4/6", calibration=BATCHES)
    with pytest.raises(ShapeError, match="input of layer 'stem' must have 3 channels, not 4"):
        quantized(torch.zeros(1, 4, 8, 8))


def test_a_layer_that_no_batch_reaches_is_named() -> None:
    model = cnn()
    model.extra = nn.Linear(4, 4)
    with pytest.raises(CalibrationError, match="layer 'extra' with w4a4-s4/6-v16 needs calibration data that reaches"):
        vsquant.quantize(model, "w4a4-s4/6", calibration=BATCHES)
    skipped = Recipe(rules=(Rule(match="extra", skip=True), Rule(spec="w4a4-s4/6")))
    assert layer_specs(vsquant.quantize(model, skipped, calibration=BATCHES))["extra"] is None


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda m, c: vsquant.quantize(m, "w4a4-s4/6-token", calibration=c), SpecError, "a convolution has no tokens"),
        (lambda m, c: vsquant.quantize(m, "w4q4", calibration=c), SpecError, "w4q4"),
        (
            lambda m, c: vsquant.quantize(m, "w4a4", scale_mode="nearest", calibration=c),
            SpecError,
            "scale_mode must be",
        ),
        (
            lambda m, c: vsquant.quantize(m, Recipe(rules=(Rule(match="nix", spec="w4a4"),)), calibration=c),
            RecipeError,
            "must decide at least one layer",
        ),
        (
            lambda m, c: vsquant.quantize(m, Recipe(rules=(Rule(type="matmul", spec="w4a4"),)), calibration=c),
            RecipeError,
            "must decide at least one layer",
        ),
    ],
)
def test_bad_requests_are_refused_before_calibration(make: Callable, kind: type[VsquantError], message: str) -> None:
    class Unread(list):
        def __iter__(self):
            raise AssertionError

    with pytest.raises(kind, match=message):
        make(cnn(), Unread([images()]))


def test_a_method_is_a_scale_mode_or_an_object() -> None:
    by_mode, by_method = (
        vsquant.quantize(cnn(), "w3a8-s4/6", calibration=BATCHES, **how)
        for how in ({"scale_mode": "search"}, {"method": vsquant.ScaleSearch()})
    )
    assert torch.equal(by_mode(images()), by_method(images()))
    assert vsquant.quantization_record(by_mode) == vsquant.quantization_record(by_method)
    assert {layer.scale_mode for _, layer in vsquant.quantized_layers(by_mode)} == {"search"}
    rounded = dict(vsquant.quantized_layers(vsquant.quantize(cnn(), "w3a8-s4/6", calibration=BATCHES)))
    for name, layer in vsquant.quantized_layers(by_mode):
        weight = prepare(cnn(), None).model.get_submodule(name).weight
        errors = [float((each.weight - weight).detach().square().sum()) for each in (layer, rounded[name])]
        assert errors[0] < errors[1] or not layer.spec.weight.has_vectors
    for how, message in (
        ({"method": vsquant.ScaleSearch(), "scale_mode": "paper"}, "must not be 'paper' with method search"),
        ({"method": vsquant.Rounding(), "scale_mode": "search"}, "must be 'paper' or 'requantize' with method rtn"),
    ):
        with pytest.raises(SpecError, match=message):
            vsquant.quantize(cnn(), "w3a8-s4/6", calibration=BATCHES, **how)


def test_weights_weighed_by_their_inputs() -> None:
    method = vsquant.ScaleSearch(importance="second-moment", gamma=True)
    model = nn.Sequential(nn.Conv2d(32, 64, 3, groups=2, bias=False), nn.Flatten(), nn.Linear(64, 8)).eval()
    x = torch.randn(64, 32, 3, 3) * torch.linspace(0.01, 3, 32)[:, None, None]
    weighed, plain = (
        dict(vsquant.quantized_layers(vsquant.quantize(model, "w3a16-s4/x", method=each, calibration=[x[:32], x[32:]])))
        for each in (method, vsquant.ScaleSearch(gamma=True))
    )
    h = x.double().square().mean(dim=(0, 2, 3)).view(2, 1, 16, 1, 1)
    weight = model[0].weight
    errors = [
        float((h * (layers["0"].weight - weight).detach().double().square().view(2, 32, 16, 3, 3)).sum())
        for layers in (weighed, plain)
    ]
    assert errors[0] < errors[1]
    assert not torch.equal(weighed["2"].weight_vector_scale, plain["2"].weight_vector_scale)
    with pytest.raises(
        CalibrationError, match="method search:importance=second-moment,gamma=true weighs the weights of"
    ):
        vsquant.quantize(model, "w3a16-s4/x", method=method)
    with pytest.raises(CalibrationError, match="layer '0' needs calibration data that reaches it, for importance"):
        quantize_prepared(prepare(model, None), Recipe.from_spec("w3a16-s4/x"), method=method)


def test_second_moments_follow_permuted_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    batches = [torch.randn(32, 16), torch.randn(32, 16)]
    before = prepare(model, batches, second_moments=None)
    after = permute_prepared(before, Recipe.from_spec("w4a8-s4/4"), batches)
    found, first = after.observations.second_moments["2"], before.observations.second_moments["2"]
    hidden = torch.relu(after.model[0](torch.cat(batches))).detach().double()
    torch.testing.assert_close(found, hidden.square().mean(dim=0))
    assert not torch.equal(found, first)


def test_a_quantized_model_is_an_ordinary_module() -> None:
    quantized = vsquant.quantize(cnn(), "w4a4u-s4/6", calibration=BATCHES)
    clone = copy.deepcopy(quantized)
    assert vsquant.quantization_record(clone) == vsquant.quantization_record(quantized)
    assert torch.equal(clone(images()), quantized(images()))
    fresh = vsquant.quantize(cnn(), "w4a4u-s4/6", calibration=[2 * images()])
    fresh.load_state_dict(quantized.state_dict())
    assert torch.equal(fresh(images()), quantized(images()))
    with pytest.raises(VsquantError, match=r"must come from vsquant\.quantize or vsquant\.load"):
        vsquant.quantization_record(cnn())
