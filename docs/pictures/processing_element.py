"""Draw processing_element.svg: the blocks of a processing element, and what passes between them."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

BLUE, GREY, PALE, WHITE, MEMORY = "#1565c0", "#546e7a", "#e3f2fd", "#ffffff", "#fff3e0"

Point = tuple[float, float]


def box(axes: Axes, corner: Point, size: Point, text: str, colour: str = PALE) -> None:
    """A rounded box with its text in the middle."""
    axes.add_patch(
        FancyBboxPatch(corner, *size, boxstyle="round,pad=0,rounding_size=0.12", facecolor=colour, edgecolor=GREY)
    )
    axes.text(corner[0] + size[0] / 2, corner[1] + size[1] / 2, text, ha="center", va="center", fontsize=8.5)


def arrow(axes: Axes, start: Point, end: Point, text: str = "", offset: Point = (0, 0.12)) -> None:
    """An arrow with its text beside the middle."""
    axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.2})
    middle = ((start[0] + end[0]) / 2 + offset[0], (start[1] + end[1]) / 2 + offset[1])
    axes.text(*middle, text, ha="center", va="bottom", fontsize=7.5, color=BLUE)


def element(axes: Axes) -> None:
    """The lanes in the middle, buffers to their left, what leaves to their right."""
    box(axes, (0, 5.2), (2.6, 0.9), "sequencer\none command a tile")
    box(axes, (0, 3.2), (2.6, 1.2), "activation buffer\n2 banks, codes and σ", MEMORY)
    for i in (2, 1, 0):
        x, y = 4.0 + 0.22 * i, 1.6 + 0.22 * i
        axes.add_patch(
            FancyBboxPatch((x, y), 4.3, 3.0, boxstyle="round,pad=0,rounding_size=0.12", facecolor=WHITE, edgecolor=GREY)
        )
    axes.text(4.15, 4.38, "lane, LANES of them", fontsize=8.5, color=GREY)
    box(axes, (4.15, 1.75), (1.8, 0.95), "weight buffer\n2 banks", MEMORY)
    box(axes, (4.15, 3.1), (1.8, 1.1), "vector MAC\nV multipliers,\nρ(σ·σ)")
    box(axes, (6.4, 3.1), (1.75, 1.1), "collector\n2 × DEPTH\naccumulators")
    arrow(axes, (5.05, 2.7), (5.05, 3.1))
    arrow(axes, (5.95, 3.65), (6.4, 3.65))
    arrow(axes, (2.6, 3.8), (4.15, 3.8), "one vector\nto all lanes", (-0.1, 0.08))
    arrow(axes, (1.3, 5.2), (1.3, 4.4), "which words", (0.75, -0.1))
    axes.plot([2.6, 10.55], [5.65, 5.65], color=BLUE, linewidth=1.2)
    axes.text(7.0, 5.75, "which sums are complete", ha="center", va="bottom", fontsize=7.5, color=BLUE)
    box(axes, (9.6, 3.1), (1.9, 1.1), "drain\nE sums a cycle")
    box(axes, (9.6, 1.3), (1.9, 1.1), "post-processing\n(H1)–(H5)")
    box(axes, (9.6, -0.2), (1.9, 0.9), "constants\n2 banks: m, r, B", MEMORY)
    arrow(axes, (8.15, 3.65), (9.6, 3.65))
    arrow(axes, (10.55, 5.65), (10.55, 4.2))
    arrow(axes, (10.55, 3.1), (10.55, 2.4))
    arrow(axes, (10.55, 0.7), (10.55, 1.3))
    for y, name in ((5.65, "command"), (3.8, "activations")):
        arrow(axes, (-1.5, y), (0, y), name)
    arrow(axes, (-1.5, 2.2), (4.15, 2.2), "weights: one lane's vector a beat", (-0.3, 0.05))
    arrow(axes, (-1.5, 0.25), (9.6, 0.25), "constants: one channel a beat", (-2.0, 0.05))
    arrow(axes, (11.5, 3.65), (13.0, 3.65), "sums")
    arrow(axes, (11.5, 1.85), (13.0, 1.85), "codes, σ")


def draw(path: Path) -> None:
    """Write the picture."""
    matplotlib.rcParams.update({"svg.hashsalt": "vsquant", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure = Figure(figsize=(9.6, 4.6))
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    element(axes)
    axes.set_xlim(-1.6, 13.1)
    axes.set_ylim(-0.4, 6.4)
    axes.set_axis_off()
    figure.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_suffix(".svg"))
