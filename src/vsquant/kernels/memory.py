"""Memory for weights that kernels stream through."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

HUGE_PAGE_BYTES: Final = 2 << 20
_ALIGNMENT: Final = 64


def in_huge_pages(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Copies of CPU tensors side by side in memory for which huge pages are asked; the tensors themselves where
    together they fill none.

    A product with one row reads every weight once, in as many streams as there are panels: with pages of 4 KiB it waits
    for address translation most of the time (1.7 times as long at 4096 x 4096 where it was measured). The system may
    decline: then the pages are ordinary ones.
    """
    sizes = [-(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT for tensor in tensors]
    on_cpu = all(tensor.device.type == "cpu" for tensor in tensors)
    if not on_cpu or sum(sizes) < HUGE_PAGE_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return tuple(tensors)
    memory = mmap.mmap(-1, sum(sizes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    copies, offset = [], 0
    for tensor, size in zip(tensors, sizes, strict=True):
        if tensor.numel() == 0:
            copies.append(tensor)
            continue
        copy = torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
        copies.append(copy.view(tensor.shape).copy_(tensor))
        offset += size
    return tuple(copies)
