"""The arithmetic of one attention module: what is masked, and the two matrix products between.

Queries, keys and values are (N, H, L, D), one head after another; softmax is in float32. A masked key or value is set
to zero, and so is the query of a masked position: their probabilities are zero, so nothing else changes, and neither
a calibrator nor a scale found at run time sees what a padding token happens to hold.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsquant.calibrate import RangeObserver, RangeStatistics
from vsquant.errors import ShapeError
from vsquant.nn import QuantMatmul
from vsquant.spec.layer import LayerSpec, ScaleMode

OPERANDS: Final = ("query", "key", "probabilities", "value")
"""The operands of an attention module's products: query times key, probabilities times value."""


class AttentionRanges(NamedTuple):
    """The calibrated range of every operand, (H,) float32 each."""

    query: Tensor
    key: Tensor
    probabilities: Tensor
    value: Tensor


@dataclass(frozen=True, kw_only=True)
class Visible:
    """What of a batch's attention is not masked; every tensor is boolean and broadcasts, None is everything."""

    pairs: Tensor | None
    """(N or 1, H or 1, queries or 1, keys)"""
    queries: Tensor | None
    """(N or 1, H or 1, queries or 1): queries that see a key and, in self-attention, whose own position is seen."""
    keys: Tensor | None
    """(N or 1, H or 1, keys): keys that some query sees."""


@dataclass(frozen=True, kw_only=True)
class Softmax:
    """From scores to probabilities: scaling, soft cap (Gemma 2), additive bias (None: zero), dropout."""

    scaling: float
    softcap: float | None
    bias: Tensor | None
    dropout: float


def visible_in(mask: Tensor | None, query: Tensor, key: Tensor, *, causal: bool, own_positions: bool) -> Visible:
    """What ``mask`` leaves visible.

    Args:
        mask: None, or four-dimensional: booleans (True is seen), or what is added to scores (the lowest number of the
            dtype, or nearly, is masked).
        query: (N, H, L, D), for its length and device.
        key: (N, H, L', D).
        causal: whether no mask means that a query sees no later key.
        own_positions: whether query i is of the position of key i.

    Raises:
        ShapeError: the mask is not four-dimensional.
    """
    if mask is None:
        if not causal or query.shape[2] == 1:
            return Visible(pairs=None, queries=None, keys=None)
        pairs = torch.ones(1, 1, query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        return Visible(pairs=pairs, queries=None, keys=pairs.any(dim=-2))
    if mask.dim() != 4:
        raise ShapeError(f"an attention mask must be (N, heads or 1, queries, keys), not of shape {tuple(mask.shape)}")
    pairs = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    seen_keys, seeing = pairs.any(dim=-2), pairs.any(dim=-1)
    return Visible(pairs=pairs, queries=seeing & seen_keys if own_positions else seeing, keys=seen_keys)


class AttentionCore(nn.Module):
    """What a module's attention is replaced with.

    Args:
        implied_causal: whether a causal module without a mask means a causal mask, as in the "sdpa" implementation.
        self_attention: whether keys and values are those of the queries' own positions, in every call.
    """

    def __init__(self, *, implied_causal: bool, self_attention: bool) -> None:
        super().__init__()
        self.implied_causal = implied_causal
        self.self_attention = self_attention

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, softmax: Softmax, *, causal: bool
    ) -> tuple[Tensor, Tensor]:
        """``query`` (N, H, L, D) and ``key``, ``value`` (N, H or a divisor, L', D) to outputs (N, L, H, D) and
        probabilities (N, H, L, L'), in the dtype of ``query``.
        """
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        mask = None if mask is None else mask[..., : key.shape[2]]
        visible = visible_in(
            mask,
            query,
            key,
            causal=causal and self.implied_causal,
            own_positions=self.self_attention and query.shape[2] == key.shape[2],
        )
        added = mask if mask is not None and mask.dtype != torch.bool else None
        output, probabilities = self._attend(
            _kept(query.to(torch.float32), visible.queries),
            _kept(key.to(torch.float32), visible.keys),
            _kept(value.to(torch.float32), visible.keys),
            visible,
            softmax,
            added,
        )
        return output.transpose(1, 2).contiguous().to(query.dtype), probabilities.to(query.dtype)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, visible: Visible, softmax: Softmax, added: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        scores = self.score_product(query, key.transpose(-1, -2)) * softmax.scaling
        if softmax.softcap is not None:
            scores = torch.tanh(scores / softmax.softcap) * softmax.softcap
        for bias in (softmax.bias, added):
            scores = scores if bias is None else scores + bias.to(torch.float32)
        if visible.pairs is not None:
            scores = scores.masked_fill(~visible.pairs, torch.finfo(scores.dtype).min)
        probabilities = _kept(scores.softmax(dim=-1), visible.queries)
        if visible.pairs is not None:
            probabilities = probabilities * visible.pairs
        probabilities = F.dropout(probabilities, softmax.dropout) if softmax.dropout else probabilities
        self.saw(query, key, probabilities, value, visible)
        return self.context_product(probabilities, value), probabilities

    @abstractmethod
    def score_product(self, query: Tensor, key: Tensor) -> Tensor:
        """Queries (N, H, L, D) times keys (N, H, D, L')."""

    @abstractmethod
    def context_product(self, probabilities: Tensor, value: Tensor) -> Tensor:
        """Probabilities (N, H, L, L') times values (N, H, L', D)."""

    @abstractmethod
    def saw(self, query: Tensor, key: Tensor, probabilities: Tensor, value: Tensor, visible: Visible) -> None:
        """Told of the operands of every call, masked ones zero."""


class QuantAttention(AttentionCore):
    """Attention whose two products are quantized; scales and ranges are in the state of ``scores`` and ``context``."""

    def __init__(
        self,
        *,
        name: str,
        spec: LayerSpec,
        scale_mode: ScaleMode,
        ranges: AttentionRanges | None,
        implied_causal: bool,
        self_attention: bool,
    ) -> None:
        super().__init__(implied_causal=implied_causal, self_attention=self_attention)
        self.scores = QuantMatmul(
            name=f"{name} (scores)",
            spec=spec,
            scale_mode=scale_mode,
            unsigned_a=False,
            ranges=None if ranges is None else (ranges.query, ranges.key),
        )
        self.context = QuantMatmul(
            name=f"{name} (context)",
            spec=spec,
            scale_mode=scale_mode,
            unsigned_a=True,
            ranges=None if ranges is None else (ranges.probabilities, ranges.value),
        )

    def score_product(self, query: Tensor, key: Tensor) -> Tensor:
        product: Tensor = self.scores(query, key)
        return product

    def context_product(self, probabilities: Tensor, value: Tensor) -> Tensor:
        product: Tensor = self.context(probabilities, value)
        return product

    def saw(self, query: Tensor, key: Tensor, probabilities: Tensor, value: Tensor, visible: Visible) -> None:
        """Nothing is kept."""


class ObservedAttention(AttentionCore):
    """Float attention that gathers the statistics of its operands, per head and without what is masked."""

    def __init__(self, *, name: str, implied_causal: bool, self_attention: bool) -> None:
        super().__init__(implied_causal=implied_causal, self_attention=self_attention)
        self.name = name
        self._observers: dict[str, RangeObserver] = {}

    @property
    def statistics(self) -> Mapping[str, RangeStatistics]:
        """Statistics of the ``OPERANDS``, groups are heads; empty where nothing was seen."""
        return {operand: observer.statistics() for operand, observer in self._observers.items()}

    def score_product(self, query: Tensor, key: Tensor) -> Tensor:
        return query @ key

    def context_product(self, probabilities: Tensor, value: Tensor) -> Tensor:
        return probabilities @ value

    def saw(self, query: Tensor, key: Tensor, probabilities: Tensor, value: Tensor, visible: Visible) -> None:
        """Observes what is not masked (for any head)."""
        pairs = visible.pairs
        if pairs is not None and visible.queries is not None:
            pairs = pairs & visible.queries.unsqueeze(-1)
        seen = (visible.queries, visible.keys, pairs, visible.keys)
        for operand, x, kept in zip(OPERANDS, (query, key, probabilities, value), seen, strict=True):
            observer = self._observers.setdefault(operand, RangeObserver(f"{self.name} ({operand})", x.shape[1]))
            observer.update(_by_head(x, kept))


def _kept(x: Tensor, seen: Tensor | None) -> Tensor:
    """(N, H, rows, length) with zeros in the rows that are not seen. Selected, not multiplied: NaN times 0 is NaN."""
    return x if seen is None else torch.where(seen.unsqueeze(-1), x, 0.0)


def _by_head(x: Tensor, seen: Tensor | None) -> Tensor:
    """(H, elements): the rows of (N, H, rows, length), or its elements, that are seen."""
    heads_first = x.transpose(0, 1)
    if seen is None:
        return heads_first.flatten(1)
    kept = seen.any(dim=1).expand(x.shape[0], *x.shape[2 : seen.dim()])
    return heads_first[:, kept].flatten(1)
