"""How findings are shown: tables in the terminal, as text, in pictures and as one HTML file."""

from vsquant.report.comparison import comparison_text, comparison_to_json, integers_text, integers_to_json
from vsquant.report.figures import Picture, draw_pictures, write_png
from vsquant.report.html import to_html, write_html
from vsquant.report.inspection import (
    diagnosis_to_json,
    inspection_to_json,
    render_diagnosis,
    render_inspection,
)
from vsquant.report.layers import layers_to_json, render_layers
from vsquant.report.numbers import difference_text
from vsquant.report.terminal import render_table
from vsquant.report.text import to_csv, to_json, to_markdown
from vsquant.report.wording import headline

__all__ = [
    "Picture",
    "comparison_text",
    "comparison_to_json",
    "diagnosis_to_json",
    "difference_text",
    "draw_pictures",
    "headline",
    "inspection_to_json",
    "integers_text",
    "integers_to_json",
    "layers_to_json",
    "render_diagnosis",
    "render_inspection",
    "render_layers",
    "render_table",
    "to_csv",
    "to_html",
    "to_json",
    "to_markdown",
    "write_html",
    "write_png",
]
