"""Which points are asked about: a space in YAML, checked before anything runs."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vsquant.errors import SpecError
from vsquant.spec.formats import DEFAULT_VECTOR_SIZE
from vsquant.spec.hints import did_you_mean
from vsquant.spec.layer import GammaMode, ScaleMode
from vsquant.transform.recipe import FirstLast
from vsquant.transform.recipe_errors import shortened

_FOLDER: Final = "spaces"


class Space(BaseModel):
    """A grid of formats and options, and single points beside it.

    The grid has every combination of ``weights`` (bits), ``activations`` (bits, ``U``: unsigned where possible) and
    ``scales`` (``4/6``, ``fp32``, ``per-channel`` or a comparison format such as ``nvfp4``), or under ``layout: task``
    the rows and columns of the task's own table, with each of the other lists. ``full`` and ``top`` are the
    notation's options of weights. ``methods`` are solvers as `vsquant.optimize.parse_method` reads them.
    ``accelerators`` are names or YAML files; an empty name leaves the points unpriced. ``points`` are specs in
    notation, with the same options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    noun: ClassVar[str] = "space"

    layout: Literal["grid", "task"] = "grid"
    weights: tuple[Annotated[int, Field(ge=2, le=8)], ...] = ()
    activations: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    vector_sizes: Annotated[tuple[int, ...], Field(min_length=1)] = (DEFAULT_VECTOR_SIZE,)
    product_bits: Annotated[tuple[int | None, ...], Field(min_length=1)] = (None,)
    gammas: Annotated[tuple[GammaMode, ...], Field(min_length=1)] = ("static",)
    full: Annotated[tuple[bool, ...], Field(min_length=1)] = (False,)
    top: Annotated[tuple[bool, ...], Field(min_length=1)] = (False,)
    scale_modes: Annotated[tuple[ScaleMode, ...], Field(min_length=1)] = ("requantize",)
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = ("rtn",)
    first_last: Annotated[tuple[FirstLast, ...], Field(min_length=1)] = ("same",)
    accelerators: Annotated[tuple[str, ...], Field(min_length=1)] = ("edge",)
    points: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str, source: str) -> Space:
        """A space from YAML; ``source`` is what messages call it.

        Raises:
            SpecError: it is malformed; the message names the source and the key.
        """
        try:
            fields = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SpecError(f"{source} must be YAML: {error}") from error
        if not isinstance(fields, dict) or not fields:
            raise SpecError(f"{source} must be keys and values such as weights: [3, 4], not {shortened(fields)}")
        try:
            space = cls(**{str(key): _frozen(value) for key, value in fields.items()})
        except ValidationError as error:
            raise SpecError(f"{source}: {_explained(error, tuple(cls.model_fields))}") from None
        space.check(source)
        return space

    def check(self, source: str) -> None:
        """Refuse a space that has no points, or parts of a grid that never meet.

        Raises:
            SpecError: as said; names ``source`` and the key.
        """
        given = {"weights": self.weights, "activations": self.activations, "scales": self.scales}
        if self.layout == "task":
            if named := [key for key, value in given.items() if value]:
                raise SpecError(f"{source}: {named[0]} must not be given under layout: task, which has its own")
            return
        missing = [key for key, value in given.items() if not value]
        if missing and (len(missing) < len(given) or not self.points):
            raise SpecError(f"{source}: {missing[0]} must have at least one value, such as {_EXAMPLES[missing[0]]}")


_EXAMPLES: Final = {"weights": "[3, 4]", "activations": '["8"]', "scales": "[4/8, per-channel]"}


def load_space(source: str) -> Space:
    """A space that ships, by name, or one from a YAML file.

    Raises:
        SpecError: there is no such name or file, or the file is malformed.
    """
    if not source.endswith((".yaml", ".yml")):
        names = shipped_spaces()
        if source not in names:
            raise SpecError(
                f"space must be a .yaml file or one of {', '.join(names)}, not {source!r}{did_you_mean(source, names)}"
            )
        return Space.parse((files(__package__) / _FOLDER / f"{source}.yaml").read_text("utf-8"), f"space {source}")
    try:
        return Space.parse(Path(source).read_text("utf-8"), source)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"space must be a readable YAML file, not {source!r}: {error}") from error


def shipped_spaces() -> tuple[str, ...]:
    """The names of the spaces that ship."""
    found = (files(__package__) / _FOLDER).iterdir()
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in found if entry.name.endswith(".yaml")))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _explained(error: ValidationError, known: tuple[str, ...]) -> str:
    problems = []
    for detail in error.errors():
        key = str(detail["loc"][0])
        if detail["type"] == "extra_forbidden":
            hint = did_you_mean(key, known, cutoff=0.5)
            problems.append(f"unknown key {key!r}; known keys are {', '.join(known)}{hint}")
        else:
            wanted = detail["msg"].replace("Input should be", "must be").replace("Tuple should", "must")
            problems.append(f"{key}: {wanted}, not {shortened(detail['input'])}")
    return "; ".join(problems)
