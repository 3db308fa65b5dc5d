"""``vsquant doctor --profile``: a task's network on integers, layer by layer beside float."""

from __future__ import annotations

import json

PROFILE = ("doctor", "tiny", "w4a8-s4/6", "--profile", "--calibration-samples", 16)


def test_where_the_time_goes(vsquant_program) -> None:
    ended = vsquant_program(*PROFILE)
    assert ended.status == 0, ended.err
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "than float" in ended.out and "Outside quantized layers: " in ended.out


def test_every_layer_as_json(vsquant_program) -> None:
    found = json.loads(vsquant_program(*PROFILE, "--batch", 3, "--json").out)
    assert found["layers"][0]["rows"] == 3 * 8 * 8
    assert {layer["spec"] for layer in found["layers"]} == {"w4a8-s4/6-v16"}
    assert found["slower"] == sum(layer["times_faster"] < 1 for layer in found["layers"])


def test_requests_that_are_refused(vsquant_program) -> None:
    both = vsquant_program(*PROFILE, "--sensitivity")
    assert both.status == 2 and "at a time" in both.err
    large = vsquant_program(*PROFILE, "--batch", 17)
    assert large.status == 1 and "batch must be at most 16" in " ".join(large.err.split())
    assert vsquant_program(*PROFILE, "--batch", 0).status == 2
