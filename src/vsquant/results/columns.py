"""What the name of a table's column says: the scales, and, where a table holds several methods, the method."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column's name taken apart: ``4/8``, ``4/8:gptq``, ``per-channel:gptq``, ``:search``.

    ``scales`` are weight/activation scale bits, ``"fp16"``/``"fp32"``, ``"per-channel"`` or a comparison format's name;
    empty where every row names its own. ``method`` is how the weights were quantized; empty for that of the table.
    """

    scales: str
    method: str = ""

    @staticmethod
    def parse(name: str) -> Column:
        """The column of a name made by ``str``."""
        scales, _, method = name.partition(":")
        return Column(scales=scales, method=method)

    def __str__(self) -> str:
        """The name, ``SCALES`` or ``SCALES:METHOD``."""
        return f"{self.scales}:{self.method}" if self.method else self.scales
