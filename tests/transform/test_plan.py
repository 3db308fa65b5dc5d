from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vsquant.calibrate import RangeObserver, RangeStatistics
from vsquant.errors import CalibrationError, SpecError
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.transform.match import match_layers
from vsquant.transform.plan import LayerPlan, plan_layers, with_signs
from vsquant.transform.recipe import Recipe, Rule

W8A8 = LayerSpec.parse("w8a8")


class OwnForward(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x.square(), self.weight, self.bias)


def planned(
    module: nn.Module,
    spec: str,
    *,
    kind: str | None = None,
    fallback: LayerSpec | str = W8A8,
    scale_mode: ScaleMode = "requantize",
    matmuls: tuple[str, ...] = (),
) -> LayerPlan:
    recipe = Recipe(rules=(Rule(spec=spec, type=kind),))
    matches = match_layers(nn.ModuleDict({"layer": module}), recipe, matmuls=matmuls)
    settled = LayerSpec.parse(fallback) if isinstance(fallback, str) else fallback
    (plan,) = plan_layers(matches, settled, scale_mode)
    return plan


def statistics(*values: float) -> RangeStatistics:
    observer = RangeObserver("layer")
    observer.update(torch.tensor(values))
    return observer.statistics()


@pytest.mark.parametrize(
    ("module", "spec", "fallback"),
    [
        (nn.Conv2d(3, 32, 7), "w4a4-s4/6", False),
        (nn.Conv2d(16, 32, 3), "w4a4-s4/6-v32", False),
        (nn.Conv2d(32, 32, 3, groups=2), "w4a4-s4/6", False),
        (nn.Conv2d(32, 32, 3, groups=32), "w4a4-s4/6", True),
        (nn.Conv2d(32, 32, 3, groups=4), "w4a4-s4/6", True),
        (nn.Conv1d(32, 32, 3, groups=4), "w4a4-s4/6-v8", False),
        (nn.Conv2d(32, 32, 3, groups=32), "w4a4", False),
        (nn.Linear(3, 8), "w4a4-s4/6", False),
    ],
)
def test_groups_of_fewer_than_v_channels_fall_back_and_nothing_else_does(
    module: nn.Module, spec: str, fallback: bool
) -> None:
    plan = planned(module, spec)
    assert plan.spec == (W8A8 if fallback else LayerSpec.parse(spec))
    assert ("fallback" in plan.note) == fallback == plan.report.fallback


def test_a_fallback_says_why() -> None:
    note = planned(nn.Conv2d(32, 32, 3, groups=4), "w4a4-s4/6").note
    assert note == "groups of 8 channels are fewer than V=16: fallback"


@pytest.mark.parametrize(
    ("requested", "fallback", "expected"),
    [
        ("w4a4u-s4/6", "w8a8", "w8a8u"),
        ("w4a4-s4/6-tensor", "w8a8", "w8a8-tensor"),
        ("w4a16-s4/x", "w8a8", "w8a16"),
        ("w4a4-s4/6", "w6a6-s6/6-v2-p8", "w6a6-s6/6-v2-p8"),
        ("w4a4-s4/6-tensor", "w8a8-sfp32/fp32", "w8a8-sfp32/fp32"),
        ("w4a16-s4/x", "nvfp4", "nvfp4"),
        ("nvfp4", "w8a8", "w8a8"),
        ("int4-g128", "w8a8", "w8a16"),
    ],
)
def test_a_fallback_keeps_what_the_request_says_of_activations(requested: str, fallback: str, expected: str) -> None:
    plan = planned(nn.Conv2d(32, 32, 3, groups=32), requested, fallback=fallback)
    assert plan.spec == LayerSpec.parse(expected)


def test_token_scales_are_refused_for_convolutions_by_name() -> None:
    message = "layer 'layer': a convolution has no tokens; use -tensor or -static, not w4a4-s4/6-v16-token"
    for groups in (1, 32):
        with pytest.raises(SpecError, match=message):
            planned(nn.Conv2d(32, 32, 3, groups=groups), "w4a4-s4/6-token")
    assert planned(nn.Linear(32, 32), "w4a4-s4/6-token").spec is not None


def test_scale_modes_are_refused_by_the_name_of_the_layer() -> None:
    with pytest.raises(SpecError, match="layer 'layer' with w4a4-s4/6-v16-top: scale_mode 'paper' must not be"):
        planned(nn.Linear(8, 8), "w4a4-s4/6-top", scale_mode="paper")
    with pytest.raises(SpecError, match="'paper', 'requantize', 'search' or 'best-of-three', not 'nearest'"):
        planned(nn.Linear(8, 8), "w4a4-s4/6", scale_mode="nearest")  # type: ignore[arg-type]


def test_a_forward_of_its_own_stays_float_and_says_so() -> None:
    plan = planned(OwnForward(8, 8, 1), "w4a4-s4/6")
    assert (plan.spec, plan.note) == (None, "OwnForward has a forward of its own: left floating point")
    assert plan.report.spec is None and plan.report.requested == "w4a4-s4/6-v16"


def test_embeddings_quantize_weights_only() -> None:
    plan = planned(nn.Embedding(10, 24), "w4a8u-s4/8", kind="embedding")
    assert plan.spec == LayerSpec.parse("w4a16-s4/x")
    assert plan.report.unsigned_activations is None
    assert plan.report.padding == 0.25
    comparison = planned(nn.Embedding(10, 24), "nvfp4", kind="embedding")
    assert comparison.spec == LayerSpec.parse("nvfp4")


def test_matmuls_quantize_activations_only() -> None:
    plan = planned(nn.Identity(), "w4a4u-s4/6", kind="matmul", matmuls=("layer",))
    assert plan.spec == LayerSpec.parse("w4a4-s4/6")
    assert (plan.report.weights, plan.report.padding) == (0, 0.0)
    assert plan.note == "only probabilities are unsigned"
    assert planned(nn.Identity(), "w4a4-s4/6", kind="matmul", matmuls=("layer",)).note == ""
    with pytest.raises(SpecError, match="matmul 'layer': both operands are activations"):
        planned(nn.Identity(), "w4a16-s4/x", kind="matmul", matmuls=("layer",))


@pytest.mark.parametrize(("values", "expected"), [((0.0, 2.0), "w4a4u-s4/6"), ((-1e-30, 2.0), "w4a4-s4/6")])
@pytest.mark.parametrize("gamma", ["", "-tensor"])
def test_unsigned_stays_where_nothing_negative_was_seen(values: tuple[float, ...], expected: str, gamma: str) -> None:
    plan = planned(nn.Linear(8, 8), f"w4a4u-s4/6{gamma}")
    (signed,) = with_signs([plan], {"layer": statistics(*values)})
    assert signed.spec == LayerSpec.parse(expected + gamma)
    assert signed.report.unsigned_activations == (min(values) >= 0)
    note = "input goes below zero: signed"
    assert signed.report.note == ("" if min(values) >= 0 else note)


def test_a_change_of_sign_is_noted_beside_a_fallback_and_only_where_there_is_one() -> None:
    plan = planned(nn.Conv2d(32, 32, 3, groups=32), "w4a4u-s4/6")
    (signed,) = with_signs([plan], {"layer": statistics(-1.0, 2.0)})
    assert signed.note == f"{plan.note}; input goes below zero: signed"
    (as_asked,) = with_signs([planned(nn.Linear(8, 8), "w4a4-s4/6")], {"layer": statistics(-1.0, 2.0)})
    assert as_asked.note == ""


def test_signed_requests_never_become_unsigned() -> None:
    (plan,) = with_signs([planned(nn.Linear(8, 8), "w4a4-s4/6")], {"layer": statistics(1.0)})
    assert plan.spec == LayerSpec.parse("w4a4-s4/6")


@pytest.mark.parametrize("spec", ["w4a4-s4/6", "w4a4u-s4/6-tensor", "w4a4u-sfp32/fp32"])
def test_a_layer_that_calibration_did_not_reach_is_named(spec: str) -> None:
    with pytest.raises(CalibrationError, match=r"layer 'layer' with \S+ needs calibration data that reaches it"):
        with_signs([planned(nn.Linear(8, 8), spec)], {})
    (plan,) = with_signs([planned(nn.Linear(8, 8), "w4a4-s4/6-token")], {})
    assert plan.spec is not None


def test_the_report_says_what_padding_costs() -> None:
    assert planned(nn.Conv2d(3, 32, 7), "w4a4-s4/6").report.padding == 13 / 16
    assert planned(nn.Linear(24, 8), "w4a4").report.padding == 0.0
    assert planned(nn.Linear(24, 8), "w4a4-s4/6").report.weights == 192
