"""A layer's shape: what is counted from it, and what it refuses."""

from __future__ import annotations

import pytest

from vsquant.errors import SpecError
from vsquant.spec import Workload


def test_linear():
    layer = Workload(kind="linear", outputs=10, reduction=20, positions=7)
    assert (layer.weight_elements, layer.macs, layer.reduction_length) == (200, 1400, 20)
    assert layer.vectors(16) == 2
    assert layer.padding_elements(16) == 12
    assert layer.padding_overhead(16) == 0.6
    assert (layer.vectors(None), layer.padding_elements(None), layer.padding_overhead(None)) == (1, 0, 0.0)


def test_an_rgb_stem_pays_padding_at_every_tap():
    stem = Workload(
        kind="conv", outputs=64, reduction=3, positions=112 * 112, kernel=(7, 7), stride=(2, 2), padding=(3, 3)
    )
    assert stem.macs == 64 * 3 * 49 * 112 * 112
    assert stem.weight_elements == 64 * 3 * 49
    assert stem.vectors(16) == 49
    assert stem.padding_elements(16) == 49 * 13
    assert stem.padding_overhead(16) == pytest.approx(13 / 3)


def test_groups_divide_the_reduction_and_not_the_count():
    grouped = Workload(kind="conv", outputs=64, reduction=16, positions=9, kernel=(3, 3), groups=4)
    assert grouped.macs == 64 * 16 * 9 * 9
    assert grouped.weight_elements == 64 * 16 * 9


def test_the_input_has_its_own_pixels_or_those_that_strides_skip():
    layer = {"kind": "conv", "outputs": 8, "reduction": 4, "positions": 9, "kernel": (3, 3), "stride": (2, 2)}
    assert Workload(**layer).input_positions == 36
    assert Workload(**layer, input_size=(5, 6), output_size=(3, 3)).input_positions == 30
    assert Workload(kind="linear", outputs=8, reduction=4, positions=9).input_positions == 9


def test_matmul_has_no_weights_and_heads_are_groups():
    scores = Workload(kind="matmul", outputs=12 * 384, reduction=64, positions=384, groups=12)
    assert scores.weight_elements == 0
    assert scores.macs == 12 * 384 * 384 * 64


def test_a_table_is_stored_and_not_multiplied():
    table = Workload(kind="embedding", outputs=1000, reduction=30)
    assert (table.weight_elements, table.macs, table.padding_elements(16)) == (30_000, 0, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "lstm"}, "kind must be one of linear, conv, matmul, embedding, not 'lstm'"),
        ({"outputs": 0}, "outputs must be at least 1, not 0"),
        ({"positions": -1}, "positions must be at least 1, not -1"),
        ({"stride": (0, 1)}, "stride must be at least 1 in both directions, not (0, 1)"),
        ({"padding": (0, -1)}, "padding must be at least 0 in both directions, not (0, -1)"),
        ({"groups": 3}, "groups must divide the outputs, 8, not be 3"),
        ({"input_size": (2, 2)}, "input_size must come with output_size"),
        (
            {"positions": 5, "input_size": (2, 2), "output_size": (2, 2)},
            "output_size must have 5 positions, not (2, 2)",
        ),
        ({"positions": 4, "input_size": (0, 2), "output_size": (2, 2)}, "input_size must be two positive numbers of a"),
        ({"kind": "linear", "kernel": (3, 3)}, "kernel, stride, padding and dilation must be left out of a linear"),
    ],
)
def test_impossible_shapes_are_refused(fields, message):
    with pytest.raises(SpecError) as caught:
        Workload(**{"kind": "conv", "outputs": 8, "reduction": 4, **fields})
    assert message in str(caught.value)
