"""What stages read is the same bits whether blocks are kept or the model runs from its start, and costs less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import vsquant
from vsquant import ErrorFeedback
from vsquant.transform.blocks import find_blocks
from vsquant.transform.stages import find_stages
from vsquant.workflows import sequential
from vsquant.workflows.batches import as_batches, call
from vsquant.workflows.stage_inputs import StageInputs


class Mixer(nn.Module):
    """A transformer's block in small: three layers on one input, a further argument, a tuple for an output."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 24)
        self.out, self.up, self.down = nn.Linear(24, 24), nn.Linear(24, 40), nn.Linear(40, 24)
        self.ran = 0

    def forward(self, hidden: Tensor, *, mask: Tensor) -> tuple[Tensor, str]:
        self.ran += 1
        scores = (self.query(hidden) @ self.key(hidden).transpose(-1, -2) + mask).softmax(-1)
        hidden = hidden + self.out(scores @ self.value(hidden))
        return hidden + self.down(torch.relu(self.up(hidden))), "weights"


class Overwriting(nn.Module):
    """A residual block that writes over its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 24), nn.Linear(24, 24)
        self.ran = 0

    def forward(self, hidden: Tensor, *, mask: Tensor) -> Tensor:
        self.ran += 1
        hidden += self.second(torch.relu_(self.first(hidden)))
        return hidden


class Network(nn.Module):
    """Blocks that follow one another, one that does not, layers in no block, and one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(10, 24)
        self.blocks = nn.ModuleList([Mixer(), Mixer(), Overwriting(), Mixer()])
        self.twice = nn.Linear(24, 24)
        self.last = nn.ModuleList([Overwriting()])
        self.head = nn.Linear(24, 5)
        self.ran = 0

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        self.ran += 1
        mask = torch.where(torch.arange(x.shape[1]) < lengths[:, None, None], 0.0, -1e4)
        hidden = torch.tanh(self.stem(x))
        for block in self.blocks:
            output = block(hidden, mask=mask)
            hidden = output[0] if isinstance(output, tuple) else output
        hidden = self.last[0](torch.tanh(self.twice(self.twice(hidden))), mask=mask)
        result: Tensor = self.head(hidden.mean(dim=1))
        return result


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(count, 7, 10, generator=generator), torch.randint(3, 8, (count,), generator=generator))
        for count in (5, 3, 4)
    ]


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network().eval()


def settled(network: nn.Module, method: ErrorFeedback, resume: Path | None = None) -> dict[str, Tensor]:
    model = vsquant.quantize(network, "w3a8-s4/8", calibration=data(), method=method, resume=resume)
    return dict(model.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("compensation", [0.0, 0.5])
@pytest.mark.parametrize("memory_bytes", [0, 4000, 1 << 30])
def test_kept_blocks_give_the_bits_of_runs_from_the_start(
    network: Network, monkeypatch: pytest.MonkeyPatch, compensation: float, memory_bytes: int
) -> None:
    method = ErrorFeedback(compensation=compensation)
    monkeypatch.setattr(sequential, "StageInputs", lambda *args, **_: StageInputs(*args, memory_bytes=memory_bytes))
    kept = settled(network, method)
    monkeypatch.setattr(sequential, "find_blocks", lambda *_: ())
    assert same(kept, settled(network, method))


def test_a_run_that_was_stopped_within_a_block_ends_at_the_same_bits(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settle, calls = sequential.settle_layer, []

    def stopping(layer: vsquant.nn.QuantLayer, *args: object) -> object:
        calls.append(layer.name)
        if layer.name == "blocks.1.up" and calls.count(layer.name) == 1:
            raise KeyboardInterrupt
        return settle(layer, *args)  # type: ignore[arg-type]

    whole = settled(network, ErrorFeedback())
    monkeypatch.setattr(sequential, "settle_layer", stopping)
    with pytest.raises(KeyboardInterrupt):
        settled(network, ErrorFeedback(), tmp_path)
    assert same(whole, settled(network, ErrorFeedback(), tmp_path))
    assert [name for name in calls if calls.count(name) > 1] == ["blocks.1.up"] * 2


def test_the_model_runs_from_its_start_only_where_it_must(network: Network) -> None:
    model = vsquant.quantize(network, "w4a8-s4/8", calibration=data())
    layers = dict(vsquant.quantized_layers(model))
    batches = as_batches(data())
    stages = find_stages(model, layers, batches.first, call)
    blocks = find_blocks(model, layers, batches.first, call)
    network.ran, network.blocks[1].ran = 0, 0
    inputs = StageInputs(model, network, stages, blocks, batches)
    for stage in stages:
        assert len(list(inputs.read(stage))) == stage.calls * len(data())
    # The stem, the first block, the layer called twice, the block behind it, and the head; once for every batch.
    assert network.ran == 5 * len(data())
    assert network.blocks[1].ran == (1 + 3) * len(data())
