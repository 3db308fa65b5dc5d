"""Weight SQNR of rounding and of scale search, on synthetic and on real weights (``VSQUANT_DATA`` names their folder).

SQNR is 10 log10 of the sum of w² over the sum of (w - ŵ)², of each layer; a network has the mean over its layers.
Usage: python benchmarks/weight_sqnr.py
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from files import real_task, write, write_result
from torch import Tensor

from vsquant.cli.progress import progress_bars
from vsquant.errors import ScaleRangeError
from vsquant.kernels import QuantizedTensor, dequantize, quantize
from vsquant.optimize import SearchOptions, search_weight
from vsquant.progress import Progress
from vsquant.spec.formats import IntegerFormat, VectorScale
from vsquant.transform.float_layers import float_weight
from vsquant.transform.match import find_layers
from vsquant.transform.recipe import DEFAULT_KINDS
from vsquant.workflows.ptq import prepare

BITS: Final = (3, 4, 6, 8)
SCALE_BITS: Final[tuple[VectorScale, ...]] = (3, 4, 6, 8, 10, "fp32")
MOST_JOINT_BITS: Final = 6
MOST_OPTION_BITS: Final = 8
MOST_BITS: Final = 10
SEED: Final = 0
NETWORKS: Final = {
    "squad-minilm": ("MiniLM-L6-H384 fine-tuned on SQuAD, one output channel in 8", 8),
    "imagenet-efficientnet-lite0": ("EfficientNet-Lite0 without its depthwise layers, one output channel in 4", 4),
    "cifar10": ("ResNet-20", 1),
    "cifar10-resnet32": ("ResNet-32", 1),
}
"""What each task's network is called, and that one output channel in so many is quantized."""

Layers = Sequence[Tensor]


def rounded(rows: Tensor, fmt: IntegerFormat, mode: str) -> QuantizedTensor:
    """Rounding in a scale mode."""
    return quantize(rows, fmt, scale_mode="paper" if mode == "paper" else "requantize")


def searched(rows: Tensor, fmt: IntegerFormat, gamma: str) -> QuantizedTensor:
    """Scale search, of gamma too or not."""
    return search_weight(rows, fmt, SearchOptions(gamma=gamma == "gamma"))


FULL: Final = {"full_range": True}
TOP: Final = {"scale_top_pow2": True}
G16: Final = {"coarse_fp16": True}
COLUMNS: Final[Mapping[str, tuple[Callable[[Tensor, IntegerFormat, str], QuantizedTensor], str, dict[str, bool]]]] = {
    "paper": (rounded, "paper", {}),
    "requantize": (rounded, "requantize", {}),
    "search": (searched, "", {}),
    "search γ": (searched, "gamma", {}),
    "requantize -full": (rounded, "requantize", FULL),
    "search -full": (searched, "", FULL),
    "search -top": (searched, "", TOP),
    "search -g16": (searched, "", G16),
    "search γ -full -top": (searched, "gamma", FULL | TOP),
}


def main() -> None:
    """Measure and write the result files."""
    with progress_bars("nothing was written") as progress:
        tables = {name: table(layers, name, progress) for name, layers in sources()}
    write_result("weight-sqnr.json", {"synthetic_seed": SEED, "sqnr_db": tables})
    write("weight-sqnr.md", "\n\n".join(markdown(name, rows) for name, rows in tables.items()))


def sources() -> Iterator[tuple[str, Layers]]:
    """The synthetic weights, and those of each network."""
    yield f"synthetic, seed {SEED}", [synthetic(256)]
    for task, (title, step) in NETWORKS.items():
        yield title, network_weights(task, step)


def synthetic(rows: int) -> Tensor:
    """(rows, 1, 1024): w = z·exp(0.5·u), z per element and u per vector standard normal, 64 vectors a row."""
    generator = torch.Generator().manual_seed(SEED)
    z = torch.randn(rows, 64, 16, generator=generator)
    u = torch.randn(rows, 64, 1, generator=generator)
    return (z * (0.5 * u).exp()).reshape(rows, 1, 1024)


@torch.no_grad()
def network_weights(name: str, step: int) -> list[Tensor]:
    """(K, positions, C) of every layer that takes vectors of 16, batch norms folded; one output channel in ``step``."""
    task = real_task(name)
    model = task.load_model()
    prepared = prepare(model, None, batchnorm_pairs=task.batchnorm_pairs(model)).model
    layers = [layer.module for layer in find_layers(prepared) if layer.kind in DEFAULT_KINDS]
    weights = [float_weight(layer) for layer in layers if getattr(layer, "groups", 1) == 1]
    return [rows_of(weight[::step]).contiguous() for weight in weights]


def rows_of(weight: Tensor) -> Tensor:
    """(K, C, *kernel) as (K, positions, C)."""
    return weight.flatten(2).transpose(1, 2) if weight.dim() > 2 else weight.unsqueeze(1)


def table(layers: Layers, name: str, progress: Progress) -> list[dict[str, float | VectorScale]]:
    """One row for each N and M: the SQNR in dB of every column, None where it is not measured."""
    rows = []
    cells = [(bits, scale) for bits in BITS for scale in SCALE_BITS]
    for done, (bits, scale) in enumerate(cells):
        progress(name, done, len(cells))
        fmt = IntegerFormat(bits=bits, scale=scale)
        rows.append({"N": bits, "M": scale, **{column: cell(layers, fmt, column) for column in COLUMNS}})
    progress(name, len(cells), len(cells))
    return rows


def cell(layers: Layers, fmt: IntegerFormat, column: str) -> float | None:
    """Mean SQNR over the layers, in dB."""
    method, option, changes = COLUMNS[column]
    if not measured(fmt.scale, column):
        return None
    chosen = replace(fmt, **changes)
    try:
        return statistics.fmean(sqnr_db(rows, method(rows, chosen, option)) for rows in layers)
    except ScaleRangeError:
        return None


def measured(scale: VectorScale, column: str) -> bool:
    """Whether a column is measured at that many scale bits; what has no meaning or is dear is not."""
    method, option, changes = COLUMNS[column]
    if not isinstance(scale, int):
        return method is rounded and option == "requantize"
    return scale <= (MOST_JOINT_BITS if option == "gamma" else MOST_OPTION_BITS if changes else MOST_BITS)


def sqnr_db(rows: Tensor, quantized: QuantizedTensor) -> float:
    """Signal over quantization noise of one layer, in dB."""
    exact = rows.double()
    noise = (dequantize(quantized, rows.shape[2]).double() - exact).square().sum()
    return 10 * math.log10(float(exact.square().sum() / noise))


def markdown(name: str, rows: Sequence[Mapping[str, float | VectorScale]]) -> str:
    """One source's table: SQNR in dB."""
    lines = [f"**{name}**, dB", "", f"| N | M | {' | '.join(COLUMNS)} |", "| ---: |" * 2 + " ---: |" * len(COLUMNS)]
    for row in rows:
        values = ["–" if row[column] is None else f"{row[column]:.2f}" for column in COLUMNS]
        lines.append(f"| {row['N']} | {row['M']} | {' | '.join(values)} |")
    return "\n".join(lines).replace("|| ", "| ")


if __name__ == "__main__":
    main()
