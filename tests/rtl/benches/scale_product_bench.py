"""Runs in the simulator: counts through every pair of scales and compares all products at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Timer


@cocotb.test()
async def every_product_is_exact(dut: Any) -> None:
    expected = [int(word, 16) for word in json.loads(Path(os.environ["VSQUANT_CASE"]).read_text())]
    for n, products in enumerate(expected):
        dut.n.value = n
        await Timer(1, unit="step")
        assert int(dut.products.value) == products, f"pair {n}: {int(dut.products.value):x}, not {products:x}"
