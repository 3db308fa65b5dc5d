"""How layers become rows of vectors: tails padded at every kernel position, coarse scales over the whole row."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

from vsquant.spec.formats import padded_length


def conv_weight_rows(
    weight: Float32[np.ndarray, "k c r s"], vector_size: int | None
) -> Float32[np.ndarray, "k length"]:
    """Rows (K, R*S*C'), C' = C padded to whole vectors: codes of a row reshape to (R, S, C'/V, V)."""
    padded = _pad_channels(weight.transpose(0, 2, 3, 1), vector_size)
    return padded.reshape(len(weight), math.prod(padded.shape[1:]))


def conv_activation_rows(
    x: Float32[np.ndarray, "c h w"], vector_size: int | None
) -> Float32[np.ndarray, "positions length"]:
    """One sample's rows (H*W, C'): ``share="tensor"`` gives them the one coarse scale of the sample."""
    padded = _pad_channels(x.transpose(1, 2, 0), vector_size)
    return padded.reshape(math.prod(padded.shape[:2]), padded.shape[2])


def _pad_channels(
    x: Float32[np.ndarray, "*positions c"], vector_size: int | None
) -> Float32[np.ndarray, "*positions padded"]:
    channels = x.shape[-1]
    width = [(0, 0)] * (x.ndim - 1) + [(0, padded_length(channels, vector_size) - channels)]
    return np.pad(x, width)
