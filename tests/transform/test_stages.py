"""The order in which layers run, which of them share an input, and reading it without the rest of the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vsquant.transform.stages import Stage, find_stages, read_stage
from vsquant.workflows.batches import call


class Branches(nn.Module):
    """Declared in another order than it runs; two layers share an input, one is called twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.never = nn.Linear(4, 4)
        self.last = nn.Linear(4, 4)
        self.twice = nn.Linear(4, 4)
        self.query = nn.Linear(4, 4)
        self.key = nn.Linear(4, 4)
        self.changed = nn.Linear(4, 4)
        self.ran_last = 0

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.query(x) + self.twice(x)
        hidden = hidden + self.key(input=x)
        hidden = self.twice(hidden)
        self.changed(x.mul_(2))
        self.ran_last += 1
        result: Tensor = self.last(hidden)
        return result


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def test_stages_follow_execution_and_share_inputs() -> None:
    model = Branches()
    stages = find_stages(model, layers_of(model), torch.ones(2, 4), call)
    assert stages == (
        Stage(layers=("query", "key"), calls=1),
        Stage(layers=("twice",), calls=2),
        Stage(layers=("changed",), calls=1),
        Stage(layers=("last",), calls=1),
    )


def test_reading_stops_after_the_stage_and_leaves_the_model_alone() -> None:
    model = Branches()
    stages = find_stages(model, layers_of(model), torch.ones(2, 4), call)
    ran = model.ran_last
    read: list[Tensor] = []
    for stage in stages[:3]:
        read_stage(model, stage, torch.ones(2, 4), call, lambda x: read.append(x.clone()))
    assert len(read) == 1 + 2 + 1
    assert torch.equal(read[0], torch.ones(2, 4)) and torch.equal(read[3], torch.full((2, 4), 2.0))
    assert model.ran_last == ran
    assert not any(layer._forward_pre_hooks for layer in layers_of(model).values())


def test_a_model_that_is_one_layer() -> None:
    model = nn.Linear(3, 2)
    stages = find_stages(model, {"": model}, torch.ones(1, 3), call)
    assert stages == (Stage(layers=("",), calls=1),)
    read: list[Tensor] = []
    read_stage(model, stages[0], torch.ones(1, 3), call, read.append)
    assert [x.shape for x in read] == [(1, 3)]
