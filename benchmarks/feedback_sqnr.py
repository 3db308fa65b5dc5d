"""Signal to error of a layer's output with rounding, scale search and error feedback, on synthetic weights and inputs.

Weights w = z·exp(0.5·u), z per element and u per vector standard normal, 128 outputs of 64 vectors of 16. Inputs have
random directions and covariance eigenvalues 1/i, or are white. Error feedback and search by E[x²] see 4,096 rows, and
all are measured on 4,096 others; the mean over the seeds, and the error feedback's on the rows it saw.

Usage: python benchmarks/feedback_sqnr.py
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from files import write, write_result
from torch import Tensor

from vsquant import ErrorFeedback
from vsquant.kernels import QuantizedTensor, dequantize, quantize
from vsquant.optimize import SearchOptions, search_weight
from vsquant.optimize.error_feedback import error_feedback
from vsquant.spec.formats import IntegerFormat

SEEDS: Final = (0, 1, 2)
FORMATS: Final = tuple(IntegerFormat(bits=bits, scale=scale) for bits in (4, 3) for scale in (3, 4, 6))
OUTPUTS: Final = 128
LENGTH: Final = 1024
ROWS: Final = 4096
COLUMNS: Final = ("paper", "requantize", "search", "search by E[x²]", "gptq", "gptq, rows it saw")


def main() -> None:
    """Measure both kinds of inputs and write the files."""
    tables = {title: table(title, exponent) for title, exponent in (("eigenvalues 1/i", 1.0), ("white inputs", 0.0))}
    settings = {"seeds": SEEDS, "outputs": OUTPUTS, "length": LENGTH, "rows": ROWS}
    write_result("feedback-sqnr.json", {**settings, "sqnr_db": tables})
    write("feedback-sqnr.md", "\n\n".join(markdown(title, rows) for title, rows in tables.items()))


def table(title: str, exponent: float) -> list[dict[str, Any]]:
    """One row for each format: every column's mean over the seeds, in dB, and how far those lie apart."""
    by_seed = [layer_sqnr_db(seed, exponent) for seed in SEEDS]
    rows = []
    for fmt in FORMATS:
        values = {column: [of[fmt][column] for of in by_seed] for column in COLUMNS}
        means = {column: statistics.fmean(found) for column, found in values.items()}
        spread = max(max(found) - min(found) for found in values.values())
        rows.append({"N": fmt.bits, "M": fmt.scale, **means, "largest_spread": spread})
        print(title, rows[-1], flush=True)
    return rows


def layer_sqnr_db(seed: int, exponent: float) -> dict[IntegerFormat, dict[str, float]]:
    """One layer and its inputs of one seed, in every format."""
    weight, x = synthetic_weight(seed), synthetic_inputs(seed, exponent)
    seen, others = x[:ROWS], x[ROWS:]
    hessian = (2 / ROWS * seen.double().T @ seen.double()).unsqueeze(0)
    found = {}
    for fmt in FORMATS:
        rounded = quantize(weight, fmt)
        assert rounded.coarse_scale is not None
        gptq = error_feedback(weight, hessian, fmt, ErrorFeedback(), rounded.coarse_scale.reshape(-1)).weight
        weighed = SearchOptions(importance=seen.square().mean(0, keepdim=True))
        results = (
            (quantize(weight, fmt, scale_mode="paper"), others),
            (rounded, others),
            (search_weight(weight, fmt), others),
            (search_weight(weight, fmt, weighed), others),
            (gptq, others),
            (gptq, seen),
        )
        values = (output_sqnr_db(weight, quantized, rows) for quantized, rows in results)
        found[fmt] = dict(zip(COLUMNS, values, strict=True))
    return found


def synthetic_weight(seed: int) -> Tensor:
    """(outputs, 1, length) float32."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(OUTPUTS, LENGTH // 16, 16, generator=generator)
    u = torch.randn(OUTPUTS, LENGTH // 16, 1, generator=generator)
    return (z * (0.5 * u).exp()).reshape(OUTPUTS, 1, LENGTH)


def synthetic_inputs(seed: int, exponent: float) -> Tensor:
    """(2 · rows, length) float32 whose covariance has random directions and eigenvalues i^-exponent."""
    generator = torch.Generator().manual_seed(1000 + seed)
    directions = torch.linalg.qr(torch.randn(LENGTH, LENGTH, generator=generator)).Q
    spread = torch.arange(1, LENGTH + 1) ** (-exponent / 2)
    x: Tensor = (torch.randn(2 * ROWS, LENGTH, generator=generator) * spread) @ directions.T
    return x


def output_sqnr_db(weight: Tensor, quantized: QuantizedTensor, x: Tensor) -> float:
    """Signal over error of x wᵀ, in dB."""
    lost = weight - dequantize(quantized, LENGTH)
    return 10 * math.log10(float((x @ weight[:, 0].T).square().sum() / (x @ lost[:, 0].T).square().sum()))


def markdown(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """One table: SQNR of the output in dB, and what error feedback gains over paper mode."""
    heads = ("N", "M", *COLUMNS, "gptq − paper")
    lines = [f"**{title}**, dB", "", f"| {' | '.join(heads)} |", "|" + " ---: |" * len(heads)]
    for row in rows:
        values = [f"{row[column]:.1f}" for column in COLUMNS]
        gain = f"{row['gptq'] - row['paper']:+.1f}".replace("-0.0", "0.0").replace("-", "−")
        lines.append(f"| {row['N']} | {row['M']} | {' | '.join(values)} | {gain} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
