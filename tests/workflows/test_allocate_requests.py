"""What is refused before anything is measured, and what the results print as."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vsquant
from vsquant.errors import AllocationError
from vsquant.workflows import allocate as workflow


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return [torch.randn(16, 64, generator=torch.Generator().manual_seed(1)) for _ in range(3)]


@pytest.mark.parametrize(
    ("budget", "options", "message"),
    [
        ("1 bits", {}, "must be at least 2.25 bits, the smallest possible"),
        ("500 bytes", {}, "must be at least [0-9]+ bytes, the smallest possible"),
        ("3 bits", {"first_last": "8bit"}, "must be at least 8 bits, the smallest possible"),
        ("4 bits", {"same_spec": [["0", "frob"]]}, "'frob' is none of its layers"),
    ],
)
def test_a_hopeless_request_is_refused_before_any_measuring(
    model: nn.Module, batches: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch, budget: str, options, message: str
) -> None:
    monkeypatch.setattr(workflow, "measure_sensitivity", None)
    with pytest.raises(AllocationError, match=message):
        vsquant.allocate(model, budget, candidates="w4a8-s4/8", calibration=batches, **options)


def test_a_budget_of_exactly_the_least_is_enough(model: nn.Module, batches: list[torch.Tensor]) -> None:
    record = vsquant.allocate(model, "2.25 bits", candidates="w4a8-s4/8", calibration=batches).record
    assert {layer.chosen.spec for layer in record.layers} == {"w2a8-s4/8-v16"} and record.cost == 2.25


@pytest.mark.parametrize("cost", ["x", None, float("nan"), -1.0])
def test_what_is_no_cost(model: nn.Module, batches: list[torch.Tensor], cost: object) -> None:
    with pytest.raises(AllocationError, match=r"costs must be finite numbers, .* \('0', 'w2a8-s4/8-v16'\) is"):
        vsquant.allocate(
            model, 5.0, candidates="w4a8-s4/8", calibration=batches, costs=lambda name, spec: cost,  # type: ignore[return-value,arg-type]
        )  # fmt: skip


def test_sensitivity_of_one_spec_as_text(model: nn.Module, batches: list[torch.Tensor]) -> None:
    found = vsquant.sensitivity(model, "w4a8-s4/8", calibration=batches)
    assert found == vsquant.sensitivity(model, ["w4a8-s4/8"], calibration=batches)
    assert found.candidates == ("w4a8-s4/8-v16",)


def test_results_print_as_ranked_tables(model: nn.Module, batches: list[torch.Tensor]) -> None:
    found = vsquant.sensitivity(model, ["w2a8-s4/8", "w4a8-s4/8"], calibration=batches, name="net")
    blocks = str(found).split("\n\n")
    assert [block.partition(":")[0] for block in blocks] == ["net in w2a8-s4/8-v16", "net in w4a8-s4/8-v16"]
    for candidate, block in zip(found.candidates, blocks, strict=True):
        _, headings, *lines = block.splitlines()
        assert headings.split() == ["layer", "weights", "relative", "error", "nats"]
        assert [line.split()[0] for line in lines] == [layer.name for layer, _ in found.ranked(candidate)]
        assert len({len(line) for line in lines}) == 1
    allocation = vsquant.allocate(model, "4.25 bits", candidates="w4a8-s4/8", calibration=batches, name="net")
    title, _, *lines = str(allocation).splitlines()
    assert title.startswith("net within 4.25 bits: 4.250 bits a weight, 1,384 bytes packed")
    assert [line.split()[:2] for line in lines] == [
        [layer.name, layer.chosen.spec] for layer in allocation.record.layers
    ]
