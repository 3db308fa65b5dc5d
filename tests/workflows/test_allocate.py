"""Sensitivity against the network itself, and allocations against every other choice."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import vsquant
from vsquant.errors import AllocationError, CalibrationError
from vsquant.packing import packed_bytes
from vsquant.results.sensitivity import Sensitivity
from vsquant.spec import LayerSpec
from vsquant.transform.recipe import Recipe, Rule
from vsquant.workflows.allocate import allocate_measured, as_budget, weight_candidates
from vsquant.workflows.budget import Budget
from vsquant.workflows.record import quantization_record


class Branches(nn.Module):
    """A stem, two layers that read the same tensor, a depthwise convolution, and a head; in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.left = nn.Conv2d(16, 32, 1)
        self.right = nn.Conv2d(16, 32, 3, padding=1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm(self.stem(x)))
        out = functional.relu(self.left(out) + self.right(out), inplace=True)
        return self.head(self.depthwise(out).mean((2, 3)))


class TwoOutputs(nn.Module):
    """All of a layer's output beside part of it, and a layer that is never called."""

    def __init__(self, part: int) -> None:
        super().__init__()
        self.part = part
        self.used, self.idle = nn.Linear(6, 8), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.used(x)
        return y, y[:, : self.part]


CANDIDATES = ("w2a8-s4/8", "w3a8-s4/8", "w4a8-s4/8", "w8a8-s4/8")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    model = Branches().eval()
    model.head.weight.data *= 20
    return model


@pytest.fixture(scope="module")
def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 3, 6, 6, generator=generator) for _ in range(4)]


@pytest.fixture(scope="module")
def found(network: nn.Module, batches: list[Tensor]) -> Sensitivity:
    return vsquant.sensitivity(network, CANDIDATES, calibration=batches, draws=16, name="branches")


def divergence(network: nn.Module, other: nn.Module, batches: list[Tensor]) -> float:
    with torch.inference_mode():
        terms = []
        for batch in batches:
            expected, given = network(batch).double().log_softmax(-1), other(batch).double().log_softmax(-1)
            terms.append((expected.exp() * (expected - given)).sum(-1))
    return float(torch.cat(terms).mean())


def alone(network: nn.Module, layer: str, spec: str, batches: list[Tensor]) -> nn.Module:
    recipe = Recipe(rules=(Rule(match=layer, spec=spec),))
    return vsquant.quantize(network, recipe, calibration=batches)


def test_the_estimate_is_the_divergence_of_the_network_with_that_layer_alone(network, batches, found) -> None:
    for layer in found.layers:
        form = layer.formats[CANDIDATES.index("w4a8-s4/8")]
        truth = divergence(network, alone(network, layer.name, "w4a8-s4/8", batches), batches)
        assert truth / 2 < form.divergence < truth * 2, layer.name


def test_output_errors_are_those_of_the_layer_on_float_inputs(network, batches, found) -> None:
    [layer] = [layer for layer in found.layers if layer.name == "stem"]
    form = layer.formats[1]
    quantized = alone(network, "stem", form.requested, batches).stem
    with torch.inference_mode():
        x = torch.cat(batches)
        expected, given = network.norm(network.stem(x)).double(), quantized(x).double()
    assert form.mean_squared_error == pytest.approx(float((given - expected).square().mean()), rel=1e-5)
    assert form.relative_error == pytest.approx(
        float((given - expected).square().sum() / expected.square().sum()), rel=1e-5
    )
    assert form.stored_bytes == packed_bytes((16, 3, 3, 3), LayerSpec.parse("w3a8-s4/8").weight)


def test_what_a_record_says_of_layers(found: Sensitivity, network: nn.Module) -> None:
    assert [layer.name for layer in found.layers] == ["stem", "left", "right", "depthwise", "head"]
    inputs = {layer.name: layer.shared_input for layer in found.layers}
    assert inputs["left"] == inputs["right"] and len(set(inputs.values())) == 4
    assert [layer.name for layer in found.layers if layer.is_fixed] == ["depthwise"]
    assert (found.samples, found.rows, found.draws) == (64, 64, 16)
    ranked = found.ranked("w2a8-s4/8-v16")
    assert [form.divergence for _, form in ranked] == sorted((form.divergence for _, form in ranked), reverse=True)
    assert all(layer.requires_grad for layer in network.parameters())
    with pytest.raises(AllocationError, match="candidate must be one of w2a8-s4/8-v16"):
        found.ranked("w5a8-s4/8-v16")


def test_more_bits_cost_less(found: Sensitivity) -> None:
    totals = [found.divergence(candidate) for candidate in found.candidates]
    assert totals == sorted(totals, reverse=True)


def test_the_same_at_every_call(network, batches, found) -> None:
    again = vsquant.sensitivity(network, CANDIDATES, calibration=batches, draws=16, name="branches")
    assert again == found
    assert vsquant.sensitivity(network, CANDIDATES, calibration=batches, draws=16, seed=1, name="branches") != found


@pytest.mark.parametrize("text", ["3.6 bits", "4.25 bits", "3000 bytes", "4 kB"])
def test_no_other_choice_within_the_budget_loses_less(found: Sensitivity, text: str) -> None:
    budget = Budget.parse(text)
    allocation = allocate_measured(found, budget)
    assert allocation.record.cost <= budget.limit
    best = min(
        sum(form.divergence for form in forms)
        for forms in itertools.product(*(layer.formats for layer in found.layers))
        if _cost(found, forms, budget) <= budget.limit
    )
    assert allocation.record.divergence == pytest.approx(best, rel=1e-9)
    uniform = allocation.record.best_uniform
    assert uniform is None or allocation.record.divergence <= uniform.divergence


def _cost(found: Sensitivity, forms: tuple, budget: Budget) -> float:
    if budget.unit == "bytes":
        return sum(form.stored_bytes for form in forms)
    bits = sum(layer.elements * form.weight_bits for layer, form in zip(found.layers, forms, strict=True))
    return bits / found.elements


def test_the_recipe_gives_each_layer_what_was_chosen_and_survives_its_file(
    network, batches, found, tmp_path: Path
) -> None:
    allocation = allocate_measured(found, Budget.parse("4 bits"))
    allocation.write(tmp_path / "r.yaml")
    text = (tmp_path / "r.yaml").read_text()
    assert text.startswith("# allocated for branches: least estimated divergence within 4 bits\n")
    recipe = Recipe.from_yaml(tmp_path / "r.yaml")
    assert recipe == allocation.recipe
    quantized = vsquant.quantize(network, recipe, calibration=batches)
    in_force = {layer.name: layer.spec for layer in quantization_record(quantized).layers}
    assert in_force == {layer.name: layer.chosen.spec for layer in allocation.record.layers}
    stored = sum(
        packed_bytes(layer.weight_shape, layer.spec.weight) for _, layer in vsquant.quantized_layers(quantized)
    )
    assert stored == allocation.record.stored_bytes


def test_a_mixed_network_is_closer_to_float_than_a_uniform_one_of_the_same_bits(network, batches) -> None:
    allocation = vsquant.allocate(network, "4.25 bits", candidates="w4a8-s4/8", calibration=batches, first_last="same")
    mixed = vsquant.quantize(network, allocation.recipe, calibration=batches)
    uniform = vsquant.quantize(network, "w4a8-s4/8", calibration=batches)
    assert divergence(network, mixed, batches) < divergence(network, uniform, batches)


def test_a_budget_in_costs_of_the_callers_own(found: Sensitivity) -> None:
    costs = {
        (layer.name, form.spec): float(2**index) for layer in found.layers for index, form in enumerate(layer.formats)
    }
    allocation = allocate_measured(found, as_budget(20, costs), costs=costs)
    assert allocation.record.unit == "cost" and allocation.record.cost <= 20
    by_function = allocate_measured(found, as_budget(20, costs), costs=lambda name, spec: costs[name, str(spec)])
    assert by_function.recipe == allocation.recipe
    del costs["head", found.layers[-1].formats[0].spec]
    with pytest.raises(AllocationError, match=r"costs must have an entry for \('head', 'w2a8-s4/8-v16'\)"):
        allocate_measured(found, as_budget(20, costs), costs=costs)


def test_layers_can_be_held_together(found: Sensitivity) -> None:
    free = allocate_measured(found, Budget.parse("4 bits")).record
    tied = allocate_measured(found, Budget.parse("4 bits"), same_spec=[["stem", "left", "head"]]).record
    specs = {layer.name: layer.chosen.requested for layer in tied.layers}
    assert len({specs["stem"], specs["left"], specs["head"]}) == 1
    assert tied.divergence >= free.divergence
    with pytest.raises(AllocationError, match="'missing' is none of its layers"):
        allocate_measured(found, Budget.parse("4 bits"), same_spec=[["stem", "missing"]])


def test_readers_of_one_tensor_share_its_activation_format(network, batches) -> None:
    candidates = ("w4a4-s4/4", "w4a8-s4/4", "w6a4-s4/4", "w6a8-s4/4")
    seen = []
    for limit in range(0, 33, 2):
        costs = {"left": {4: 1.0, 8: 9.0}, "right": {4: 1.0, 8: 2.0}}
        found = vsquant.sensitivity(network, candidates, calibration=batches) if not seen else seen[0]
        seen.append(found)

        def cost(name: str, spec: LayerSpec, costs=costs) -> float:
            return costs.get(name, {}).get(spec.activation.bits, 1.0)

        if limit < 5:
            with pytest.raises(AllocationError, match="must be at least 5"):
                allocate_measured(found, as_budget(limit, cost), costs=cost)
            continue
        record = allocate_measured(found, as_budget(limit, cost), costs=cost).record
        formats = {layer.name: LayerSpec.parse(layer.chosen.spec).activation for layer in record.layers}
        assert formats["left"] == formats["right"]


def test_first_and_last_are_not_chosen(network, batches) -> None:
    allocation = vsquant.allocate(network, "5 bits", candidates=CANDIDATES[1:], calibration=batches, first_last="8bit")
    assert [layer.chosen.spec for layer in allocation.record.layers if layer.name in ("stem", "head")] == ["w8a8"] * 2
    assert allocation.recipe.first_last == "8bit"


def test_a_layer_named_like_a_pattern_and_a_model_that_is_the_layer(batches) -> None:
    model = nn.Sequential()
    model.add_module("a[0]", nn.Linear(6, 8))
    model.add_module("a0", nn.Linear(8, 4))
    data = [torch.randn(8, 6)]
    allocation = vsquant.allocate(model, "6 bits", candidates="w4a8-s4/8", calibration=data)
    assert [rule.match for rule in allocation.recipe.rules] == [r"re:a\[0\]", "a0"]
    vsquant.quantize(model, allocation.recipe, calibration=data)
    linear = nn.Linear(6, 8)
    single = vsquant.allocate(linear, "6 bits", candidates="w4a8-s4/8", calibration=data)
    vsquant.quantize(linear, single.recipe, calibration=data)


def test_too_small_a_budget_says_the_smallest_possible(found: Sensitivity) -> None:
    with pytest.raises(AllocationError, match=r"budget must be at least \d\.\d+ bits, the smallest possible .* 2 bits"):
        allocate_measured(found, Budget.parse("2 bits"))
    with pytest.raises(AllocationError, match=r"budget must be at least [\d,]+ bytes"):
        allocate_measured(found, Budget.parse("10 bytes"))


@pytest.mark.parametrize("text", ["", "bits", "4.25", "-3 MB", "3 XB", "0 bits", "4,5 bits"])
def test_malformed_budgets(text: str) -> None:
    with pytest.raises(AllocationError, match=r"a budget must be like '4\.25 bits'"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("text", "unit", "limit"),
    [
        ("4.25 bits", "bits", 4.25),
        ("3MB", "bytes", 3e6),
        ("2.5 MiB", "bytes", 2.5 * 2**20),
        (" 80 bytes ", "bytes", 80),
    ],
)
def test_budgets(text: str, unit: str, limit: float) -> None:
    assert (Budget.parse(text).unit, Budget.parse(text).limit) == (unit, limit)


def test_a_budget_and_its_costs_belong_together() -> None:
    with pytest.raises(AllocationError, match="must be a number in their unit"):
        as_budget("4 bits", {})
    with pytest.raises(AllocationError, match=r"must be a text such as '4\.25 bits'"):
        as_budget(4.25)


def test_candidates_from_one_spec() -> None:
    assert [str(spec) for spec in weight_candidates("w4a8-s4/8")] == [f"w{bits}a8-s4/8-v16" for bits in range(2, 9)]
    with pytest.raises(AllocationError, match="integer formats only, not for nvfp4"):
        weight_candidates("nvfp4")


def test_what_cannot_be_measured(network, batches) -> None:
    with pytest.raises(CalibrationError, match="not an iterator"):
        vsquant.sensitivity(network, CANDIDATES, calibration=iter(batches))
    with pytest.raises(CalibrationError, match="at least one spec"):
        vsquant.sensitivity(network, [], calibration=batches)
    with pytest.raises(CalibrationError, match="layer 'idle' must be reached"):
        vsquant.sensitivity(TwoOutputs(8), ["w4a8-s4/8-tensor"], calibration=[torch.randn(2, 6)])
    used = TwoOutputs(3)
    del used.idle
    with pytest.raises(CalibrationError, match=r"one number of classes, not \[3, 8\]"):
        vsquant.sensitivity(used, ["w4a8-s4/8-tensor"], calibration=[torch.randn(2, 6)])
    with pytest.raises(CalibrationError, match=r"^layer 'idle' must be reached by the calibration data"):
        vsquant.allocate(TwoOutputs(8), "4 bits", candidates="w4a8-s4/8", calibration=[torch.randn(2, 6)])


def test_an_input_that_is_written_over_is_refused_not_mismeasured() -> None:
    class Overwrites(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.a.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x) + 0
            z = self.b.weight.detach() @ y.T
            self.b(y.detach())
            x.mul_(2)
            return z.T

    with pytest.raises(CalibrationError, match="must not be written over"):
        vsquant.sensitivity(Overwrites(), ["w4a8-s4/8"], calibration=[torch.randn(2, 6)])


def test_records_have_no_more_than_what_was_measured(found: Sensitivity) -> None:
    assert replace(found, layers=()).elements == 0
