"""The tables of the README on real data: ``VSQUANT_DATA`` names the folder that holds it. Resumes where it stopped.

Usage: python benchmarks/tables.py [squad-minilm|squad-minilm-all|imagenet-efficientnet-lite0|cifar10 …]
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from provenance import provenance

from vsquant.cli.progress import progress_bars
from vsquant.files import replacing
from vsquant.report import to_json, to_markdown
from vsquant.results import ResultsStore
from vsquant.spec import COMPARISON_FORMATS
from vsquant.tasks.registry import create_task
from vsquant.workflows.table import TableRequest, run_table

RESULTS = Path(__file__).resolve().parent / "results"
LANGUAGE = ("4/8", "4/10", "6/8", "6/10", "fp16", "fp32", "per-channel", "nvfp4", "mxfp4")
IMAGES = ("3/4", "3/6", "4/4", "4/6", "6/4", "6/6", "fp32", "per-channel", "nvfp4", "mxfp4")

TABLES = {
    "squad-minilm": TableRequest(rows=("3/8", "4/8", "6/8", "8/8", "4/4"), columns=LANGUAGE, limit=500),
    "squad-minilm-all": TableRequest(rows=("4/8",), columns=LANGUAGE[:-2]),
    "imagenet-efficientnet-lite0": TableRequest(rows=("4/4U", "6/4U", "6/6U", "8/8U"), columns=IMAGES),
    "cifar10": TableRequest(rows=("3/3U", "4/4U", "6/4U", "6/6U", "8/8U"), columns=IMAGES),
}


def main() -> None:
    """Measure the tables named on the command line, or all."""
    data = Path(os.environ["VSQUANT_DATA"])
    for name in sys.argv[1:] or TABLES:
        task = create_task(name.removesuffix("-all"), data=data)
        for mode in ("requantize", "paper"):
            columns = tuple(c for c in TABLES[name].columns if mode == "requantize" or c not in COMPARISON_FORMATS)
            request = replace(TABLES[name], scale_mode=mode, columns=columns)
            with ResultsStore() as store, progress_bars() as progress:
                table = run_table(task, request, store, progress=progress)
            for suffix, text in (
                ("json", json.dumps({"provenance": provenance(), **to_json(table)}, indent=1) + "\n"),
                ("md", to_markdown(table)),
            ):
                with replacing(RESULTS / f"table-{name}-{mode}.{suffix}") as temporary:
                    temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
