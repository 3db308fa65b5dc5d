"""Where an integer model's time goes: in the terminal and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from vsquant.report.grouped import Group as Layers
from vsquant.report.grouped import GroupedTable, common_name
from vsquant.report.speed import seconds_text
from vsquant.results.profile import IntegerProfile, LayerProfile

_HEADINGS: Final = ("layers", "spec", "shape", "rows", "in → out", "float ms", "integer ms", "faster", "share")
_NAMED: Final = 3


def render_profile(profile: IntegerProfile) -> RenderableType:
    """What is slower than float and why, equal layers together, and the totals; fits 80 columns."""
    table = GroupedTable(
        headings=_HEADINGS,
        groups=tuple(_group(profile, layers) for layers in _alike(profile.layers)),
        left=(1, 2, 4),
        dispensable=(1, 4),
    )
    return Group(
        Text(profile_summary(profile), style="bold"),
        Text(totals_text(profile)),
        table,
        Text(_method(profile), style="dim"),
    )


def profile_summary(profile: IntegerProfile) -> str:
    """One sentence: ``2 of 8 layers are slower than float: fc1, eager because …; fc2, native at 5 µs a call``."""
    slower, count = profile.slower, len(profile.layers)
    if not slower:
        return "No layer is slower than float." if count > 1 else "The only layer is not slower than float."
    verb = "is" if len(slower) == 1 else "are"
    return f"{len(slower)} of {count} layers {verb} slower than float: {'; '.join(_causes(slower))}."


def totals_text(profile: IntegerProfile) -> str:
    """Layers against the rest of the model, in CPU time of one run."""
    whole = max(profile.model_seconds, profile.integer_seconds)
    return (
        f"Quantized layers: {seconds_text(profile.integer_seconds)} on integers, "
        f"{seconds_text(profile.float_seconds)} in float "
        f"({profile.float_seconds / profile.integer_seconds:.2f} times faster).\n"
        f"Outside quantized layers: {seconds_text(profile.outside_seconds)}, "
        f"{profile.outside_seconds / whole:.0%} of the model's {seconds_text(profile.model_seconds)}."
    )


def profile_to_json(profile: IntegerProfile) -> dict[str, Any]:
    """The profile as plain values, every layer on its own, with the totals and the sentence."""
    layers = [
        dataclasses.asdict(layer)
        | {
            "shape": list(layer.shape),
            "times_faster": layer.times_faster,
            "share": profile.share(layer),
        }
        for layer in profile.layers
    ]
    totals = {
        "float_seconds": profile.float_seconds,
        "integer_seconds": profile.integer_seconds,
        "outside_seconds": profile.outside_seconds,
        "slower": len(profile.slower),
        "summary": profile_summary(profile),
    }
    return dataclasses.asdict(profile) | {"layers": layers} | totals


def _causes(slower: Sequence[LayerProfile]) -> Iterator[str]:
    """The slower layers by what native code says of them, the eager ones first."""
    by_reason: dict[str, list[LayerProfile]] = {}
    for layer in sorted(slower, key=lambda layer: not layer.reason):
        by_reason.setdefault(layer.reason, []).append(layer)
    for reason, layers in by_reason.items():
        yield f"{_names([layer.name for layer in layers])}, {f'eager because {reason}' if reason else _native(layers)}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else common_name(names)


def _native(layers: Sequence[LayerProfile]) -> str:
    """How long the native calls are that float makes faster."""
    longest = max(layer.integer_seconds / layer.calls for layer in layers)
    return f"native at {'up to ' if len(layers) > 1 else ''}{seconds_text(longest)} a call"


def _alike(layers: Iterable[LayerProfile]) -> list[list[LayerProfile]]:
    """Layers by all but their names and times, in the order in which the first of each appears."""
    groups: dict[LayerProfile, list[LayerProfile]] = {}
    for layer in layers:
        alike = dataclasses.replace(layer, name="", float_seconds=0.0, integer_seconds=0.0)
        groups.setdefault(alike, []).append(layer)
    return list(groups.values())


def _group(profile: IntegerProfile, layers: Sequence[LayerProfile]) -> Layers:
    """Sums stand for the layers of a group."""
    first = layers[0]
    in_float = sum(layer.float_seconds for layer in layers)
    on_integers = sum(layer.integer_seconds for layer in layers)
    cells = (
        str(len(layers)),
        first.spec,
        "×".join(str(length) for length in first.shape),
        f"{first.rows:,}",
        f"{_carrier(first.takes_codes)} → {_carrier(first.gives_codes)}",
        f"{1e3 * in_float:.3f}",
        f"{1e3 * on_integers:.3f}",
        _ratio(in_float, on_integers),
        f"{sum(profile.share(layer) for layer in layers):.0%}",
    )
    notes = (f"eager: {first.reason}",) if first.reason else ()
    style = "yellow" if on_integers > in_float else ""
    return Layers(name=common_name([layer.name for layer in layers]), cells=cells, notes=notes, style=style)


def _carrier(codes: bool) -> str:
    return "codes" if codes else "floats"


def _ratio(in_float: float, on_integers: float) -> str:
    return f"{in_float / on_integers:.2f}×"


def _method(profile: IntegerProfile) -> str:
    kernels = "no native kernels" if profile.isa is None else f"native kernels: {profile.isa}"
    threads = "1 thread" if profile.threads == 1 else f"{profile.threads} threads"
    return f"CPU time, medians; {kernels}, {threads}. Each layer on the model's own input, its weight in the cache."
