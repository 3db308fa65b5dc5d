"""A space is checked before anything runs, and its points are those that it says, each once."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from vsquant.errors import SpecError
from vsquant.explore.point import cell_request, enumerate_points
from vsquant.explore.space import Space, load_space, shipped_spaces
from vsquant.workflows.table_request import TableRequest, default_layout

TINY = runpy.run_path(str(Path(__file__).parents[1] / "fakes" / "tiny_program.py"))
TASK = TINY["TinyTask"]()


def test_the_spaces_that_ship_have_points() -> None:
    assert shipped_spaces() == ("deploy", "poster", "small")
    for name in shipped_spaces():
        found = enumerate_points(load_space(name), TASK)
        assert len(found.points) > 5 and not found.impossible
        assert [point.spec for point in found.points].count("float") == 1


def test_the_poster_is_the_grid_of_the_tasks_table() -> None:
    rows, columns = default_layout(TASK)
    wanted = {str(cell.spec) for cell in TableRequest(rows=rows, columns=columns).cells()}
    points = enumerate_points(load_space("poster"), TASK).points
    assert {point.spec for point in points} == wanted | {"float"}


def test_combinations_that_mean_the_same_are_one_point() -> None:
    space = Space(
        weights=(4,), activations=("8",), scales=("4/6", "per-channel"), product_bits=(None, 6), vector_sizes=(16, 32)
    )
    specs = [point.spec for point in enumerate_points(space, TASK).points]
    grid = ["w4a8-s4/6-v16", "w4a8-s4/6-v16-p6", "w4a8-s4/6-v32", "w4a8-s4/6-v32-p6"]
    assert specs == ["float", *grid, "w4a8"]


def test_what_cannot_be_combined_is_left_out_with_its_reason() -> None:
    space = Space(
        weights=(4,), activations=("8",), scales=("4/6", "per-channel"), top=(False, True), scale_modes=("paper",)
    )
    found = enumerate_points(space, TASK)
    assert [(point.spec, point.scale_mode) for point in found.points[1:]] == [
        ("w4a8-s4/6-v16", "paper"),
        ("w4a8", "requantize"),
    ]
    assert len(found.impossible) == 2 and any("-top" in each.reason for each in found.impossible)


def test_methods_that_change_nothing_are_not_points_of_their_own() -> None:
    space = Space(weights=(4,), activations=("8",), scales=("4/6", "fp32"), methods=("rtn", "search"))
    points = enumerate_points(space, TASK).points[1:]
    assert [(point.spec, point.method) for point in points] == [
        ("w4a8-s4/6-v16", "rtn"),
        ("w4a8-s4/6-v16", "search"),
        ("w4a8-sfp32/fp32-v16", "rtn"),
    ]
    assert cell_request(points[1]).scale_mode == "search"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight: [4]", "my.yaml: unknown key 'weight'; .*did you mean 'weights'"),
        ("weights: [9]\nactivations: ['8']\nscales: [4/6]", "my.yaml: weights: .*not 9"),
        ("weights: [4]\nscales: [4/6]", "my.yaml: activations must have at least one value"),
        ("layout: task\nweights: [4]", "my.yaml: weights must not be given under layout: task"),
        ("- 4", "my.yaml must be keys and values"),
        ("weights: [", "my.yaml must be YAML"),
        ("points: [w4a8]\nmethods: []", "my.yaml: methods: .*not "),
    ],
)
def test_a_malformed_space_says_where(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Space.parse(text, "my.yaml")


def test_unknown_spaces_and_points_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'poster'"):
        load_space("postr")
    with pytest.raises(SpecError, match=r"readable YAML file"):
        load_space(str(tmp_path / "none.yaml"))
    with pytest.raises(SpecError, match="w4x8"):
        enumerate_points(Space(points=("w4x8",)), TASK)
