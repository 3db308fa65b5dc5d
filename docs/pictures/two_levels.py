"""Draw two_levels.svg: float vector scales on the grid of one coarse scale, and how a vector is stored."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vsquant import reference
from vsquant.spec import LayerSpec

V = 16
VECTORS = 12
BLUE, RED, GREY, PALE = "#1565c0", "#c62828", "#b0bec5", "#e3f2fd"


def scales_panel(axes: Axes) -> None:
    """The float scale of each vector as a bar, the grid k*gamma, and the integer each vector keeps."""
    spread = np.repeat(np.random.default_rng(3).lognormal(-3, 0.7, VECTORS), V)
    row = (np.random.default_rng(4).normal(0, 1, VECTORS * V) * spread).astype(np.float32)[None]
    single = reference.quantize(row, LayerSpec.parse("w4a16-sfp32/x").weight)
    double = reference.quantize(row, LayerSpec.parse("w4a16-s4/x").weight)
    assert single.vector_scale is not None and double.vector_scale is not None and double.coarse_scale is not None
    gamma, sigma = double.coarse_scale[0], double.vector_scale[0]
    axes.hlines(np.arange(16) * gamma, -0.6, VECTORS - 0.4, color=GREY, linewidth=0.6)
    axes.bar(np.arange(VECTORS), single.vector_scale[0], width=0.55, color=PALE, edgecolor=BLUE)
    axes.plot(np.arange(VECTORS), sigma * gamma, "_", color=RED, markersize=22, markeredgewidth=2)
    for j, integer in enumerate(sigma):
        above = max(integer * gamma, single.vector_scale[0, j])
        axes.text(j, above + 0.25 * gamma, str(integer), color=RED, ha="center", va="bottom", fontsize=10)
    axes.set_xlim(-0.6, VECTORS - 0.4)
    axes.set_ylim(0, 16.8 * gamma)
    axes.set_yticks([0, gamma, 15 * gamma], ["0", "γ", "15 γ"])
    axes.set_xticks(np.arange(VECTORS), [f"s{j}" for j in range(VECTORS)])
    axes.set_title("float scale of each vector (bar), the multiple σ of γ that is kept (red)", loc="left", fontsize=10)


def storage_panel(axes: Axes) -> None:
    """One vector's 68 bits: its scale and sixteen codes."""
    for cell in range(V + 1):
        is_scale = cell == 0
        left = 0.0 if is_scale else cell * 4 + 1.0
        axes.add_patch(Rectangle((left, 0), 4, 1, facecolor="#ffebee" if is_scale else PALE, edgecolor="black", lw=0.8))
        axes.text(left + 2, 0.5, "σ" if is_scale else f"q{cell - 1}", ha="center", va="center", fontsize=9)
    axes.text(2, -0.35, "4 bits", ha="center", va="top", fontsize=9)
    axes.text(37, -0.35, "16 codes of 4 bits: 68 bits a vector, 4.25 a weight", ha="center", va="top", fontsize=9)
    axes.set_xlim(-0.5, 69.5)
    axes.set_ylim(-1.2, 1.1)
    axes.axis("off")


def draw(path: Path) -> None:
    """Write the picture to ``path``."""
    matplotlib.rcParams.update({"svg.hashsalt": "vsquant", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure = Figure(figsize=(9, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[5, 1])
    scales_panel(upper)
    storage_panel(lower)
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".svg"))
