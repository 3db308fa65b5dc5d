"""Options given as text are refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vsquant.errors import CalibrationError, RecipeError, SpecError
from vsquant.workflows import checked
from vsquant.workflows.ptq import Calibrators


def test_a_recipe_from_a_spec_or_a_file(tmp_path: Path) -> None:
    assert str(checked.checked_recipe("w4a8-s4/6").rules[0].spec) == "w4a8-s4/6-v16"
    path = tmp_path / "recipe.yaml"
    path.write_text("rules:\n  - {match: head, skip: true}\n  - {spec: w8a8}\n")
    assert [rule.skip for rule in checked.checked_recipe(str(path)).rules] == [True, False]
    with pytest.raises(RecipeError, match=r"a recipe must be a file that exists, not '.*none\.yml'"):
        checked.checked_recipe(str(tmp_path / "none.yml"))
    with pytest.raises(SpecError, match="cannot read the layer spec 'w99'"):
        checked.checked_recipe("w99")


@pytest.mark.parametrize(
    ("check", "good", "message"),
    [
        (
            checked.checked_scale_mode,
            ("paper", "requantize", "search"),
            "scale mode must be one of paper, requantize, search, not 'x'",
        ),
        (checked.checked_gamma, ("static", "tensor", "token"), "gamma must be one of static, tensor, token, not 'x'"),
        (checked.checked_first_last, ("same", "8bit", "float"), "first-last must be one of same, 8bit, float, not 'x'"),
    ],
)
def test_words(check: Callable[[str], Any], good: tuple[str, ...], message: str) -> None:
    assert tuple(check(word) for word in good) == good
    with pytest.raises(SpecError) as raised:
        check("x")
    assert str(raised.value) == message


def test_calibrators() -> None:
    assert checked.checked_calibrators("entropy", "mse") == Calibrators(activation="entropy", weight="mse")
    with pytest.raises(CalibrationError, match="'average'"):
        checked.checked_calibrators("average", "max")
    with pytest.raises(SpecError, match="weight calibrator must be one of max, mse, not 'entropy'"):
        checked.checked_calibrators("max", "entropy")
