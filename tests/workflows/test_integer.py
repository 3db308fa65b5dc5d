"""What running on integers changes on a task: flips are counted where they happen, the metric is paired."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

import vsquant
from vsquant import Recipe, Rule
from vsquant.nn import IntegerLayer
from vsquant.tasks.registry import create_task
from vsquant.workflows.integer import compare_with_integer, counted_flips

TINY = runpy.run_path(str(Path(__file__).parents[1] / "fakes" / "tiny_program.py"))


def test_a_task_on_integers() -> None:
    task = TINY["TinyTask"]()
    simulated = vsquant.quantize(task.load_model(), "w4a4u-s4/6", calibration=task.calibration_batches(32))
    comparison = compare_with_integer(task, simulated, limit=20)
    assert comparison.simulated == task.evaluate(simulated, limit=20)
    assert comparison.integer.count == 20
    assert comparison.difference.value == pytest.approx(comparison.integer.value() - comparison.simulated.value())
    assert comparison.layers == len(list(vsquant.quantized_layers(simulated))) == len(comparison.flips)
    assert comparison.chained > 0
    assert comparison.codes == sum(each.codes for each in comparison.flips) > 0
    assert comparison.flipped <= comparison.codes // 1000


def test_no_hook_is_left() -> None:
    task = TINY["TinyTask"]()
    simulated = vsquant.quantize(task.load_model(), "w8a8-tensor")
    compare_with_integer(task, simulated, limit=4)
    assert not any(module._forward_pre_hooks for module in simulated.modules())


def test_every_flip_is_counted() -> None:
    """A bias moved by half a step moves every code of the next layer, or half of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    x = torch.rand(8, 32)
    simulated = vsquant.quantize(model, "w8a8-tensor")
    integer = vsquant.to_integer(simulated)
    with counted_flips(simulated, integer) as counter:
        integer(x)
        integer(x)
    assert [(each.layer, each.codes, each.flipped) for each in counter.flips()] == [("0", 512, 0), ("2", 512, 0)]
    first = dict(vsquant.quantized_layers(integer))["0"]
    assert isinstance(first, IntegerLayer)
    first.bias.add_(100)
    with counted_flips(simulated, integer) as counter:
        integer(x)
    first, second = counter.flips()
    assert first.flipped == 0
    assert second.flipped > 200


def test_chained_codes_and_attention_products_are_compared() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes, intermediate_size=72)).eval()
    batch = {"input_ids": torch.randint(3, 50, (2, 11))}
    recipe = Recipe(
        rules=(
            Rule(type="matmul", spec="w8a8"),
            Rule(type="embedding", spec="w4a16-s4/x"),
            Rule(type="linear", spec="w4a8-s4/8"),
        )
    )
    simulated = vsquant.quantize(model, recipe, calibration=[batch])
    integer = vsquant.to_integer(simulated)
    with counted_flips(simulated, integer) as counter, torch.inference_mode():
        integer(**batch)
    counted = {each.layer: each for each in counter.flips()}
    attention = "bert.encoder.layer.0.attention.self.vsquant_attention"
    assert counted[f"{attention}.scores"].codes == 2 * 2 * 4 * 11 * 10
    assert counted[f"{attention}.context"].codes == 2 * 4 * 11 * (11 + 10)
    assert len(counted) == 7 + 2
    assert sum(each.flipped for each in counted.values()) < 20


@pytest.mark.parametrize("name", ["cifar10", "squad-minilm"])
def test_trained_networks_on_integers(vsquant_data: Path, name: str) -> None:
    task = create_task(name, data=vsquant_data)
    model = task.load_model()
    simulated = vsquant.quantize(
        model, "w4a8-s4/8", calibration=task.calibration_batches(8), batchnorm_pairs=task.batchnorm_pairs(model)
    )
    comparison = compare_with_integer(task, simulated, limit=20)
    first, *_, last = comparison.flips
    assert first.flipped == 0 < last.flipped
    # What a flipped code changes is a rounding too, and every layer has more of them: the metric is what must stay.
    assert abs(comparison.difference.value) < 10
