"""The reference against reference-v1.json, whose numbers come from exact fractions; floats by their bits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vsquant import LayerSpec, reference
from vsquant.spec.formats import IntegerFormat

HERE = Path(__file__).parent
SCRIPT = HERE / "make_reference.py"
GOLDEN = json.loads((HERE / "reference-v1.json").read_text(encoding="utf-8"))


def floats(hexes: list) -> np.ndarray:
    """Nested hexadecimal bit patterns as float32."""
    return (
        np.array([int(text, 16) for text in np.ravel(hexes)], dtype=np.uint32).view(np.float32).reshape(np.shape(hexes))
    )


def assert_same_bits(ours: np.ndarray, hexes: list) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(np.ascontiguousarray(ours).view(np.uint32), floats(hexes).view(np.uint32))


def assert_same_scale(ours: np.ndarray | None, golden: list | None) -> None:
    if golden is None:
        assert ours is None
    elif isinstance(np.ravel(golden)[0], str):
        assert_same_bits(ours, golden)
    else:
        assert ours.dtype == np.int32 and ours.tolist() == golden


@pytest.mark.parametrize("case", GOLDEN["quantize"], ids=lambda case: case["name"])
def test_quantize(case):
    range_ = None if case["coarse_range"] is None else floats(case["coarse_range"])
    fmt = IntegerFormat(**case["format"])
    ours = reference.quantize(floats(case["x"]), fmt, case["share"], case["scale_mode"], coarse_range=range_)
    assert ours.codes.dtype == np.int32 and ours.codes.tolist() == case["codes"]
    assert_same_scale(ours.vector_scale, case["vector_scale"])
    assert_same_scale(ours.coarse_scale, case["coarse_scale"])
    assert_same_bits(ours.dequantize(), case["values"])


@pytest.mark.parametrize("case", GOLDEN["linear"], ids=lambda case: f"{case['spec']}, {case['scale_mode']}")
def test_linear(case):
    range_ = case["activation_range"]
    S, y = reference.linear(
        floats(case["x"]),
        floats(case["w"]),
        LayerSpec.parse(case["spec"]),
        case["scale_mode"],
        bias=floats(case["bias"]),
        activation_range=None if range_ is None else float(floats(range_)),
    )
    assert S.dtype == np.int64 and S.tolist() == case["S"]
    assert_same_bits(y, case["y"])


def test_the_file_holds_the_edges_it_is_there_for():
    cases = {case["name"]: case for case in GOLDEN["quantize"]}
    assert len(cases) == len(GOLDEN["quantize"])
    subnormal = floats(cases["subnormal gamma, s4, paper"]["coarse_scale"])
    assert 0 < subnormal[0] < np.finfo(np.float32).tiny
    saturated = cases["static saturated, s4, paper"]
    assert 15 in np.ravel(saturated["vector_scale"])
    assert floats(saturated["values"]).max() < floats(saturated["x"]).max() / 2
    assert floats(cases["gamma underflows to zero, s4, paper"]["coarse_scale"])[0] == 0
    assert min(np.ravel(cases["full: paper, per row"]["codes"])) == -8
    assert max(np.ravel(cases["top: requantize, per row"]["vector_scale"])) == 16
    loud = cases["one loud vector and one faint, s4, paper"]["vector_scale"]
    assert loud == [[15, 0]]
    assert cases["one loud vector and one faint, s4, requantize"]["vector_scale"] == [[15, 1]]


def test_the_script_still_gives_the_file_and_needs_only_the_standard_library():
    run = "import sys, make_reference as m; print(end=m.text()); assert not {'numpy', 'vsquant'} & set(sys.modules)"
    out = subprocess.run([sys.executable, "-c", run], cwd=HERE, capture_output=True, text=True, check=True).stdout
    assert out == (HERE / "reference-v1.json").read_text(encoding="utf-8")


def test_the_script_refuses_to_overwrite():
    before = (HERE / "reference-v1.json").read_bytes()
    result = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "FileExistsError" in result.stderr
    assert (HERE / "reference-v1.json").read_bytes() == before
