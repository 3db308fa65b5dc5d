"""Random codes and vector scales of any format, with its extremes in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vsquant.spec import IntegerFormat


@pytest.fixture(scope="session")
def make_codes() -> Any:
    return random_codes


def random_codes(fmt: IntegerFormat, shape: tuple[int, ...], seed: int = 0) -> tuple[Any, Any]:
    """Codes (K, kernel..., vectors, V), int8 or uint8, and vector scales, int16 or None."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(fmt.qmin, fmt.qmax + 1, size=shape).astype(np.uint8 if fmt.qmax > 127 else np.int8)
    if not fmt.two_level:
        return codes, None
    scale = rng.integers(fmt.scale_min, fmt.scale_top + 1, size=shape[:-1]).astype(np.int16)
    for values, low, high in (
        (codes.reshape(-1), fmt.qmin, fmt.qmax),
        (scale.reshape(-1), fmt.scale_min, fmt.scale_top),
    ):
        values[:1], values[1:2] = low, high
    return codes, scale
