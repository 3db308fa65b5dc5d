"""How a convolution walks its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsquant.errors import SpecError

PaddingMode: TypeAlias = Literal["zeros", "reflect", "replicate", "circular"]


@dataclass(frozen=True, kw_only=True)
class ConvGeometry:
    """How a convolution walks its input; every tuple has one entry per spatial dimension.

    ``padding`` is (before, after) per dimension, or ``"tf-same"``: found from the input's size as TensorFlow does, so
    that the output has ceil(size / stride) positions.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    padding: tuple[tuple[int, int], ...] | Literal["tf-same"]
    padding_mode: PaddingMode = "zeros"

    @classmethod
    def of(cls, conv: nn.Conv1d | nn.Conv2d, *, tf_same: bool = False) -> ConvGeometry:
        """The geometry of a float convolution; ``tf_same`` for layers that pad in their own forward."""
        return cls(
            kernel=tuple(conv.kernel_size),
            stride=tuple(conv.stride),
            dilation=tuple(conv.dilation),
            groups=conv.groups,
            padding="tf-same" if tf_same else _explicit_padding(conv),
            padding_mode=_padding_mode(conv.padding_mode),
        )

    @property
    def even_zeros(self) -> tuple[int, ...] | None:
        """Zeros on both sides of every dimension, which convolutions insert without a copy; None for other padding."""
        if self.padding == "tf-same" or self.padding_mode != "zeros" or any(a != b for a, b in self.padding):
            return None
        return tuple(before for before, _ in self.padding)

    def padding_for(self, size: torch.Size) -> list[tuple[int, int]]:
        """(before, after) per spatial dimension for an input of spatial ``size``."""
        if self.padding != "tf-same":
            return list(self.padding)
        totals = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, k, s, d in zip(size, self.kernel, self.stride, self.dilation, strict=True)
        ]
        return [(total // 2, total - total // 2) for total in totals]

    def output_size(self, size: torch.Size) -> list[int]:
        """Positions per spatial dimension of the output for an input of spatial ``size``."""
        walked = zip(size, self.padding_for(size), self.kernel, self.stride, self.dilation, strict=True)
        return [(n + sum(pair) - (k - 1) * d - 1) // s + 1 for n, pair, k, s, d in walked]

    def pad(self, x: Tensor) -> Tensor:
        """``x`` (N, C, *spatial) padded; quantized values may be padded, for padding copies values or inserts zeros."""
        pairs = self.padding_for(x.shape[2:])
        flat = [amount for pair in reversed(pairs) for amount in pair]
        if not any(flat):
            return x
        return F.pad(x, flat, mode="constant" if self.padding_mode == "zeros" else self.padding_mode)


def _explicit_padding(conv: nn.Conv1d | nn.Conv2d) -> tuple[tuple[int, int], ...]:
    if conv.padding == "valid":
        return tuple((0, 0) for _ in conv.kernel_size)
    if conv.padding == "same":
        totals = [d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((int(p), int(p)) for p in conv.padding)


def _padding_mode(mode: str) -> PaddingMode:
    if mode not in ("zeros", "reflect", "replicate", "circular"):
        raise SpecError(f"padding_mode must be zeros, reflect, replicate or circular, not {mode!r}")
    return mode  # type: ignore[return-value]  # narrowed by the check above
