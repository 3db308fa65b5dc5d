"""Recipes: which layer of a model gets which spec, as ordered rules in YAML or Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from vsquant.errors import RecipeError
from vsquant.spec.layer import LayerSpec
from vsquant.transform.recipe_errors import explain, shortened

Kind: TypeAlias = Literal["linear", "conv1d", "conv2d", "embedding", "matmul"]
"""What a layer computes. Rules without a ``type`` reach linear and convolution layers only."""

FirstLast: TypeAlias = Literal["same", "8bit", "float"]
"""What becomes of the first and the last layer executed: nothing special, 8-bit per-channel, or floating point."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
DEFAULT_KINDS: Final[tuple[Kind, ...]] = ("linear", "conv1d", "conv2d")


def _parsed(value: object) -> object:
    return LayerSpec.parse(value) if isinstance(value, str) else value


ParsedSpec: TypeAlias = Annotated[InstanceOf[LayerSpec], BeforeValidator(_parsed), PlainSerializer(str)]
"""A layer spec, given as one or in notation; written in notation."""


class _Strict(BaseModel):
    """A frozen model whose mistakes are `RecipeError`, in Python as in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    noun: ClassVar[str]

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise RecipeError(explain(error, self.noun, tuple(type(self).model_fields))) from None


class Rule(_Strict):
    """What the layers that it is the first to match shall become.

    Invariant: exactly one of ``spec`` and ``skip`` is given.
    """

    noun: ClassVar[str] = "rule"

    match: str = "*"
    """A glob on the layer's dotted name ("*" crosses dots), or a regular expression for the whole name after "re:"."""
    type: str | None = None
    """Only layers of this kind ("linear", "embedding" …) or of this class name; None is linear and convolutions."""
    spec: ParsedSpec | None = None
    """The spec of the layers."""
    skip: bool = False
    """Whether the layers stay floating point."""

    @field_validator("match")
    @classmethod
    def _is_a_pattern(cls, match: str) -> str:
        if not match:
            raise RecipeError('match must be a glob such as "encoder.*", not empty')
        if match.startswith("re:"):
            try:
                re.compile(match[3:])
            except re.error as error:
                raise RecipeError(f"match must be a regular expression after 're:', not {match!r}: {error}") from None
        return match

    @field_validator("type")
    @classmethod
    def _is_a_kind(cls, kind: str | None) -> str | None:
        if kind is not None and kind not in KINDS and (not kind.isidentifier() or kind.islower()):
            raise RecipeError(f"type must be {', '.join(KINDS)} or a class name such as BertSelfOutput, not {kind!r}")
        return kind

    @model_validator(mode="after")
    def _says_one_thing(self) -> Rule:
        if (self.spec is None) != self.skip:
            given = "both" if self.skip else "neither"
            raise RecipeError(f"exactly one of spec and skip: true must be given, not {given}")
        return self

    @property
    def text(self) -> str:
        """The rule in one line, for reports and errors."""
        kind = f", type: {self.type}" if self.type else ""
        return f'match: "{self.match}"{kind}, ' + ("skip" if self.skip else f"spec: {self.spec}")

    def matches_name(self, name: str) -> bool:
        """Whether the pattern matches a layer's dotted name."""
        if self.match.startswith("re:"):
            return re.fullmatch(self.match[3:], name) is not None
        return fnmatchcase(name, self.match)

    def matches_type(self, kind: Kind, class_name: str) -> bool:
        """Whether a layer of this kind and class is meant. Embeddings and matmuls must be asked for."""
        if self.type is None:
            return kind in DEFAULT_KINDS
        return self.type in (kind, class_name)


class Recipe(_Strict):
    """Ordered rules for the layers of a model: the first rule that matches a layer decides; without one it stays float.

    A recipe is plain data: the same in YAML (`from_yaml`, `to_yaml`) and in Python.
    """

    noun: ClassVar[str] = "recipe"

    rules: tuple[Rule, ...]
    """At least one rule."""
    first_last: FirstLast = "same"
    """What the first and the last linear or convolution layer executed become."""
    fallback: ParsedSpec = LayerSpec.parse("w8a8")
    """The spec of layers whose own cannot be applied, such as depthwise convolutions."""

    @field_validator("rules")
    @classmethod
    def _has_rules(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if not rules:
            raise RecipeError("rules must hold at least one rule, not none")
        return rules

    @classmethod
    def from_spec(cls, spec: LayerSpec | str, first_last: FirstLast = "same") -> Recipe:
        """The recipe that gives every linear and convolution layer one spec.

        Raises:
            SpecError: the spec does not parse.
        """
        parsed = LayerSpec.parse(spec) if isinstance(spec, str) else spec
        return cls(rules=(Rule(spec=parsed),), first_last=first_last)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Recipe:
        """The recipe in plain types, as YAML holds it.

        Raises:
            RecipeError: naming the unknown key or the bad value, where it is, and what is known.
        """
        return cls(**data)

    @classmethod
    def from_yaml(cls, source: str | Path) -> Recipe:
        """Reads a recipe from a file (a `Path`, or a string that ends in .yaml or .yml) or from YAML text.

        Raises:
            RecipeError: the file cannot be read, is not YAML, or is not a recipe.
        """
        is_path = isinstance(source, Path) or re.fullmatch(r"[^\n]+\.ya?ml", source)
        name = f"recipe {source}" if is_path else "recipe"
        try:
            text = Path(source).read_text(encoding="utf-8") if is_path else str(source)
            data = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{name} must be a readable file: {error}") from error
        except yaml.YAMLError as error:
            raise RecipeError(f'{name} must be YAML: {error}\nA pattern such as "*" needs quotes.') from error
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise RecipeError(f"{name} must be a mapping with the key 'rules', not {shortened(data)}")
        return cls.from_mapping(data)

    def to_yaml(self) -> str:
        """The recipe as YAML text; ``Recipe.from_yaml(recipe.to_yaml()) == recipe``."""
        data = {
            "first_last": self.first_last,
            "fallback": str(self.fallback),
            "rules": [{"match": rule.match, **rule.model_dump(exclude_defaults=True)} for rule in self.rules],
        }
        return yaml.safe_dump(data, sort_keys=False)
