"""What is not chained, and the reason that the report gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.transform.chains import both, codes_seen, images
from torch import Tensor, nn

import vsquant
from vsquant import Recipe, Rule


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
