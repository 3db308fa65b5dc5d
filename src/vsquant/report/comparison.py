"""One model's score beside the float network's."""

from __future__ import annotations

from typing import Any, Final

from vsquant.report.numbers import difference_text, error_text, metric_text
from vsquant.results import IntegerComparison, Scores

_LAYERS_SHOWN: Final = 3
_FLIPS_EXPLAINED: Final = (
    "Flips are normal, in deep layers up to more than half of all codes: a last bit",
    "moves a code by one step. The metric counts (docs/how-to/run-as-integers.md).",
)


def comparison_text(scores: Scores, baseline: Scores) -> str:
    """Two lines: the score with its standard error, and the difference from float with the paired one."""
    difference = difference_text(scores.difference(baseline), scores.unit)
    return (
        f"{scores.metric} {_with_error(scores)} on {scores.count:,} samples\n"
        f"float {_with_error(baseline)}; difference {difference}, paired"
    )


def _with_error(scores: Scores) -> str:
    value, error = scores.value(), scores.standard_error()
    return f"{metric_text(value, scores.unit)} {error_text(error, scores.unit, value)}"


def comparison_to_json(scores: Scores, baseline: Scores) -> dict[str, Any]:
    """The same as plain values."""
    difference = scores.difference(baseline)
    return {
        "metric": scores.metric,
        "unit": scores.unit,
        "samples": scores.count,
        "value": scores.value(),
        "standard_error": scores.standard_error(),
        "float": {"value": baseline.value(), "standard_error": baseline.standard_error()},
        "difference": {"value": difference.value, "paired_standard_error": difference.standard_error},
    }


def integers_text(comparison: IntegerComparison) -> str:
    """What integers change of the metric, how many codes flip, and the layers where most do."""
    difference = difference_text(comparison.difference, comparison.integer.unit)
    worst = sorted(comparison.flips, key=lambda each: -each.flipped / max(1, each.codes))[:_LAYERS_SHOWN]
    shown = [f"{each.layer or 'the model'} {_share(each.flipped, each.codes)}" for each in worst if each.flipped]
    lines = [
        f"on integers {_with_error(comparison.integer)}; difference from simulated {difference}, paired",
        f"{comparison.chained} of {comparison.layers} layers give codes to the next",
        f"{_share(comparison.flipped, comparison.codes)} of {comparison.codes:,} codes flipped",
    ]
    return "\n".join([*lines, f"most in {', '.join(shown)}", *_FLIPS_EXPLAINED] if shown else lines)


def integers_to_json(comparison: IntegerComparison) -> dict[str, Any]:
    """The same as plain values, every layer's flips among them."""
    difference = comparison.difference
    return {
        "value": comparison.integer.value(),
        "standard_error": comparison.integer.standard_error(),
        "difference_from_simulated": {"value": difference.value, "paired_standard_error": difference.standard_error},
        "codes": comparison.codes,
        "flipped": comparison.flipped,
        "chained_layers": comparison.chained,
        "layers": comparison.layers,
        "flips": [{"layer": each.layer, "codes": each.codes, "flipped": each.flipped} for each in comparison.flips],
    }


def _share(part: int, whole: int) -> str:
    """A percentage to two significant digits."""
    percent = 100 * part / max(1, whole)
    return "none" if part == 0 else f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"
