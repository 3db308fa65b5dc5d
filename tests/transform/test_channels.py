"""Which channels are free, and that reordering exactly those leaves a network as it was."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsquant.tasks.registry import create_task
from vsquant.transform.channels import ChannelGroup, channel_groups
from vsquant.transform.permute import channel_statistics, reorder
from vsquant.workflows.ptq import prepare


class Inverted(nn.Module):
    """An inverted residual between convolutions, batch norms unfolded, in-place activations, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.expand, self.depthwise = nn.Conv2d(8, 24, 1), nn.Conv2d(24, 24, 3, groups=24)
        self.norm = nn.BatchNorm2d(24)
        self.project, self.head = nn.Conv2d(24, 8, 1), nn.Linear(8, 5)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.stem(x))
        y = F.relu6(self.norm(self.depthwise(F.pad(self.expand(x), (1, 1, 1, 1)))))
        x = self.pool(x + self.project(y))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """A block whose values go through heads, and a feed-forward layer; written with sdpa or with plain products."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))
        self.norm, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 32), nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(*x.shape[:2], 3, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.matmul((torch.matmul(q, k.transpose(2, 3)) / 2).softmax(-1), v)
        x = self.norm(x + self.o(y.transpose(1, 2).reshape(x.shape)))
        return x + self.down(F.gelu(self.up(x)))


class Refusals(nn.Module):
    """Channels that must stay, each for a reason of its own; ``kind`` says which."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, groups=2 if kind == "groups" else 1)
        self.tied = nn.Conv2d(8, 8, 1)
        self.tied.weight = self.b.weight if kind == "tied" else self.tied.weight
        self.flat, self.scale = nn.Linear(8 * 16, 4), nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if self.kind == "flatten":
            return self.flat(x.flatten(1))
        if self.kind == "parameter":
            x = x * self.scale
        if self.kind == "softmax":
            x = x.softmax(1)
        if self.kind == "shuffle":
            x = x.view(len(x), 2, 4, 4, 4).transpose(1, 2).reshape(x.shape)
        if self.kind == "flip":
            x = x.flip(1)
        if self.kind == "slice":
            x = F.pad(x[:, :4], (0, 0, 0, 0, 2, 2))
        if self.kind == "cumulated":
            x = x.cumsum(1)
        if self.kind == "channels as space":
            x = F.max_pool2d(x.permute(0, 2, 3, 1), 1).permute(0, 3, 1, 2)
        if self.kind == "twice":
            x = self.b(self.b(x))
        y = self.b(x) + (self.tied(x) if self.kind == "tied" else 0)
        return (y, x) if self.kind == "output" else y


def example(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def found(model: nn.Module, x: Tensor) -> tuple[ChannelGroup, ...]:
    groups = channel_groups(model.eval(), x)
    assert not isinstance(groups, str)
    return groups


def assert_unchanged_by_reordering(model: nn.Module, x: Tensor) -> None:
    """Random orders within blocks, in float64: equal up to the order of sums, far below what any mistake makes."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    changed, generator = copy.deepcopy(model), torch.Generator().manual_seed(1)
    for group in found(model, x.double()):
        inside = [torch.randperm(group.size // group.blocks, generator=generator) for _ in range(group.blocks)]
        order = torch.cat([part + at * (group.size // group.blocks) for at, part in enumerate(inside)])
        reorder(changed, group, order)
    state, other = model.state_dict(), changed.state_dict()
    assert any(not state[name].equal(other[name]) for name in state)
    for name, tensor in state.items():
        assert tensor.flatten().sort().values.equal(other[name].flatten().sort().values)
    with torch.no_grad():
        expected, given = model(x.double()), changed(x.double())
    assert float((expected - given).abs().max()) <= 1e-12 * float(expected.abs().max())


def test_the_groups_of_an_inverted_residual() -> None:
    groups = {group.consumers: group for group in found(Inverted(), example(2, 3, 8, 8))}
    assert set(groups) == {("expand", "head"), ("project",)}
    stream, inside = groups["expand", "head"], groups["project",]
    assert set(stream.producers) == {"stem", "project"} and stream.size == 8
    assert set(inside.producers) == {"expand", "depthwise"} and inside.size == 24
    assert ("norm.running_var", 0) in inside.parameters and ("project.weight", 1) in inside.parameters
    assert_unchanged_by_reordering(Inverted(), example(2, 3, 8, 8))


@pytest.mark.parametrize("fused", [True, False])
def test_the_groups_of_an_attention_block(fused: bool) -> None:
    groups = {group.consumers: group for group in found(Attention(fused), example(2, 6, 12))}
    assert set(groups) == {("o",), ("down",)}
    assert (groups["o",].producers, groups["o",].size, groups["o",].blocks) == (("v",), 12, 3)
    assert (groups["down",].producers, groups["down",].size, groups["down",].blocks) == (("up",), 32, 1)
    assert_unchanged_by_reordering(Attention(fused), example(2, 6, 12))


REFUSED = (
    "flatten", "parameter", "softmax", "shuffle", "flip", "slice", "cumulated", "channels as space", "twice", "tied",
    "output", "groups",
)  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_channels_that_must_stay(kind: str) -> None:
    assert found(Refusals(kind), example(2, 3, 6, 6)) == ()


def test_the_same_network_without_the_reason_has_free_channels() -> None:
    [group] = found(Refusals("none"), example(2, 3, 6, 6))
    assert (group.producers, group.consumers) == (("a",), ("b",))
    assert_unchanged_by_reordering(Refusals("none"), example(2, 3, 6, 6))


def test_a_model_that_cannot_be_exported_says_why() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    reason = channel_groups(Branching(), example(2, 3))
    assert isinstance(reason, str) and reason.startswith("torch.export cannot trace the model: ")


def test_statistics_of_channels() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(2), nn.Linear(5 * 7, 2))
    batches = [example(2, 3, 5, 7), example(1, 3, 5, 7) + 1]
    seen = channel_statistics(model, {"0": model[0], "2": model[2]}, batches, lambda net, batch: net(batch))
    rows = torch.cat([batch.movedim(1, -1).reshape(-1, 3) for batch in batches])
    torch.testing.assert_close(seen["0"].second_moment, rows.square().mean(0))
    kept = {tuple(row.tolist()) for row in rows}
    assert 64 <= len(seen["0"].rows) < 128 and all(tuple(row.tolist()) in kept for row in seen["0"].rows)
    assert seen["2"].second_moment.shape == (35,) and len(seen["2"].rows) == 12


def real(data: Path, task: str) -> tuple[nn.Module, tuple[ChannelGroup, ...]]:
    built = create_task(task, data=data)
    model, batches = built.load_model(), built.calibration_batches(2)
    prepared = prepare(model, batches, layers=(), batchnorm_pairs=built.batchnorm_pairs(model)).model
    groups = channel_groups(prepared, batches[0])
    assert not isinstance(groups, str)
    return prepared, groups


def test_the_groups_of_resnet20(vsquant_data: Path) -> None:
    """Inside every block; the stream between blocks is cut and padded by the shortcuts."""
    _, groups = real(vsquant_data, "cifar10")
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    assert [(*group.producers, *group.consumers) for group in groups] == [(f"{b}.conv1", f"{b}.conv2") for b in blocks]


def test_the_groups_of_minilm(vsquant_data: Path) -> None:
    """In every layer the values within their twelve heads, and the feed-forward channels."""
    _, groups = real(vsquant_data, "squad-minilm")
    assert [(group.size, group.blocks) for group in groups] == [(384, 12), (1536, 1)] * 6
    assert groups[0].consumers == ("bert.encoder.layer.0.attention.output.dense",)


def test_the_groups_of_efficientnet_lite0(vsquant_data: Path) -> None:
    """Everything from the stem to the head: inside the sixteen blocks, the streams between them, and the last two."""
    prepared, groups = real(vsquant_data, "imagenet-efficientnet-lite0")
    taken = {name for group in groups for name in group.consumers}
    layers = {name: layer for name, layer in prepared.named_modules() if isinstance(layer, nn.Conv2d)}
    dense = {name for name, layer in layers.items() if layer.groups == 1}
    assert taken == (dense - {"_conv_stem"}) | {"_fc"}
