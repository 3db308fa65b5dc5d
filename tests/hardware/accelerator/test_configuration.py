"""Accelerators from YAML, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from vsquant.errors import AcceleratorError
from vsquant.hardware.accelerator.configuration import Accelerator, load_accelerator, shipped_accelerators

PLAIN = load_accelerator("edge").model_dump()


def refused(**changes) -> str:
    data = {key: value for key, value in (PLAIN | changes).items() if value != "left out"}
    with pytest.raises(AcceleratorError) as caught:
        Accelerator.parse(yaml.safe_dump(data), "own.yaml")
    return str(caught.value)


def test_those_that_ship_have_a_source() -> None:
    assert shipped_accelerators() == ("edge", "edge-elements", "edge-wide")
    for name in shipped_accelerators():
        found = load_accelerator(name)
        assert found.name == name and "MAGNet" in found.source
        assert Accelerator.parse(yaml.safe_dump(found.model_dump()), name) == found
    assert load_accelerator("edge").peak_macs_per_cycle == 4096


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clock_ghz": 0}, "own.yaml: clock_ghz must be greater than 0, not 0"),
        ({"buffers": {"policy": "bytes", "weight": 1, "shared": 1}}, "buffers.activation must be given, but"),
        ({"buffers": {"weight": 1, "activation": 1, "shared": 1}}, "own.yaml: buffers.policy must be given, but"),
        (
            {"dram": {"kind": "ddr9", "gigabytes_per_second": 1}},
            "own.yaml: dram.kind must be one of ddr4, gddr6, hbm2, not 'ddr9'",
        ),
        ({"dram": "left out"}, "dram must be given, but it is missing"),
        ({"position": 16}, "own.yaml: position is no key of an accelerator; did you mean 'positions'?"),
        ({"lane": {"weight_bits": 4, "activation_bit": 4}}, "lane.activation_bit is no key of an accelerator; did"),
        ({"misfit": "ignore"}, "misfit must be 'refuse', 'passes' or 'wide', not 'ignore'"),
        ({"lanes": "16"}, "lanes must be a valid integer, not '16'"),
        ({"lane": "specs"}, "lane must be 'spec', not 'specs'"),
        ({"lane": {"weight_bits": 9, "activation_bits": 4}}, "lane.weight_bits must be less than or equal to 8, not 9"),
        ({"misfit": "wide"}, "wide_lanes must be there exactly where misfit is 'wide'"),
        (
            {"lane": {"weight_bits": 4, "activation_bits": 4, "product_bits": 4}},
            "product_bits must go with weight_scale_bits and activation_scale_bits, not without",
        ),
    ],
)
def test_a_malformed_accelerator_is_refused(changes, message: str) -> None:
    assert message in refused(**changes)


def test_what_is_no_accelerator_at_all(tmp_path: Path) -> None:
    with pytest.raises(AcceleratorError, match=r"config must be a .yaml file or one of edge, .*did you mean 'edge'"):
        load_accelerator("edgy")
    with pytest.raises(AcceleratorError, match="must be a readable YAML file"):
        load_accelerator(tmp_path / "none.yaml")
    with pytest.raises(AcceleratorError, match="must be YAML"):
        Accelerator.parse("a: [", "own.yaml")
    with pytest.raises(AcceleratorError, match="must have keys and values"):
        Accelerator.parse("- 1", "own.yaml")
