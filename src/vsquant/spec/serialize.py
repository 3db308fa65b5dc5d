"""Tensor formats and layer specs as plain types, and back, refusing whatever they do not know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import Any, Final, cast, get_type_hints

from vsquant.errors import SpecError
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat
from vsquant.spec.notation import SpecFields

_FORMATS: Final[Mapping[str, type[IntegerFormat] | type[FloatFormat]]] = {
    "integer": IntegerFormat,
    "float": FloatFormat,
}
_REQUIRED: Final[Mapping[str, Set[str]]] = {
    "integer": {"bits", "scale"},
    "float": {"name", "element", "block_scale", "vector_size"},
}
_SPEC_KEYS: Final = ("weight", "activation", "product_bits", "gamma")


def format_to_dict(fmt: TensorFormat) -> dict[str, object]:
    """A tensor format as plain types, its class under ``kind``."""
    kind = "integer" if isinstance(fmt, IntegerFormat) else "float"
    return {"kind": kind} | {name: getattr(fmt, name) for name in get_type_hints(type(fmt))}


def format_from_dict(data: object, where: str) -> TensorFormat:
    """Inverse of `format_to_dict`.

    Raises:
        SpecError: for unknown or missing keys, wrong types and broken invariants; it names ``where``.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"{where} must be a mapping with 'kind', not {data!r}")
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in _FORMATS:
        raise SpecError(f"{where}.kind must be 'integer' or 'float', not {kind!r}")
    cls = _FORMATS[kind]
    fields = {key: value for key, value in data.items() if key != "kind"}
    hints = get_type_hints(cls)
    _check_keys(fields, known=set(hints), required=_REQUIRED[kind], where=where)
    for key, value in fields.items():
        if (hints[key] is bool) != isinstance(value, bool):
            wanted = "true or false" if hints[key] is bool else "no boolean"
            raise SpecError(f"{where}.{key} must be {wanted}, not {value!r}")
    try:
        return cls(**cast("dict[str, Any]", fields))
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def spec_fields_from_dict(data: object) -> SpecFields:
    """The fields of a layer spec from the mapping `LayerSpec.to_dict` made.

    Raises:
        SpecError: for unknown or missing keys, wrong types and broken invariants of a tensor format.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"a layer spec must be a mapping with {', '.join(_SPEC_KEYS)}, not {data!r}")
    _check_keys(data, known=set(_SPEC_KEYS), required={"weight", "activation"}, where="layer spec")
    activation = data["activation"]
    return SpecFields(
        weight=format_from_dict(data["weight"], "weight"),
        activation=None if activation is None else format_from_dict(activation, "activation"),
        product_bits=data.get("product_bits"),
        gamma=data.get("gamma", "static"),
    )


def load_json_object(text: str) -> Mapping[str, object]:
    """The JSON object that ``text`` holds.

    Raises:
        SpecError: if it holds none.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"a layer spec in JSON must be a JSON object; {error}") from error
    if not isinstance(data, dict):
        raise SpecError(f"a layer spec in JSON must be a JSON object, not {data!r}")
    return data


def _check_keys(data: Mapping[str, object], *, known: Set[str], required: Set[str], where: str) -> None:
    unknown = sorted(str(key) for key in data if key not in known)
    if unknown:
        raise SpecError(f"{where} must have only the keys {', '.join(sorted(known))}, not {', '.join(unknown)}")
    missing = sorted(required - data.keys())
    if missing:
        raise SpecError(f"{where} must have the key {', '.join(missing)}, which is missing")
