"""What a comparison with integers reads like."""

from __future__ import annotations

import numpy as np

from vsquant.report import integers_text, integers_to_json
from vsquant.results import CodeFlips, IntegerComparison, Scores


def scores(*values: float) -> Scores:
    return Scores(
        metric="top-1",
        unit="%",
        higher_is_better=True,
        values=np.array(values),
        groups=np.arange(len(values)),
        weights=np.ones(len(values)),
    )


def comparison(*flips: CodeFlips) -> IntegerComparison:
    before, after = scores(100, 0, 100, 100), scores(100, 0, 0, 100)
    return IntegerComparison(simulated=before, integer=after, flips=flips, chained=3, layers=5)


FLIPS = [CodeFlips(layer=name, codes=1000, flipped=flipped) for name, flipped in (("a", 0), ("b", 2), ("c", 30))]


def test_the_text() -> None:
    first, second, third, fourth, *explained = integers_text(comparison(*FLIPS)).splitlines()
    assert first.startswith("on integers 50.0 ±") and "; difference from simulated −25.0±" in first
    assert second == "3 of 5 layers give codes to the next"
    assert third == "1.1 % of 3,000 codes flipped"
    assert fourth == "most in c 3 %, b 0.2 %"
    assert "Flips are normal" in explained[0] and "run-as-integers.md" in explained[1]


def test_shares_are_percentages_on_lines_that_fit() -> None:
    name = "bert.encoder.layer.5.attention.output"
    text = integers_text(comparison(*(CodeFlips(layer=f"{name}.{i}", codes=100_000, flipped=i) for i in range(3))))
    assert "0.001 % of 300,000 codes flipped" in text and f"{name}.2 0.002 %" in text
    assert "e-0" not in text


def test_nothing_flipped() -> None:
    assert integers_text(comparison(FLIPS[0])).splitlines()[2:] == ["none of 1,000 codes flipped"]


def test_plain_values() -> None:
    plain = integers_to_json(comparison(*FLIPS))
    assert (plain["value"], plain["codes"], plain["flipped"]) == (50.0, 3000, 32)
    assert (plain["chained_layers"], plain["layers"]) == (3, 5)
    assert plain["difference_from_simulated"]["value"] == -25.0
    assert plain["flips"][2] == {"layer": "c", "codes": 1000, "flipped": 30}
