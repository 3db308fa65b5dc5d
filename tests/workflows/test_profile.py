"""Which layers a profile has, what it says of them, and that the float call beside each computes the same layer."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vsquant
from vsquant import Recipe, Rule
from vsquant.errors import DataError, VsquantError
from vsquant.kernels import native
from vsquant.nn import IntegerActivation, IntegerLayer, IntegerMatmul, QuantMatmul
from vsquant.workflows.float_calls import float_call
from vsquant.workflows.profile import median_seconds, profile_task


class Images(nn.Module):
    """Convolutions of both kinds, one with a residual, one that is called twice, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 20, 3, padding=1)
        self.block = nn.Conv2d(20, 20, 3, padding=1, bias=False)
        self.line = nn.Conv1d(20, 24, 3, stride=2, padding=1, padding_mode="circular")
        self.twice = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.block(x) + x)
        x = self.line(x.flatten(2)).transpose(1, 2)
        return self.twice(F.gelu(self.twice(x)))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 24)
        self.up, self.down, self.unused = nn.Linear(24, 40), nn.Linear(40, 24), nn.Linear(24, 24)

    def forward(self, indices: Tensor) -> Tensor:
        return self.down(F.relu(self.up(self.table(indices))))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def integer_images(spec: str = "w4a8-s4/8") -> nn.Module:
    torch.manual_seed(0)
    return vsquant.to_integer(vsquant.quantize(Images().eval(), spec, calibration=[normal(4, 3, 8, 8)]))


def integer_words() -> nn.Module:
    torch.manual_seed(0)
    recipe = Recipe(rules=(Rule(spec="w4a8-s4/8-tensor"), Rule(spec="w8a8", type="embedding")))
    return vsquant.to_integer(vsquant.quantize(Words().eval(), recipe, calibration=[torch.arange(12).view(2, 6)]))


def distance(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).norm() / expected.norm())


def checked_against_float(model: nn.Module, *inputs: Tensor) -> set[str]:
    """Runs the model and compares every layer's outputs with the float call's; returns what was compared."""
    compared: set[str] = set()

    def hook(layer: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        assert isinstance(layer, (IntegerLayer, IntegerMatmul))
        named = dict(zip(("a", "b") if isinstance(layer, IntegerMatmul) else ("x",), args, strict=False))
        expected = float_call(layer, named | kwargs)()
        values = output.values if isinstance(output, IntegerActivation) else output
        if values is not None:
            codes_in = isinstance(args[0], IntegerActivation)
            assert values.shape == expected.shape
            # From codes only the roundings of float32 differ, from floats those of 8-bit activations too.
            assert distance(values, expected) < (1e-5 if codes_in else 0.03)
            compared.add(f"{layer.name} of {'codes' if codes_in else 'floats'}")

    for module in model.modules():
        if isinstance(module, (IntegerLayer, IntegerMatmul)):
            module.register_forward_hook(hook, with_kwargs=True)
    with torch.inference_mode():
        model(*inputs)
    return compared


def test_the_float_call_is_the_layer() -> None:
    compared = checked_against_float(integer_images(), normal(4, 3, 8, 8))
    assert compared == {"stem of floats", "block of codes", "line of floats", "twice of codes"}
    assert checked_against_float(integer_words(), torch.arange(12).view(2, 6)) == {
        "table of floats", "up of floats", "down of floats",
    }  # fmt: skip


def test_the_layers_of_a_profile() -> None:
    model, images = integer_images(), normal(4, 3, 8, 8)
    before = model(images)
    profile = vsquant.profile_integer(model, images, rounds=1)
    found = [(each.name, each.kind, each.rows, each.calls, each.takes_codes) for each in profile.layers]
    assert found == [
        ("stem", "conv2d", 256, 1, False),
        ("block", "conv2d", 256, 1, True),
        ("line", "conv1d", 128, 1, False),
        ("twice", "linear", 128, 1, False),
        ("twice", "linear", 128, 1, True),
    ]
    assert [each.gives_codes for each in profile.layers] == [True, False, False, True, False]
    assert profile.layers[2].shape == (24, 20, 3) and profile.layers[2].spec == "w4a8-s4/8-v16"
    assert profile.threads == torch.get_num_threads() and profile.isa == native.status().isa
    assert all(each.float_seconds > 0 and each.integer_seconds > 0 for each in profile.layers)
    assert torch.equal(model(images), before) and not any(module._forward_pre_hooks for module in model.modules())


def test_calls_that_are_alike_are_summed() -> None:
    model = integer_images("w4a8-s4/8-tensor")
    assert [(each.name, each.calls, each.rows) for each in profiled(model, normal(4, 3, 8, 8))][-1] == ("twice", 2, 256)


def profiled(model: nn.Module, *inputs: Any) -> tuple[Any, ...]:
    return vsquant.profile_integer(model, *inputs, rounds=1).layers


def test_embeddings_and_layers_that_are_not_called() -> None:
    indices = torch.arange(12).view(2, 6)
    layers = profiled(integer_words(), indices)
    assert [(each.name, each.kind, each.shape, each.rows) for each in layers] == [
        ("table", "embedding", (50, 24), 12),
        ("up", "linear", (40, 24), 12),
        ("down", "linear", (24, 40), 12),
    ]
    assert layers[0].backend == "eager" and "unpacked by plain PyTorch" in layers[0].reason
    assert [each.name for each in profiled(integer_words(), {"indices": indices})] == ["table", "up", "down"]


def test_attention_products() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip
    batch = {"input_ids": torch.arange(18).view(3, 6)}
    recipe = Recipe(rules=(Rule(spec="w8a8-s8/8"), Rule(spec="w8a8-s8/8", type="matmul")))
    simulated = vsquant.quantize(transformers.BertModel(config).eval(), recipe, calibration=[batch])
    products = [each for each in profiled(vsquant.to_integer(simulated), batch) if each.kind == "matmul"]
    # Queries by keys contract the 16 channels of a head, probabilities by values the 6 positions.
    assert [(each.shape, each.rows) for each in products] == [((6, 16), 36), ((16, 6), 36)]
    compared = checked_against_float(vsquant.to_integer(simulated), batch["input_ids"])
    assert {f"{product} of floats" for product in products_of(simulated)} < compared


def products_of(model: nn.Module) -> set[str]:
    return {module.name for module in model.modules() if isinstance(module, QuantMatmul)}


def test_the_reason_of_eager_layers_is_that_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSQUANT_BACKEND", "eager")
    model = integer_images()
    reasons = {layer.choices[layer.operations[0]].others["cpu"] for _, layer in vsquant.quantized_layers(model)}
    layers = profiled(model, normal(4, 3, 8, 8))
    assert {each.backend for each in layers} == {"eager"} and {each.reason for each in layers} == reasons


@pytest.mark.skipif(not native.status().available, reason="native kernels were not built")
def test_native_layers_have_no_reason() -> None:
    layers = profiled(integer_images(), normal(4, 3, 8, 8))
    assert {(each.backend, each.reason) for each in layers} == {("cpu", "")}


def test_refusals() -> None:
    images = normal(4, 3, 8, 8)
    with pytest.raises(VsquantError, match="must be an integer one, but has no integer layer; call"):
        vsquant.profile_integer(Images(), images)
    with pytest.raises(VsquantError, match="rounds must be at least 1, not 0"):
        vsquant.profile_integer(integer_images(), images, rounds=0)
    with pytest.raises(VsquantError, match="must be on the CPU, whose time is measured, not on meta"):
        vsquant.profile_integer(integer_images().to("meta"), images)
    with pytest.raises(VsquantError, match=r"must be a torch\.nn\.Module"):
        vsquant.profile_integer("model", images)  # type: ignore[arg-type]


def test_a_model_that_calls_no_layer_is_refused() -> None:
    class Idle(Words):
        def forward(self, indices: Tensor) -> Tensor:
            return self.up(self.table(indices)) if len(indices) > 1 else indices

    recipe = Recipe.from_spec("w8a8-s8/8-tensor")
    model = vsquant.to_integer(vsquant.quantize(Idle().eval(), recipe), chain=False)
    with pytest.raises(VsquantError, match="must call at least one of its integer layers with these inputs, not none"):
        vsquant.profile_integer(model, torch.zeros(1, 6, dtype=torch.long))


def test_a_task(tiny_task: Any) -> None:
    recipe = Recipe.from_spec("w4a8-s4/6")
    profile = profile_task(tiny_task, recipe, calibration_samples=16, batch=3)
    assert profile.layers[0].kind == "conv2d" and profile.layers[0].rows == 3 * 8 * 8
    with pytest.raises(DataError, match="batch must be at most 16, the samples in a batch of tiny, not 17"):
        profile_task(tiny_task, recipe, calibration_samples=16, batch=17)


def test_calls_are_timed_in_turn_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from vsquant.workflows import profile

    clock, made = [0.0], []

    def work(name: str, seconds: float) -> None:
        made.append(name)
        clock[0] += seconds

    monkeypatch.setattr(profile.time, "process_time", lambda: clock[0])
    seconds = median_seconds([lambda: work("a", 1.0), lambda: work("b", 2e-4)], rounds=3)
    assert seconds == pytest.approx([1.0, 2e-4])
    assert "".join(made) == "aabb" + 3 * "abbb"


@pytest.fixture
def tiny_task() -> Any:
    return runpy.run_path(str(Path(__file__).parents[1] / "fakes" / "tiny_program.py"))["TinyTask"]()
