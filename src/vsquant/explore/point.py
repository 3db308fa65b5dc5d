"""From a space to its points, and from a point to the cell of a table that has its accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from vsquant.errors import SpecError
from vsquant.explore.space import Space
from vsquant.optimize import Rounding, ScaleSearch, method_text, parse_method, settle
from vsquant.reference.integer_formats import check_scale_mode
from vsquant.results.points import PointFamily, PointSpec
from vsquant.results.table import PER_CHANNEL
from vsquant.spec.formats import DEFAULT_VECTOR_SIZE, IntegerFormat
from vsquant.spec.layer import GammaMode, LayerSpec, ScaleMode
from vsquant.tasks.base import Task
from vsquant.workflows.checked import checked_first_last, checked_scale_mode
from vsquant.workflows.refinements import Refinements
from vsquant.workflows.table_request import CellRequest, TableRequest, default_layout

_T = TypeVar("_T")
FLOAT: Final = "float"
"""The spec of the float network's point."""


@dataclass(frozen=True, kw_only=True)
class Impossible:
    """A combination of the grid that is no point, and why."""

    text: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Points:
    """The points of a space for one task, the float network first, each once; and what was left out of the grid."""

    points: tuple[PointSpec, ...]
    impossible: tuple[Impossible, ...]


def enumerate_points(space: Space, task: Task) -> Points:
    """Every point of ``space`` for ``task``; combinations that mean the same network are one point.

    Raises:
        SpecError: one of the space's own ``points`` is no spec, or an option is unknown.
    """
    found: dict[PointSpec, None] = {PointSpec(network=task.name, spec=FLOAT, family="float"): None}
    impossible: dict[str, Impossible] = {}
    specs: dict[LayerSpec, None] = {}
    for text, make in _grid(space, task):
        _tried(make, text, specs, impossible)
    specs |= dict.fromkeys(LayerSpec.parse(text) for text in space.points)
    for spec, scale_mode, method in itertools.product(specs, space.scale_modes, space.methods):
        settled: dict[tuple[str, str], None] = {}
        _tried(partial(_settled, spec, method, scale_mode), f"{spec} {method} {scale_mode}", settled, impossible)
        options = itertools.product(settled, space.first_last, space.accelerators)
        for made, ends, accelerator in options:
            found[_point(task.name, spec, *made, ends, accelerator)] = None
    return Points(points=tuple(found), impossible=tuple(impossible.values()))


def family_of(spec: LayerSpec) -> PointFamily:
    """What a point with this spec everywhere is drawn and counted as."""
    return "comparison" if spec.is_comparison else "per-channel" if spec.is_baseline else "vector"


def cell_request(point: PointSpec) -> CellRequest:
    """The cell of a table that is the same network; `vsquant table` and a sweep then share its record."""
    spec = LayerSpec.parse(point.spec)
    scale_mode = checked_scale_mode(point.scale_mode)
    return CellRequest(
        row="",
        column="",
        spec=spec,
        method=settle(parse_method(point.method), scale_mode)[0],
        scale_mode=scale_mode,
        refinements=Refinements().in_force(spec, scale_mode),
    )


def table_request(point: PointSpec, *, limit: int | None, calibration_samples: int) -> TableRequest:
    """The table whose runner evaluates the cell of ``point``; of points that can share a runner they are equal.

    Rows and columns are any: they only say what must be observed, and the point's method does.
    """
    spec = None if point.spec == FLOAT else LayerSpec.parse(point.spec)
    method = None if spec is None else parse_method(point.method)
    observing = isinstance(method, ScaleSearch) and method.needs_inputs
    size = None if spec is None else spec.weight.vector_size
    return TableRequest(
        rows=("4/8",),
        columns=("4/6",),
        method=method if observing else None,
        gamma="static" if spec is None else spec.gamma,
        vector_size=DEFAULT_VECTOR_SIZE if size is None else size,
        first_last=checked_first_last(point.first_last),
        limit=limit,
        calibration_samples=calibration_samples,
    )


def _tried(make: Callable[[], _T], text: str, made: dict[_T, None], impossible: dict[str, Impossible]) -> None:
    try:
        made[make()] = None
    except SpecError as error:
        impossible[text] = Impossible(text=text, reason=str(error))


def _grid(space: Space, task: Task) -> Iterator[tuple[str, Callable[[], LayerSpec]]]:
    """Every combination of the grid, as it is shown and as it is made."""
    rows, columns = _layout(space, task)
    options = itertools.product(
        columns, rows, space.vector_sizes, space.product_bits, space.gammas, space.full, space.top
    )
    for column, row, size, product, gamma, full, top in options:
        suffix = ("-full" if full else "") + ("-top" if top else "")
        text = f"{row} with scales {column}, V = {size}, P = {product or 'exact'}, {gamma}{suffix}"
        yield text, partial(_spec, row, column, size, product, gamma, suffix)


def _layout(space: Space, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if space.layout == "task":
        rows, columns = default_layout(task)
        return rows, columns if PER_CHANNEL in columns else (*columns, PER_CHANNEL)
    rows = tuple(f"{weight}/{activation}" for weight in space.weights for activation in space.activations)
    return rows, space.scales


def _spec(row: str, column: str, size: int, product: int | None, gamma: GammaMode, suffix: str) -> LayerSpec:
    """The spec of one combination; options that a column without vector scales does not have are left out.

    Raises:
        SpecError: there is no such spec.
    """
    request = TableRequest(rows=(row,), columns=(column,), vector_size=size, product_bits=product, gamma=gamma)
    spec = request.spec(row, column)
    return LayerSpec.parse(f"{spec}{suffix}") if suffix and not spec.is_comparison else spec


def _settled(spec: LayerSpec, method: str, scale_mode: ScaleMode) -> tuple[str, str]:
    """Method and scale mode by their texts; rounding where neither changes anything in this spec.

    Raises:
        SpecError: there is no such method, or it or the scale mode is not defined for the spec.
    """
    parsed = parse_method(method)
    chosen, mode = settle(None if isinstance(parsed, Rounding) else parsed, scale_mode)
    two_level = spec.weight.two_level or (spec.activation is not None and spec.activation.two_level)
    if not isinstance(chosen, Rounding) and not chosen.changes(spec.weight):
        chosen, mode = Rounding(), "requantize"
    mode = mode if two_level else "requantize"
    if isinstance(spec.weight, IntegerFormat):
        check_scale_mode(spec.weight, mode)
    return method_text(chosen), mode


def _point(network: str, spec: LayerSpec, method: str, scale_mode: str, ends: str, accelerator: str) -> PointSpec:
    return PointSpec(
        network=network,
        spec=str(spec),
        family=family_of(spec),
        scale_mode=scale_mode,
        method=method,
        first_last=ends,
        accelerator=accelerator,
    )
