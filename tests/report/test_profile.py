"""What a profile reads like: one sentence, totals, and equal layers together within 80 columns."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from vsquant.report.profile import profile_summary, profile_to_json, render_profile
from vsquant.results import IntegerProfile, LayerProfile


def layer(name: str, float_ms: float, integer_ms: float, **changed: Any) -> LayerProfile:
    facts: dict[str, Any] = {
        "kind": "linear", "spec": "w4a8-s4/8-v16", "shape": (3072, 768), "rows": 128, "calls": 1, "takes_codes": False,
        "gives_codes": True, "backend": "cpu", "reason": "",
    }  # fmt: skip
    return LayerProfile(name=name, float_seconds=float_ms / 1e3, integer_seconds=integer_ms / 1e3, **(facts | changed))


EAGER = {"backend": "eager", "reason": "VSQUANT_BACKEND is 'eager'"}
BLOCKS = [layer(f"bert.encoder.layer.{block}.intermediate.dense", 4.0, 1.0) for block in range(6)]


def profile(*layers: LayerProfile, model_ms: float = 10.0) -> IntegerProfile:
    return IntegerProfile(layers=layers, model_seconds=model_ms / 1e3, threads=1, isa="avx2")


def shown(found: IntegerProfile) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render_profile(found))
    return console.export_text().splitlines()


def test_the_sentence() -> None:
    assert profile_summary(profile(*BLOCKS)) == "No layer is slower than float."
    assert profile_summary(profile(BLOCKS[0])) == "The only layer is not slower than float."
    found = profile(layer("tiny", 0.004, 0.012, calls=2), *BLOCKS, layer("odd", 1.0, 2.0, **EAGER))
    assert profile_summary(found) == (
        "2 of 8 layers are slower than float: odd, eager because VSQUANT_BACKEND is 'eager'; "
        "tiny, native at 6.00 µs a call."
    )
    small = [layer(f"block.{index}.fc", 0.004, 0.012) for index in range(4)]
    assert profile_summary(profile(*small, *BLOCKS)) == (
        "4 of 10 layers are slower than float: block.*.fc, native at up to 12.0 µs a call."
    )


def test_totals_and_shares() -> None:
    found = profile(*BLOCKS)
    assert (found.float_seconds, found.integer_seconds, found.outside_seconds) == (0.024, 0.006, 0.004)
    assert found.share(BLOCKS[0]) == 0.1
    lines = shown(found)
    assert lines[1] == "Quantized layers: 6.00 ms on integers, 24.0 ms in float (4.00 times faster)."
    assert lines[2] == "Outside quantized layers: 4.00 ms, 40% of the model's 10.0 ms."


def test_layers_timed_alone_may_take_longer_than_the_model() -> None:
    found = profile(*BLOCKS, model_ms=5.0)
    assert found.outside_seconds == 0 and sum(map(found.share, found.layers)) == pytest.approx(1)


def test_equal_layers_stand_together_within_80_columns() -> None:
    lines = shown(profile(*BLOCKS, layer("odd", 1.0, 2.0, takes_codes=True, gives_codes=False, **EAGER)))
    assert max(map(len, lines)) <= 80
    start = lines.index("bert.encoder.layer.*.intermediate.dense")
    assert " ".join(lines[start + 1].split()) == "6 3072×768 128 floats → codes 24.000 6.000 4.00× 60%"
    assert lines[start + 2] == "odd"
    assert " ".join(lines[start + 3].split()) == "1 3072×768 128 codes → floats 1.000 2.000 0.50× 20%"
    assert lines[start + 4] == "eager: VSQUANT_BACKEND is 'eager'"
    assert "native kernels: avx2, 1 thread" in " ".join(lines)


def test_plain_values_have_every_layer() -> None:
    plain = json.loads(json.dumps(profile_to_json(profile(*BLOCKS, layer("odd", 1.0, 2.0, **EAGER)))))
    assert [each["name"] for each in plain["layers"]][-1] == "odd" and len(plain["layers"]) == 7
    assert plain["layers"][-1]["times_faster"] == 0.5 and plain["layers"][-1]["share"] == 0.2
    assert plain["slower"] == 1 and plain["summary"].startswith("1 of 7 layers is slower")
    assert plain["float_seconds"] == 0.025 and plain["isa"] == "avx2"
