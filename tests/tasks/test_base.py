import pytest
import torch
from torch import nn

from vsquant.errors import DataError
from vsquant.tasks.base import checked_limit, checked_samples, run


class _Sum(nn.Module):
    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right


def test_a_tensor_is_the_models_only_argument():
    assert run(nn.Identity(), torch.ones(2)).tolist() == [1.0, 1.0]


def test_a_mapping_is_the_models_keyword_arguments():
    assert run(_Sum(), {"right": torch.ones(1), "left": torch.full((1,), 2.0)}).tolist() == [3.0]


def test_no_limit_means_all_samples():
    assert checked_limit(None, 7, "images") == 7
    assert checked_limit(7, 7, "images") == 7


@pytest.mark.parametrize("limit", [0, -1, 8])
def test_limit_outside_what_there_is_says_how_many_there_are(limit):
    with pytest.raises(DataError, match=f"limit must be between 1 and the 7 evaluation images there are, not {limit}"):
        checked_limit(limit, 7, "images")


def test_too_few_calibration_samples_says_how_many_there_are():
    assert checked_samples(7, 7, "images") == slice(0, 7)
    assert checked_samples(3, 7, "images", draw=1) == slice(3, 6)
    with pytest.raises(DataError, match="there must be 9 calibration images, not 7"):
        checked_samples(3, 7, "images", draw=2)
    with pytest.raises(DataError, match="draw must be 0 or the number of draws before it, not -1"):
        checked_samples(3, 7, "images", draw=-1)
    with pytest.raises(DataError, match="there must be 8 calibration images, not 7; add images or ask for fewer"):
        checked_samples(8, 7, "images")
    with pytest.raises(DataError, match="samples must be at least 1 calibration sample, not 0"):
        checked_samples(0, 7, "images")
