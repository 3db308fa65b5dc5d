"""How long scale search of a model of 109 million weights takes by `vsquant.quantize`, and how much memory.

The model is BERT-base (embeddings, 12 layers, pooler) with synthetic weights w = z·exp(0.5·u), z per element and u per
vector of 16 standard normal, seed 0; every linear layer and embedding is quantized, weights alone. Each case runs in a
process of its own; peak memory is the process's, with PyTorch, the float model and the quantized one.

Usage: python benchmarks/search_time.py [CASE …]   (rtn, or scale bits, or those with :gamma; others stay as they were)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import torch
from files import RESULTS, write, write_result
from provenance import provenance
from torch import nn
from transformers import BertConfig, BertModel

import vsquant

CASES: Final = ("rtn", "3", "4", "6", "4:gamma", "6:gamma")
RESULT: Final = "search-time.json"
THREADS: Final = 2


def main() -> None:
    """Measure the cases named on the command line, or all, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--inside", help="measure one case in this process and print it")
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(measured(arguments.inside)))
        return
    path = RESULTS / RESULT
    cases: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.is_file() else {}
    for case in arguments.cases or CASES:
        cases[case] = in_a_process(case)
        print(case, cases[case], flush=True)
        known: dict[str, Any] = {name: cases[name] for name in CASES if name in cases}
        write_result(RESULT, {"model": "BERT-base, synthetic weights, seed 0", "threads": THREADS, "cases": known})
        write("search-time.md", markdown(known))


def in_a_process(case: str) -> dict[str, Any]:
    """One case's figures, from a process of its own."""
    command = [sys.executable, __file__, "--inside", case]
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    origin = provenance()
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures | {"commit": origin["commit"], "date": origin["date"]}


def measured(case: str) -> dict[str, Any]:
    """Quantize the model and say what it took."""
    model = synthetic_model()
    bits, _, gamma = case.partition(":")
    method = vsquant.Rounding() if bits == "rtn" else vsquant.ScaleSearch(gamma=gamma == "gamma")
    spec = f"w4a16-s{4 if bits == 'rtn' else bits}/x"
    recipe = vsquant.Recipe.from_mapping({"rules": [{"match": "*", "type": "embedding", "spec": spec}, {"spec": spec}]})
    before = peak_bytes()
    wall, cpu = time.perf_counter(), time.process_time()
    quantized = vsquant.quantize(model, recipe, method=method)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    codes = [layer.weight_codes for _, layer in vsquant.quantized_layers(quantized)]
    weights = sum(tensor.numel() for tensor in codes if tensor is not None)
    return {
        "weights": weights, "model_bytes": sum(4 * p.numel() for p in model.parameters()),
        "peak_bytes_before": before, "peak_bytes": peak_bytes(), "wall_seconds": wall, "cpu_seconds": cpu,
    }  # fmt: skip


@torch.no_grad()
def synthetic_model() -> nn.Module:
    """BERT-base whose every weight has rows of vectors of different sizes."""
    model: nn.Module = BertModel(BertConfig())
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Embedding)):
            shape = (module.weight.shape[0], -1, 16)
            z = torch.randn(module.weight.shape, generator=generator).reshape(shape)
            u = torch.randn(*z.shape[:2], 1, generator=generator)
            module.weight.copy_(z.mul_((0.5 * u).exp()).reshape(module.weight.shape))
    return model.eval()


def peak_bytes() -> int:
    """The most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def markdown(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """The table for the pages."""
    lines = [
        "| w4, 109 million weights | wall, s | CPU, s | peak memory, GB | before quantizing, GB | float weights, GB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case, found in cases.items():
        bits, _, gamma = case.partition(":")
        name = "`rtn`, M = 4" if bits == "rtn" else f"`search{':gamma=true' if gamma else ''}`, M = {bits}"
        sizes = (found[key] / 1e9 for key in ("peak_bytes", "peak_bytes_before", "model_bytes"))
        figures = (f"{found['wall_seconds']:.1f}", f"{found['cpu_seconds']:.1f}", *(f"{size:.2f}" for size in sizes))
        lines.append(f"| {' | '.join((name, *figures))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
