"""Second moments are those of everything observed, whatever the batches."""

from __future__ import annotations

import pytest
import torch

from vsquant.calibrate import SecondMoment
from vsquant.errors import NonFiniteError, ShapeError


@pytest.mark.parametrize(("spatial", "shape"), [(0, (7, 5, 6)), (1, (7, 6, 9)), (2, (7, 6, 3, 4))])
def test_batches_add_up(spatial, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    seen = SecondMoment("layer", spatial)
    assert seen.mean() is None
    for batch in (x[:2], x[2:], x[:0]):
        seen.update(batch)
    dims = tuple(d for d in range(len(shape)) if d != len(shape) - 1 - spatial)
    torch.testing.assert_close(seen.mean(), x.double().square().mean(dim=dims), rtol=1e-14, atol=0)
    assert seen.mean().shape == (6,)


def test_more_than_a_chunk():
    x = torch.randn(3000, 100, generator=torch.Generator().manual_seed(0))
    seen = SecondMoment("layer")
    seen.update(x)
    torch.testing.assert_close(seen.mean(), x.double().square().mean(dim=0), rtol=1e-14, atol=0)


def test_what_is_refused():
    seen = SecondMoment("layer")
    seen.update(torch.ones(2, 3))
    with pytest.raises(ShapeError, match="a batch for 'layer' must have 3 channels, not 4"):
        seen.update(torch.ones(2, 4))
    with pytest.raises(NonFiniteError, match="the input of 'layer' must be finite"):
        seen.update(torch.tensor([[1.0, torch.nan, 1.0]]))
    assert seen.mean().tolist() == [1, 1, 1]
