"""The front by definition, and ties told as such."""

from __future__ import annotations

import numpy as np

from vsquant.results.front import standings
from vsquant.results.points import PointRecord, PointSpec
from vsquant.results.records import Provenance
from vsquant.results.scores import Scores


def record(values: list[float], size: int, network: str = "n") -> PointRecord:
    scores = Scores(
        metric="top-1",
        unit="%",
        higher_is_better=True,
        values=np.array(values),
        groups=np.arange(len(values)),
        weights=np.ones(len(values)),
    )
    return PointRecord(
        point=PointSpec(network=network, spec=f"w{size}", family="vector"),
        title="",
        scores=scores,
        weight_bytes=size,
        model_bytes=size,
        layers=(),
        quantize_seconds=0,
        evaluate_seconds=0,
        provenance=Provenance(vsquant="", torch="", machine="", created=""),
    )


LOW, HIGH = [0.0] * 50 + [100.0] * 50, [100.0] * 100
SLIGHTLY = [100.0, *LOW[1:]]


def test_more_accuracy_for_more_bytes_is_the_front() -> None:
    assert standings([record(LOW, 1), record(HIGH, 2)], "bytes") == ("front", "front")


def test_less_accuracy_for_more_bytes_is_dominated() -> None:
    assert standings([record(HIGH, 1), record(LOW, 2)], "bytes") == ("front", "dominated")
    assert standings([record(HIGH, 1), record(HIGH, 2)], "bytes") == ("front", "dominated")


def test_a_gain_within_its_paired_error_is_tied() -> None:
    assert standings([record(LOW, 1), record(SLIGHTLY, 2)], "bytes") == ("front", "tied")
    assert standings([record(LOW, 1), record(LOW, 1)], "bytes") == ("tied", "tied")


def test_networks_have_fronts_of_their_own_and_unknown_costs_none() -> None:
    assert standings([record(HIGH, 1), record(LOW, 2, "m")], "bytes") == ("front", "front")
    assert standings([record(HIGH, 1)], "energy") == ("unknown",)
