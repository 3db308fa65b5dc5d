"""What codes and vector scales must be before they are packed."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from vsquant.errors import PackingError
from vsquant.spec.formats import IntegerFormat

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Shape: TypeAlias = tuple[int, ...]


def require(condition: bool, message: str) -> None:
    """Raise `PackingError` with ``message`` unless ``condition``."""
    if not condition:
        raise PackingError(message)


def check_codes(codes: Array, fmt: IntegerFormat) -> None:
    """Codes are integers from qmin to qmax.

    Raises:
        PackingError: they are not.
    """
    require(codes.dtype.kind in "iu", f"codes must be integers, not {codes.dtype}")
    check_range(codes, fmt.qmin, fmt.qmax, "codes")


def check_vector_scale(scale: Array | None, vectors: tuple[int, ...], fmt: IntegerFormat) -> None:
    """Integer vector scales are there exactly where ``fmt`` has them: one for each of ``vectors``, from 0 (-top: 1) up.

    Raises:
        PackingError: they are not.
    """
    if not fmt.two_level:
        require(scale is None, f"vector_scale must be None where vector scales are no integers (scale {fmt.scale!r})")
        return
    require(scale is not None, f"vector_scale must be given for {fmt.scale}-bit vector scales, not None")
    assert scale is not None
    require(scale.dtype.kind in "iu", f"vector_scale must be integers, not {scale.dtype}")
    require(scale.shape == vectors, f"vector_scale must be {vectors}, not {scale.shape}")
    check_range(scale, fmt.scale_min, fmt.scale_top, "vector_scale")


def check_range(values: Array, low: int, high: int, what: str) -> None:
    """Every value is from ``low`` to ``high``.

    Raises:
        PackingError: one is not.
    """
    if not values.size:
        return
    for extreme in (int(values.min()), int(values.max())):
        require(low <= extreme <= high, f"{what} must be from {low} to {high}, not {extreme}")
