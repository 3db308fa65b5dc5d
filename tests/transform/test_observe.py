from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vsquant.errors import CalibrationError, NonFiniteError, ShapeError
from vsquant.transform.observe import Observations, observe


class Net(nn.Module):
    """Runs its layers in another order than it names them, one of them by keyword and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.stem = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(input=torch.relu(self.stem(x)))


def run(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)


def seen(model: nn.Module, batches, **options) -> Observations:
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    return observe(model, layers, batches, run, **options)


def net() -> Net:
    torch.manual_seed(0)
    return Net().eval()


BATCHES = [torch.randn(3, 4, generator=torch.Generator().manual_seed(n)) for n in range(2)]


def test_inputs_are_observed_over_all_batches_in_the_order_of_execution() -> None:
    observations = seen(net(), BATCHES)
    assert observations.order == ("stem", "head")
    assert observations.samples == 6
    assert set(observations.statistics) == {"stem", "head"}
    stem, head = observations.statistics["stem"], observations.statistics["head"]
    assert (stem.total, head.total) == (24, 24)
    assert stem.largest_magnitude[0] == torch.cat(BATCHES).abs().max().item()
    assert (stem.is_non_negative, head.is_non_negative) == (False, True)


def test_only_measured_layers_have_statistics_but_all_have_an_order() -> None:
    observations = seen(net(), BATCHES, measured={"head"})
    assert (set(observations.statistics), observations.order) == ({"head"}, ("stem", "head"))


def test_progress_is_told_batch_by_batch() -> None:
    steps = []
    seen(net(), BATCHES, progress=lambda *step: steps.append(step), count=2)
    assert steps == [("calibrating", 0, 2), ("calibrating", 1, 2), ("calibrating", 2, 2)]
    steps.clear()
    seen(net(), iter(BATCHES), progress=lambda *step: steps.append(step))
    assert steps == [("calibrating", 0, 0), ("calibrating", 1, 1), ("calibrating", 2, 2)]


def test_the_model_is_left_without_hooks_even_after_an_error() -> None:
    model = net()
    with pytest.raises(NonFiniteError, match="the input of 'stem' must be finite, not NaN or Inf"):
        seen(model, [torch.full((1, 4), float("nan"))])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_no_batches_are_refused() -> None:
    with pytest.raises(CalibrationError, match="calibration data must hold at least one batch, not none"):
        seen(net(), [])


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        (net(), torch.zeros(2, 5), "input of layer 'stem' must have 4 channels, not 5"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(2, 1, 8, 8), "input of layer '0' must have 3 channels, not 1"),
        (nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), torch.zeros(2, 8, 8), "must have 4 channels, not 2"),
        (nn.Sequential(nn.Conv2d(3, 4, 1)), torch.zeros(8, 8), r"3 channels, not an input of shape \(8, 8\)"),
    ],
)
def test_a_wrong_shape_names_the_layer(model: nn.Module, batch: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        seen(model, [batch])


def test_a_batch_that_the_model_does_not_take_is_refused_by_number() -> None:
    def with_labels(model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch, batch)

    with pytest.raises(
        CalibrationError, match=r"calibration batch 1 must be what the model takes .*positional argument"
    ):
        observe(net(), {}, BATCHES, with_labels)
