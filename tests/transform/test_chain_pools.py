"""Max pooling of codes between integer layers."""

from __future__ import annotations

import pytest
import torch
from tests.transform.chains import both, codes_seen, images
from torch import Tensor, nn

import vsquant


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
