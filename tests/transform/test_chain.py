"""Chained integer layers: the same bits with no float between, and a report of what was chained and what not."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vsquant
from vsquant import Recipe, Rule
from vsquant.errors import VsquantError
from vsquant.nn import IntegerActivation, IntegerLayer
from vsquant.transform.chain_parts import ChainReport


class Block(nn.Module):
    """A residual block with a convolution on the shortcut where sizes change."""

    def __init__(self, channels: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, outputs, 3, stride, 1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.down = nn.Conv2d(channels, outputs, 1, stride) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv2(self.relu(self.conv1(x)))
        out += self.down(x)
        return self.relu(out)


class ResNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 20, 3, padding=1),
            nn.ReLU(),
            Block(20, 20),
            Block(20, 32, 2),
            nn.Dropout(),
            Block(32, 32),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class Inverted(nn.Module):
    """Expansion, depthwise, projection and a plain residual, as in EfficientNet-Lite."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(20, 40, 1)
        self.depthwise = nn.Conv2d(40, 40, 3, padding=1, groups=40)
        self.project = nn.Conv2d(40, 20, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu6(self.depthwise(F.relu6(self.expand(x))))
        return x + F.dropout(self.project(out), training=self.training)


class FeedForward(nn.Module):
    """As in a transformer, with two layers that read the same activation."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.gate = nn.Linear(40, 72), nn.Linear(72, 40), nn.Linear(72, 40)
        self.norm = nn.LayerNorm(40)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.up(x))
        return self.norm((self.down(hidden) + x) * torch.sigmoid(self.gate(hidden)))


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def both(model: nn.Module, spec: str | Recipe, *batches: Tensor) -> tuple[nn.Module, nn.Module]:
    """The integer model as it is, and chained."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    simulated = vsquant.quantize(model.eval(), spec, calibration=batches)
    return vsquant.to_integer(simulated, chain=False), vsquant.to_integer(simulated)


def codes_seen(model: nn.Module, x: Tensor) -> dict[str, bool]:
    """For every integer layer whether its input came as codes."""
    seen: dict[str, bool] = {}
    for name, layer in vsquant.quantized_layers(model):
        layer.register_forward_pre_hook(
            lambda module, args, name=name: seen.update({name: isinstance(args[0], IntegerActivation)})
        )
    model(x)
    return seen


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w8a8u", "w4a8-s4/x", "w3a6-s3/8-v32", "w4a4-s4/6-p6", "w4a4-s4/4-v8"])
def test_a_residual_network_keeps_its_bits(spec: str) -> None:
    x = images(4, 3, 16, 16)
    plain, chained = both(ResNet(), spec, x)
    assert torch.equal(chained(x), plain(x))
    fresh = images(2, 3, 9, 11)
    assert torch.equal(chained(fresh), plain(fresh))


def test_what_a_residual_network_chains() -> None:
    x = images(4, 3, 16, 16)
    _, chained = both(ResNet(), "w4a4u-s4/6", x)
    assert str(vsquant.chain_report(chained)).splitlines() == [
        "6 of 9 traced layers give codes to the next, 7 take in what follows them",
        "0: relu fused; codes to 2.conv1, and floats",
        "2.conv1: relu fused; codes to 2.conv2",
        "2.conv2: residual and relu fused; codes to 3.conv1, 3.down",
        "3.conv1: relu fused; codes to 3.conv2",
        "3.conv2: residual and relu fused; codes to 5.conv1, and floats",
        "3.down: floats: nothing that follows takes codes: iadd()",
        "5.conv1: relu fused; codes to 5.conv2",
        "5.conv2: residual and relu fused; floats: nothing that follows takes codes: 6",
        "8: floats: nothing that follows takes codes: the output",
    ]
    assert codes_seen(chained, x) == {name: name not in ("0", "8") for name, _ in vsquant.quantized_layers(chained)}


@pytest.mark.parametrize("spec", ["w4a4u-s4/6", "w8a8", "w8a8u-sx/8"])
def test_depthwise_layers_chain(spec: str) -> None:
    x = images(2, 20, 8, 8)
    plain, chained = both(nn.Sequential(Inverted(), Inverted()), spec, x)
    assert torch.equal(chained(x), plain(x))
    lines = str(vsquant.chain_report(chained)).splitlines()[1:]
    assert lines[0] == "0.expand: relu6 fused; codes to 0.depthwise"
    assert lines[1] == "0.depthwise: relu6 fused; codes to 0.project"
    assert lines[2] == "0.project: residual fused; codes to 1.expand, and floats"


@pytest.mark.parametrize("spec", ["w4a8-s4/8", "w4a8-s4/x", "w8a8", "w4a4-s4/4-v8"])
@pytest.mark.parametrize("shape", [(40,), (5, 40), (2, 5, 40), (2, 3, 5, 40)])
def test_a_feed_forward_layer_keeps_its_bits(spec: str, shape: tuple[int, ...]) -> None:
    x = images(*shape)
    plain, chained = both(FeedForward(), spec, x)
    assert torch.equal(chained(x), plain(x))
    assert str(vsquant.chain_report(chained)).splitlines() == [
        "1 of 3 traced layers give codes to the next, 2 take in what follows them",
        "up: gelu fused; codes to down, gate",
        "down: residual fused; floats: nothing that follows takes codes: mul()",
        "gate: floats: nothing that follows takes codes: sigmoid()",
    ]


def test_one_dimensional_convolutions_chain() -> None:
    x = images(2, 20, 30)
    model = nn.Sequential(nn.Conv1d(20, 24, 3, padding=1), nn.GELU(), nn.Conv1d(24, 16, 5, stride=2))
    plain, chained = both(model, "w4a8-s4/6", x)
    assert torch.equal(chained(x), plain(x))
    assert vsquant.chain_report(chained).chained[0].consumers == ("2",)


def reasons(model: nn.Module, spec: str | Recipe, x: Tensor) -> dict[str, str]:
    plain, chained = both(model, spec, x)
    assert torch.equal(chained(x), plain(x))
    return {layer.layer: layer.reason for layer in vsquant.chain_report(chained).layers if layer.reason}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("w4a8-s4/8-token", "2 finds its activation scales at run time (w4a8-s4/8-v16-token)"),
        ("w4a8-s4/fp32", "2 finds its activation scales at run time (w4a8-s4/fp32-v16)"),
        ("w4a16-s4/x", "its own activations are floating point"),
    ],
)
def test_formats_that_do_not_chain(spec: str, reason: str) -> None:
    model = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40))
    assert reasons(model, spec, images(3, 40))["0"] == reason


def test_a_layer_of_floats_after_one_of_integers() -> None:
    recipe = Recipe(rules=(Rule(match="0", spec="w4a8-s4/8"), Rule(match="1", spec="w4a16-s4/x")))
    model = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))
    assert reasons(model, recipe, images(3, 40))["0"] == "1 keeps its activations floating point"


def test_convolutions_that_do_not_chain() -> None:
    x = images(2, 32, 6, 6)
    circular = nn.Sequential(nn.Conv2d(32, 32, 1), nn.Conv2d(32, 8, 3, padding=1, padding_mode="circular"))
    assert reasons(circular, "w4a8-s4/8", x)["0"] == "1 pads by circular"
    grouped = nn.Sequential(nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 3, groups=2))
    assert reasons(grouped, "w4a8-s4/8", x)["0"] == "1 has vectors within groups of channels"
    assert "0" not in reasons(grouped, "w4a8-s4/x", x)
    across = nn.Sequential(nn.Conv2d(32, 8, 1), nn.Linear(6, 4))
    assert reasons(across, "w4a8-s4/8", x)["0"] == "1 does not walk its input as the layer before lays it out"


def test_half_precision_models_do_not_chain() -> None:
    model = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40)).to(torch.bfloat16)
    assert reasons(model, "w4a8-s4/8", images(3, 40).bfloat16())["0"] == "its outputs are bfloat16"


def test_readers_that_want_other_codes_get_floats() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.a, self.b, self.c = (nn.Linear(40, 40) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            return self.a(x) + self.b(x) + self.c(x)

    recipe = Recipe(rules=(Rule(match="b", spec="w4a4-s4/4"), Rule(match="*", spec="w4a8-s4/8")))
    x = images(3, 40)
    plain, chained = both(Fork(), recipe, x)
    assert torch.equal(chained(x), plain(x))
    first = vsquant.chain_report(chained).layers[0]
    assert (first.consumers, first.keeps_float) == (("a", "c"), True)
    assert codes_seen(chained, x) == {"first": False, "a": True, "b": False, "c": True}


class InPlace(nn.Module):
    """Values that are changed in place while others read them too: nothing may move past the change."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(40, 40), nn.Linear(40, 40)

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1
        y = self.a(x)
        if self.kind == "input":
            z = x.mul_(2)
            return self.b(y + z) + x
        if self.kind == "output":
            z = self.b(y)
            y.mul_(2)
            return z + self.b(y)
        if self.kind == "residual":
            x += y
            return self.b(x)
        return self.b(F.relu(y, inplace=True))


@pytest.mark.parametrize("kind", ["input", "output", "residual", "none"])
def test_values_changed_in_place(kind: str) -> None:
    found = reasons(InPlace(kind), "w4a8-s4/8", images(3, 40))
    expected = {
        "input": "nothing that follows takes codes: add()",
        "output": "its output is changed in place",
        "residual": "nothing that follows takes codes: iadd()",
        "none": None,
    }
    assert found.get("a") == expected[kind]


def test_a_value_that_has_two_names_is_changed_under_both() -> None:
    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(40, 40), nn.Linear(40, 40)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 1
            same = x
            x += self.a(x)
            return self.b(self.a(x) + same) + same

    x = images(3, 40)
    plain, chained = both(Renamed(), "w4a8-s4/8", x)
    assert torch.equal(chained(x), plain(x))


def test_a_shared_layer_is_told_by_each_call_what_to_fuse() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.last = nn.Linear(40, 40), nn.Linear(40, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.shared(self.shared(x).relu()) + x)

    x = images(3, 40)
    plain, chained = both(Twice(), "w4a8-s4/8", x)
    assert torch.equal(chained(x), plain(x))
    assert [layer.consumers for layer in vsquant.chain_report(chained).layers] == [("shared",), ("last",), ()]


class Opaque(nn.Module):
    """Data-dependent control flow around a part that can be traced, and a part with optional arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 40))
        self.optional = Optional()

    def forward(self, x: Tensor) -> Tensor:
        return self.optional(self.part(x)) if bool(x.sum() > 0) else self.part(-x)


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.layers(x) if mask is None else self.layers(x * mask)


def test_parts_of_a_model_that_cannot_be_traced() -> None:
    x = images(3, 40)
    plain, chained = both(Opaque(), "w4a8-s4/8", x, -x)
    for signed in (x, -x):
        assert torch.equal(chained(signed), plain(signed))
    report = vsquant.chain_report(chained)
    assert [layer.layer for layer in report.chained] == ["part.0", "optional.layers.0"]
    assert [name for name, _ in report.untraced] == ["", "optional"]
    assert "optional: not traced: it has optional arguments; to chain it, give it a forward without" in str(report)
    assert type(chained) is Opaque


def test_a_model_whose_arguments_are_all_optional() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(40, 40), nn.Linear(40, 40))

        def forward(self, x: Tensor | None = None, y: Tensor | None = None) -> Tensor:
            return self.features(x if y is None else y)

        def features(self, x: Tensor) -> Tensor:
            return F.relu(self.layers(x))

    x = images(3, 40)
    plain, chained = both(Keywords(), "w4a8-s4/8", x)
    for arguments in ({"x": x}, {"y": x}, {"x": -x, "y": x}):
        assert torch.equal(chained(**arguments), plain(**arguments))
    report = vsquant.chain_report(chained)
    assert str(report).splitlines() == [
        "1 of 2 traced layers give codes to the next, 1 take in what follows them",
        "layers.0: codes to layers.1",
        "layers.1: relu fused; floats: nothing that follows takes codes: the output",
        f"the model: not traced: {report.untraced[0][1]}",
    ]
    assert report.untraced[0][1].startswith("it has optional arguments; to chain it, give it a forward without them")


def test_an_opaque_part_inside_a_model_that_can_be_traced() -> None:
    x = images(3, 40)
    plain, chained = both(nn.Sequential(Opaque(), nn.Linear(40, 40), nn.Linear(40, 8)), "w4a8-s4/8", x, -x)
    assert torch.equal(chained(x), plain(x))
    assert [layer.layer for layer in vsquant.chain_report(chained).chained] == ["1", "0.part.0", "0.optional.layers.0"]


def test_a_transformer_that_cannot_be_traced() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes, intermediate_size=72)).eval()
    batch = {"input_ids": torch.randint(3, 50, (2, 11))}
    simulated = vsquant.quantize(model, "w4a8-s4/8", calibration=[batch])
    plain, chained = vsquant.to_integer(simulated, chain=False), vsquant.to_integer(simulated)
    assert torch.equal(chained(**batch).start_logits, plain(**batch).start_logits)
    report = vsquant.chain_report(chained)
    assert [(layer.layer, layer.consumers) for layer in report.chained] == [
        (f"bert.encoder.layer.{i}.intermediate.dense", (f"bert.encoder.layer.{i}.output.dense",)) for i in range(2)
    ]
    assert "bert.encoder.layer.0.attention.output.dense" in {layer.layer for layer in report.fused}


def test_layouts_of_images_stay_what_they_were() -> None:
    class Viewing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.Sequential(nn.Conv2d(3, 20, 3), nn.ReLU(), nn.Conv2d(20, 20, 3), nn.ReLU())
            self.linear = nn.Linear(20 * 16, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.convs(x)
            return self.linear(y.view(len(y), -1))

    x = images(2, 3, 8, 8)
    plain, chained = both(Viewing(), "w4a8-s4/8", x)
    assert torch.equal(chained(x), plain(x))
    last = x.contiguous(memory_format=torch.channels_last)
    assert plain.convs(last).is_contiguous(memory_format=torch.channels_last)


def test_residuals_stay_channels_last() -> None:
    """Only what a float operation reads is copied to the layout of the input."""
    x = images(4, 3, 16, 16)
    _, chained = both(ResNet(), "w4a4u-s4/6", x)
    residuals = []
    for _, layer in vsquant.quantized_layers(chained):
        layer.register_forward_pre_hook(
            lambda module, args, kwargs: residuals.append(kwargs.get("residual")), with_kwargs=True
        )
    chained(x)
    seen = [residual for residual in residuals if residual is not None]
    assert len(seen) == 3
    assert all(residual.is_contiguous(memory_format=torch.channels_last) for residual in seen)


def test_a_chained_model_is_a_module_like_any_other() -> None:
    x = images(4, 3, 16, 16)
    model = ResNet()
    model.config = {"labels": 10}
    plain, chained = both(model, "w4a4u-s4/6", x)
    assert isinstance(chained, ResNet)
    assert isinstance(chained[2], Block)
    assert list(chained.state_dict()) == list(plain.state_dict())
    copied = copy.deepcopy(chained)
    assert torch.equal(copied(x), chained(x))
    for each in (chained, copied):
        assert each.config == {"labels": 10}
        assert vsquant.quantization_record(each) == vsquant.quantization_record(plain)
        assert len(vsquant.chain_report(each).chained) == 6
    names = [name for name, _ in vsquant.quantized_layers(plain)]
    assert [name for name, _ in vsquant.quantized_layers(chained)] == names
    assert all(isinstance(layer, IntegerLayer) for _, layer in vsquant.quantized_layers(chained))


def test_a_chained_model_compiles_and_exports() -> None:
    x = images(4, 3, 16, 16)
    _, chained = both(ResNet(), "w4a4u-s4/6", x)
    compiled = torch.compile(chained, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), chained(x))
    assert torch.equal(torch.export.export(chained, (x,)).module()(x), chained(x))


def test_layers_with_the_same_to_say_share_a_line() -> None:
    x = images(3, 32)
    _, chained = both(nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh()), "w4a8-s4/8-token", x)
    assert vsquant.chain_report(chained).layers[0].reason == "nothing that follows takes codes: 1"
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32))
    _, chained = both(Shared(model), "w4a8-s4/8", x)
    assert str(vsquant.chain_report(chained)).splitlines()[1:] == [
        "layers.0, layers.1, layers.2: floats: nothing that follows takes codes: tanh()"
    ]


class Shared(nn.Module):
    """Layers whose outputs go through a function that integer layers do not take in."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def test_a_model_that_was_not_chained_says_so() -> None:
    plain, _ = both(nn.Sequential(nn.Linear(16, 16)), "w4a8-s4/8", images(3, 16))
    assert vsquant.chain_report(plain) == ChainReport(requested=False)
    assert str(vsquant.chain_report(plain)) == "not chained (chain=False)"
    with pytest.raises(VsquantError) as error:
        vsquant.chain_report(nn.Linear(16, 16))
    assert str(error.value) == "the model must come from vsquant.to_integer, not be a Linear"


class Stem(nn.Module):
    """What a residual network begins with: codes go through the max-pool, or floats where a shortcut needs them."""

    def __init__(self, pool: nn.Module, *, shortcut: bool = False) -> None:
        super().__init__()
        self.conv, self.relu, self.pool = nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), pool
        self.next, self.down = nn.Conv2d(20, 24, 3, padding=1), nn.Conv2d(20, 24, 1)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.conv(x)))
        return self.next(x) * (x.mean() if self.shortcut else 1) + self.down(x)


POOLS = (
    nn.MaxPool2d(3, stride=2, padding=1),
    nn.MaxPool2d((2, 3), stride=(1, 2), padding=(1, 0), dilation=(2, 1)),
    nn.MaxPool2d(2),
)


@pytest.mark.parametrize("spec", ["w4a8-s4/x", "w8a8u", "w4a3-s4/x"])
@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_codes_are_max_pooled(pool: nn.Module, spec: str) -> None:
    x = images(2, 3, 13, 16)
    plain, chained = both(Stem(pool), spec, x)
    assert torch.equal(chained(x), plain(x))
    assert codes_seen(chained, x) == {"conv": False, "next": True, "down": True}
    assert "\nconv: relu fused; max-pooled codes to next, down\n" in str(vsquant.chain_report(chained))


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        (Stem(nn.MaxPool2d(3, 2, 1)), "w4a8-s4/6"),
        (Stem(nn.MaxPool2d(3, 2, 1), shortcut=True), "w4a8-s4/x"),
        (Stem(nn.MaxPool2d(3, 2, ceil_mode=True)), "w4a8-s4/x"),
        (Stem(nn.AvgPool2d(2)), "w4a8-s4/x"),
    ],
    ids=["vectors", "floats beside", "ceil mode", "averages"],
)
def test_what_is_not_max_pooled_as_codes(model: nn.Module, spec: str) -> None:
    x = images(2, 3, 12, 16)
    plain, chained = both(model, spec, x)
    assert torch.equal(chained(x), plain(x))
    assert codes_seen(chained, x) == {"conv": False, "next": False, "down": False}


def test_negative_codes_are_max_pooled() -> None:
    x = images(2, 3, 13, 16)
    model = Stem(nn.MaxPool2d(2, padding=1))
    model.relu = nn.Identity()
    plain, chained = both(model, "w4a8-s4/x", x)
    assert torch.equal(chained(x), plain(x))
    assert codes_seen(chained, x)["next"]
