"""One model's score beside the float network's."""

from __future__ import annotations

from typing import Any

from vsquant.report.numbers import difference_text, error_text, metric_text
from vsquant.results import Scores


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
