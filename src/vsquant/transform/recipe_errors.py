"""What is wrong with a recipe, in the manner of every other message of vsquant."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from vsquant.spec.hints import did_you_mean

_LONGEST_VALUE: Final = 60


def explain(error: ValidationError, noun: str, known_keys: tuple[str, ...]) -> str:
    """Everything wrong with one ``noun`` ("rule", "recipe"), each problem with where it is."""
    problems = []
    for detail in error.errors():
        location, kind = detail["loc"], detail["type"]
        if kind == "extra_forbidden":
            problems.append(f"{noun}: {_unknown_key(str(location[-1]), known_keys)}")
        elif kind == "missing":
            problems.append(f"{noun}: the key {str(location[-1])!r} must be given")
        elif kind == "value_error":
            problems.append(_located(noun, location, str(detail["ctx"]["error"])))
        else:
            problem = _requirement(detail["msg"]) + f", not {shortened(detail['input'])}"
            problems.append(_located(noun, location, problem))
    return "; ".join(problems)


def shortened(value: object) -> str:
    """``repr(value)``, cut where it would drown the message."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def _unknown_key(key: str, known_keys: tuple[str, ...]) -> str:
    return f"unknown key {key!r}; known keys are {', '.join(known_keys)}{did_you_mean(key, known_keys, cutoff=0.5)}"


def _requirement(pydantic_message: str) -> str:
    """Pydantic's "Input should be a valid boolean, unable to …" as "must be a valid boolean"."""
    return pydantic_message.split(", unable", maxsplit=1)[0].replace("Input should be", "must be")


def _located(noun: str, location: tuple[int | str, ...], problem: str) -> str:
    """``problem`` after the rule's number (from 1) or the key it is about."""
    if len(location) > 1 and isinstance(location[1], int):
        return f"rule {location[1] + 1}: {problem.removeprefix('rule: ')}"
    key = str(location[-1]) if location else ""
    if problem.startswith(key):
        return f"{noun}: {problem}"
    return f"{noun}: {key} {problem}" if problem.startswith("must ") else f"{noun}: {key}: {problem}"
