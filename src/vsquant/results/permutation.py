"""Which channels of a model were reordered, and what that was expected to gain."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PermutedChannels:
    """One group of channels, reordered in the layers that make them and in those that take them.

    ``predicted_gain_db`` is of the squared error that is optimised (weights and activations of all consumers);
    ``sqnr_before_db`` and ``sqnr_after_db`` are of the consumers' weights together, as they are rounded; None where
    that makes no error.
    """

    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    channels: int
    vector_size: int
    predicted_gain_db: float
    sqnr_before_db: float | None
    sqnr_after_db: float | None
