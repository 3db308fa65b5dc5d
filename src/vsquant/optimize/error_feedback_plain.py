"""Error feedback as it is defined (OBQ, arXiv:2208.11580, in the fixed order of GPTQ, arXiv:2210.17323).

One output channel and one column after another, with the inverse Hessian of the columns left computed anew each time.
For small layers, and to hold `vsquant.optimize.error_feedback` to: both give the same codes and scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Integer

from vsquant.optimize.error_feedback import SCALE_RATIOS
from vsquant.optimize.methods import ErrorFeedback
from vsquant.spec.formats import IntegerFormat

F32 = np.float32
Row: TypeAlias = Float64[np.ndarray, " length"]
Matrix: TypeAlias = Float64[np.ndarray, "length length"]


class PlainSettled(NamedTuple):
    """Codes by column, the scale of each column's vector (σ, s, or γ where there are no vectors), the loss of a row."""

    codes: Integer[np.ndarray, "rows length"]
    scales: Float32[np.ndarray, "rows length"]
    loss: Float64[np.ndarray, " rows"]


def plain_error_feedback(
    weight: Float32[np.ndarray, "rows length"],
    hessian: Matrix,
    units: Sequence[Integer[np.ndarray, " unit"]],
    fmt: IntegerFormat,
    method: ErrorFeedback,
    coarse_scale: Float32[np.ndarray, " rows"] | None,
) -> PlainSettled:
    """The rows of one group, each settled by itself; ``units`` are the columns of vectors, in the order of settling."""
    level = np.diag(hessian).mean()
    damped = hessian + np.eye(len(hessian)) * (method.damping * level if level > 0 else 1.0)
    codes = np.zeros(weight.shape, dtype=np.int32)
    scales = np.zeros(weight.shape, dtype=F32)
    loss = np.zeros(len(weight))
    for k, row in enumerate(weight):
        gamma = None if coarse_scale is None else coarse_scale[k]
        w, left = row.astype(np.float64), np.concatenate(units)
        for unit in units:
            trials = _trials(w[unit], gamma, fmt, method)
            outcomes = [_settle(w, left, unit, F32(step), damped, fmt) for _, step in trials]
            best = int(np.argmin([outcome[2] for outcome in outcomes]))
            codes[k, unit], w, cost = outcomes[best]
            scales[k, unit], left = trials[best][0], left[len(unit) :]
            loss[k] += cost
    return PlainSettled(codes, scales, loss)


def _settle(
    w: Row,
    left: Integer[np.ndarray, " left"],
    unit: Integer[np.ndarray, " unit"],
    step: F32,
    H: Matrix,
    fmt: IntegerFormat,
) -> tuple[Integer[np.ndarray, " unit"], Row, float]:
    """A unit's codes under one scale, the weights as moved by its errors, and what that cost."""
    w, codes, cost = w.copy(), np.zeros(len(unit), dtype=np.int32), 0.0
    for i, column in enumerate(unit):
        remaining = left[i:]
        inverse = np.linalg.inv(H[np.ix_(remaining, remaining)])
        ratio = F32(w[column] / step) if step > 0 else F32(0)
        codes[i] = int(np.clip(np.rint(ratio), fmt.qmin, fmt.qmax))
        error = w[column] - codes[i] * np.float64(step)
        cost += error**2 / inverse[0, 0]
        w[remaining] -= error / inverse[0, 0] * inverse[0]
    return codes, w, cost


def _trials(vector: Row, gamma: F32 | None, fmt: IntegerFormat, method: ErrorFeedback) -> list[tuple[float | F32, F32]]:
    """(what is stored, float scale) of every scale that is tried for a vector: eq. (2) times a ratio, then eq. (5)."""
    if not fmt.has_vectors:
        assert gamma is not None
        return [(gamma, gamma)]
    x = vector.astype(F32)
    own = max(max(x.max(), F32(0)) / F32(fmt.qmax), max(-x.min(), F32(0)) / F32(-fmt.qmin))
    trials: list[tuple[float | F32, F32]] = []
    for ratio in SCALE_RATIOS if method.scales == "search" else (1.0,):
        step = own * F32(ratio)
        if gamma is None:
            half = max(F32(np.float16(step)), F32(2.0**-14)) if fmt.scale == "fp16" and step > 0 else step
            trials.append((half, half))
            continue
        sigma = np.clip(np.rint(step / gamma) if gamma > 0 else F32(0), fmt.scale_min, fmt.scale_top)
        sigma = max(sigma, F32(1)) if step > 0 and gamma > 0 else sigma
        trials.append((sigma, sigma * gamma))
    return trials
