"""Huge pages change where tensors lie, not what they are."""

from __future__ import annotations

import torch

from vsquant.kernels.memory import HUGE_PAGE_BYTES, in_huge_pages


def test_large_tensors_are_copied_side_by_side_and_outlive_their_sources() -> None:
    sources = [
        torch.randint(0, 100, (3, HUGE_PAGE_BYTES - 7)).to(torch.uint8),
        torch.empty(0, dtype=torch.uint8),
        torch.randint(-1000, 1000, (5, 33)).to(torch.int16),
        torch.arange(9, dtype=torch.int32),
    ]
    expected = [source.clone() for source in sources]
    copies = in_huge_pages(sources)
    for source in sources:
        source.zero_()
    del sources
    for copy, right in zip(copies, expected, strict=True):
        assert torch.equal(copy, right) and copy.dtype == right.dtype
        assert copy.data_ptr() % 64 == 0 and copy.is_contiguous()
    copies[0].fill_(255)
    assert torch.equal(copies[2], expected[2])


def test_small_tensors_stay_where_they_are() -> None:
    small = (torch.zeros(HUGE_PAGE_BYTES // 2 - 64, dtype=torch.uint8), torch.zeros(9))
    assert all(a is b for a, b in zip(in_huge_pages(small), small, strict=True))
