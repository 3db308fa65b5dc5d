"""From which size on a linear layer is faster on integers than in float: CPU time, interleaved in one run, medians.

Usage: OMP_NUM_THREADS=1 python benchmarks/small_layers.py [--rounds N]
"""

from __future__ import annotations

import argparse
import dataclasses

import torch
from files import write_result
from torch import nn

import vsquant
from vsquant.results import LayerProfile

METHOD = "vsquant.profile_integer of one square linear layer, float in and out: CPU time, interleaved, medians"
SPECS = ("w4a8-s4/8", "w4a8-s4/x", "w8a8")
SIZES = (64, 128, 256, 512, 1024)
ROWS = (1, 16, 128)


def main() -> None:
    """Measure every size, print how much faster integers are and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=51)
    rounds = parser.parse_args().rounds
    cases = [(spec, size, rows) for spec in SPECS for size in SIZES for rows in ROWS]
    layers = [measure(spec, size, rows, rounds) for spec, size, rows in cases]
    kept = ("spec", "shape", "rows", "backend", "float_seconds", "integer_seconds")
    plain = [{key: dataclasses.asdict(layer)[key] for key in kept} for layer in layers]
    write_result("small-layers.json", {"method": METHOD, "rounds": rounds, "layers": plain})


def measure(spec: str, size: int, rows: int, rounds: int) -> LayerProfile:
    """One square layer on ``rows`` rows of one sample."""
    torch.manual_seed(0)
    x = torch.randn(1, rows, size)
    simulated = vsquant.quantize(nn.Sequential(nn.Linear(size, size)).eval(), spec, calibration=[x])
    [layer] = vsquant.profile_integer(vsquant.to_integer(simulated), x, rounds=rounds).layers
    print(
        f"{layer.spec:14} {size:5} x {size:<5} {rows:4} rows  float {1e6 * layer.float_seconds:8.1f} us  "
        f"integer {1e6 * layer.integer_seconds:8.1f} us  {layer.times_faster:5.2f} times faster"
    )
    return layer


if __name__ == "__main__":
    main()
