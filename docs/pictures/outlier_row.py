"""Draw outlier_row.svg: one weight row with one large vector, on one grid for the row and on a grid per vector."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vsquant import reference
from vsquant.spec import LayerSpec

V = 16
VECTORS = 4
LARGE = 2
BLUE, RED, GREY = "#1565c0", "#c62828", "#b0bec5"


def weight_row() -> npt.NDArray[np.float32]:
    """One row of 64 weights; those of vector 2 are eight times as large."""
    row = np.random.default_rng(7).normal(0, 0.05, (1, V * VECTORS)).astype(np.float32)
    row[:, LARGE * V : (LARGE + 1) * V] *= 8
    return row


def panel(axes: Axes, row: npt.NDArray[np.float32], spec: str, title: str) -> None:
    """The row, its grid, and where each weight lands on it."""
    quantized = reference.quantize(row, LayerSpec.parse(spec).weight)
    assert quantized.coarse_scale is not None
    values = quantized.dequantize()[0]
    sigma = np.ones(VECTORS) if quantized.vector_scale is None else quantized.vector_scale[0]
    for j, step in enumerate(sigma * quantized.coarse_scale[0]):
        levels = np.arange(-7, 8) * step
        axes.hlines(levels, j * V - 0.5, (j + 1) * V - 0.5, color=GREY, linewidth=0.6)
    error = np.sqrt(np.mean((values - row[0])[np.arange(V * VECTORS) // V != LARGE] ** 2))
    axes.vlines(np.arange(V * VECTORS), row[0], values, color=RED, linewidth=1)
    axes.plot(row[0], ".", color=BLUE, markersize=6, label="weight")
    axes.plot(values, "x", color=RED, markersize=5, label="its nearest level")
    for edge in range(1, VECTORS):
        axes.axvline(edge * V - 0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_title(f"{title}: error of the three small vectors {error:.4f} rms", loc="left", fontsize=10)
    axes.set_xlim(-0.5, V * VECTORS - 0.5)
    axes.set_ylabel("value")


def draw(path: Path) -> None:
    """Write the picture to ``path``."""
    matplotlib.rcParams.update({"svg.hashsalt": "vsquant", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure = Figure(figsize=(9, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, sharey=True)
    row = weight_row()
    panel(upper, row, "w4a16", "one 4-bit grid for the row (per-channel)")
    panel(lower, row, "w4a16-s4/x-v16", "a 4-bit grid per vector of 16, 4-bit scales (4.25 bits a weight)")
    upper.legend(loc="upper left", fontsize=9)
    lower.set_xlabel("position along the input channels")
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".svg"))
