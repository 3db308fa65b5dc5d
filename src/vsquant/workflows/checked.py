"""Options given as text, checked before any work."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from vsquant.calibrate import VectorMethod
from vsquant.calibrate.calibrators import create_calibrator
from vsquant.errors import RecipeError, SpecError
from vsquant.optimize import Method, method_text, parse_method
from vsquant.results.table import PER_CHANNEL
from vsquant.spec import GammaMode, LayerSpec, ScaleMode
from vsquant.tasks.base import Task
from vsquant.transform.recipe import FirstLast, Recipe
from vsquant.workflows.options import Calibrators, WeightMethod
from vsquant.workflows.table_request import PAPER, default_layout, has_own_scales, with_methods


def checked_recipe(text: str) -> Recipe:
    """A recipe from a spec in notation, or from the YAML file that ``text`` names.

    Raises:
        SpecError, RecipeError: it is neither.
    """
    if text.endswith((".yaml", ".yml")):
        path = Path(text)
        if not path.is_file():
            raise RecipeError(f"a recipe must be a file that exists, not {text!r}")
        return Recipe.from_yaml(path)
    return Recipe.from_spec(LayerSpec.parse(text))


def checked_scale_mode(text: str) -> ScaleMode:
    """A scale mode that can be used; raises `SpecError` for others."""
    return cast(
        ScaleMode, _one_of("scale mode", text, tuple(mode for mode in get_args(ScaleMode) if mode != "best-of-three"))
    )


def checked_method(text: str | None) -> Method | None:
    """A method with its options (`method_text`), or none; raises `SpecError` for anything unknown."""
    return None if text is None else parse_method(text)


def checked_methods(text: str, method: str | None) -> tuple[str, ...]:
    """Several methods between commas; an option that follows a comma belongs to the method before it.

    Raises:
        SpecError: there is none, one is unknown, or a single ``method`` was given too.
    """
    if method is not None:
        raise SpecError(f"method must not be given beside methods, not {method!r}; add it to them")
    names: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if names and "=" in part.partition(":")[0]:
            names[-1] += f",{part}"
        elif part:
            names.append(part)
    if not names:
        raise SpecError(f"methods must be names such as paper,rtn,search,gptq, not {text!r}")
    return tuple(name if name == PAPER else method_text(parse_method(name)) for name in names)


def checked_layout(
    task: Task, *, rows: str | None, scales: str | None, per_channel: bool, methods: str | None, method: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rows and columns of a task's table from names between commas; those that suit the task where none are given.

    The per-channel column comes last, and is there or not as ``per_channel`` says, whatever ``scales`` hold.

    Raises:
        SpecError: a name is malformed, or methods are as `checked_methods` refuses them.
    """
    default_rows, default_columns = default_layout(task)
    chosen = default_rows if rows is None else _names(rows)
    columns = default_columns if scales is None else _names(scales.lower())
    if has_own_scales(chosen):
        columns = ("", *(() if scales is None else columns))
    columns = tuple(c for c in columns if c != PER_CHANNEL) + ((PER_CHANNEL,) if per_channel else ())
    if methods is not None and chosen:
        columns = with_methods(columns, checked_methods(methods, method), row=chosen[0])
    return chosen, columns


def checked_gamma(text: str) -> GammaMode:
    """Where activation coarse scales come from; raises `SpecError` for anything unknown."""
    return cast(GammaMode, _one_of("gamma", text, get_args(GammaMode)))


def checked_first_last(text: str) -> FirstLast:
    """A policy for the first and last layer; raises `SpecError` for anything unknown."""
    return cast(FirstLast, _one_of("first-last", text, get_args(FirstLast)))


def checked_calibrators(activation: str, weight: str, vectors: str = "max", candidates: int = 1) -> Calibrators:
    """Calibrators by name.

    Raises:
        CalibrationError: there is no such activation calibrator, or ``candidates`` is neither 1 nor 3.
        SpecError: ``weight`` or ``vectors`` is neither max nor mse.
    """
    create_calibrator(activation)
    method = cast(WeightMethod, _one_of("weight calibrator", weight, ("max", "mse")))
    return Calibrators(activation=activation, weight=method, vectors=checked_vectors(vectors), candidates=candidates)


def checked_vectors(text: str) -> VectorMethod:
    """How ranges are chosen above vector scales of activations; raises `SpecError` for anything unknown."""
    return cast(VectorMethod, _one_of("vector calibrator", text, get_args(VectorMethod)))


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _one_of(what: str, text: str, choices: tuple[str, ...]) -> str:
    if text not in choices:
        raise SpecError(f"{what} must be one of {', '.join(choices)}, not {text!r}")
    return text
