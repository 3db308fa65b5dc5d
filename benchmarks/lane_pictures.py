"""Tables and pictures of results/lane-cost.json, beside what rounding costs, results/rounding-accuracy.json.

Writes results/lane-cost.md, lane-cost.png and lane-rounding.png, and with --ship the table that the package has.

Usage: python benchmarks/lane_pictures.py [--ship]
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, Final

from files import RESULTS, write

import vsquant.hardware
from vsquant.hardware.lane_costing import read_costs
from vsquant.report.lane_cost import lane_costs_text
from vsquant.report.lane_picture import RoundedAccuracy, write_lane_picture, write_rounding_picture
from vsquant.spec.layer import LayerSpec

COSTS: Final = RESULTS / "lane-cost.json"
ROUNDED: Final = ("w4a8-s6/10-v16", "w4a4-s4/4-v16")
TITLES: Final = {"cifar10": "ResNet-20 on CIFAR-10", "squad-minilm": "MiniLM on SQuAD"}
SHIPPED: Final = Path(vsquant.hardware.__file__).parent / "tables" / "lane_prices.json"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ship", action="store_true", help="replace the table in the package too")
    costs = read_costs(COSTS)
    write("lane-cost.md", f"```text\n{lane_costs_text(costs)}\n```")
    write_lane_picture(costs, RESULTS / "lane-cost.png")
    found = json.loads((RESULTS / "rounding-accuracy.json").read_text("utf-8"))
    accuracies = [rounded(found[task], spec, TITLES[task]) for spec in ROUNDED for task in TITLES if task in found]
    write_rounding_picture(costs, ROUNDED, accuracies, RESULTS / "lane-rounding.png")
    if parser.parse_args().ship:
        shutil.copyfile(COSTS, SHIPPED)


def rounded(result: dict[str, Any], spec: str, title: str) -> RoundedAccuracy:
    """What one task has of one format, by P."""
    by_bits = {
        row["product_bits"]: row for row in result["rows"] if row["product_bits"] and row["spec"].split("-p")[0] == spec
    }
    return RoundedAccuracy(
        title=f"{LayerSpec.parse(spec)}, {title}".replace("-v16", ""),
        metric=result["metric"],
        changes={bits: row["from_exact_product"]["value"] for bits, row in by_bits.items()},
        errors={bits: row["from_exact_product"]["standard_error"] for bits, row in by_bits.items()},
    )


if __name__ == "__main__":
    main()
