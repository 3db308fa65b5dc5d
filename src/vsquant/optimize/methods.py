"""The methods that choose a weight's codes and scales: what each is called and which options it takes."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, TypeAlias, get_args

from vsquant.errors import SpecError
from vsquant.spec.formats import IntegerFormat, TensorFormat
from vsquant.spec.layer import ScaleMode

Importance: TypeAlias = Literal["none", "second-moment"]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Round to nearest, eqs. (1)-(5), in the scale mode that is asked for. No data is needed."""

    name: ClassVar[str] = "rtn"

    def changes(self, fmt: TensorFormat) -> bool:
        """Whether weights of this format differ from those of `Rounding`."""
        return False


@dataclass(frozen=True, kw_only=True)
class ScaleSearch:
    """Try every integer vector scale and keep the one of least squared error.

    Formats without integer vector scales are rounded.

    Raises:
        SpecError: an option has a value it cannot have.
    """

    name: ClassVar[str] = "search"
    layer_scale_mode: ClassVar[ScaleMode] = "search"

    importance: Importance = "none"
    """What weighs an element's squared error: nothing, or E[x²] of its input channel ("second-moment"), for which
    calibration data is needed."""
    gamma: bool = False
    """Whether the coarse scale of each output channel is searched too, among `vsquant.optimize.GAMMA_RATIOS` times
    that of eq. (4)."""

    def __post_init__(self) -> None:
        if self.importance not in get_args(Importance):
            raise SpecError(f"importance must be one of {', '.join(get_args(Importance))}, not {self.importance!r}")
        if not isinstance(self.gamma, bool):
            raise SpecError(f"gamma must be true or false, not {self.gamma!r}")

    @property
    def needs_inputs(self) -> bool:
        """Whether the inputs of the layers must be seen."""
        return self.importance == "second-moment"

    def changes(self, fmt: TensorFormat) -> bool:
        """Whether weights of this format differ from those of `Rounding`."""
        return isinstance(fmt, IntegerFormat) and fmt.two_level


@dataclass(frozen=True, kw_only=True)
class ErrorFeedback:
    """Settle weights column by column, so that those to come make up for the errors of those settled (GPTQ).

    Layers are settled in the order in which they run, on calibration data that has come through the quantized layers
    before them. Vector scales are chosen when their first column is reached, gamma stays that of eq. (4). Embeddings,
    and layers that the data does not reach, take scales of `ScaleSearch`; comparison formats are rounded.
    """

    name: ClassVar[str] = "gptq"
    layer_scale_mode: ClassVar[ScaleMode] = "requantize"

    damping: float = 0.01
    """Added to the diagonal of a layer's Hessian, as a share of the diagonal's mean."""
    order: Literal["activation", "none"] = "activation"
    """Which vectors are settled first: those that meet the largest inputs, or as they are stored."""
    scales: Literal["search", "requantize"] = "search"
    """A vector's scale: of several, the one whose errors cost least once fed back; or eq. (5) on the moved weights."""
    compensation: float = 0.5
    """How much of the error in its input a weight makes up for, 0 to 1; 0 needs no pass of the float network."""
    free_bias: bool = True
    """Whether the bias of a layer that has one takes up the mean of the error in its output."""

    def __post_init__(self) -> None:
        if not _is_number(self.damping) or not 0 < self.damping < math.inf:
            raise SpecError(f"damping must be a positive number, not {self.damping!r}; try 0.01")
        for option, value in (("order", self.order), ("scales", self.scales)):
            allowed = ("activation", "none") if option == "order" else ("search", "requantize")
            if value not in allowed:
                raise SpecError(f"{option} must be one of {', '.join(allowed)}, not {value!r}")
        if not _is_number(self.compensation) or not 0 <= self.compensation <= 1:
            raise SpecError(f"compensation must lie between 0 and 1, not {self.compensation!r}")
        if not isinstance(self.free_bias, bool):
            raise SpecError(f"free_bias must be true or false, not {self.free_bias!r}")

    def changes(self, fmt: TensorFormat) -> bool:
        """Whether weights of this format differ from those of `Rounding`."""
        return isinstance(fmt, IntegerFormat)


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Learn the rounding of each block's weights so that the block gives what it gives in the float model.

    Needs calibration data. Scales stay those of ``start``; codes end within one of where they start.

    Raises:
        SpecError: an option is out of its range.
    """

    name: ClassVar[str] = "reconstruct"
    layer_scale_mode: ClassVar[ScaleMode] = "requantize"

    start: Rounding | ScaleSearch | ErrorFeedback = ErrorFeedback()
    """The method that gives scales and the first codes."""
    iterations: int = 300
    """Steps of the optimizer (Adam) for every block."""
    learning_rate: float = 0.1
    """Of the rounding variables; activation ranges learn at a hundredth of it."""
    batch_size: int = 16
    """Samples in a step."""
    activation_drop: float = 0.25
    """Probability with which an element of an activation stays float in a step."""
    warmup: float = 0.2
    """Share of the iterations before rounding variables are pushed to integers."""
    regularisation: float = 1.0
    """How hard they are pushed: weight of their mean penalty against the relative squared error."""
    learn_ranges: bool = True
    """Whether static activation ranges learn too."""
    seed: int = 0
    """Of all draws."""

    def __post_init__(self) -> None:
        if not isinstance(self.start, (Rounding, ScaleSearch, ErrorFeedback)):
            raise SpecError(
                f"start must be Rounding(), ScaleSearch() or ErrorFeedback(), not {self.start!r}; in a text "
                "rtn, search or gptq"
            )
        for field, least in (("iterations", 1), ("batch_size", 1), ("seed", 0)):
            value = getattr(self, field)
            if type(value) is not int or value < least:
                raise SpecError(f"{field} must be an integer of at least {least}, not {value!r}")
        for field, most in (("activation_drop", 1.0), ("warmup", 1.0), ("regularisation", math.inf)):
            if not _is_number(getattr(self, field)) or not 0 <= getattr(self, field) <= most:
                raise SpecError(
                    f"{field} must be {f'0 to {most:g}' if most < math.inf else 'at least 0'}, "
                    f"not {getattr(self, field)!r}"
                )
        if not _is_number(self.learning_rate) or not 0 < self.learning_rate < math.inf:
            raise SpecError(f"learning_rate must be above 0, not {self.learning_rate!r}")

    def changes(self, fmt: TensorFormat) -> bool:
        """Whether weights of this format differ from those of `Rounding`."""
        return isinstance(fmt, IntegerFormat)


Method: TypeAlias = Rounding | ScaleSearch | ErrorFeedback | Reconstruction
"""How the weights of a model are quantized."""

_CLASSES: Final = (Rounding, ScaleSearch, ErrorFeedback, Reconstruction)

METHODS: Final[Mapping[str, type[Method]]] = {method.name: method for method in _CLASSES}
"""Every method by its name."""


def settle(method: Method | str | None, scale_mode: ScaleMode) -> tuple[Method, ScaleMode]:
    """The method in force, given as one or as its text, and the scale mode of the layers that it makes.

    Without a method, scale mode ``search`` means `ScaleSearch` and the others `Rounding`.

    Raises:
        SpecError: there is no such method, or the two contradict each other.
    """
    if isinstance(method, str):
        method = parse_method(method)
    if method is not None and not isinstance(method, _CLASSES):
        raise SpecError(f"method must be such as vsquant.ErrorFeedback(), or its text 'gptq', not {method!r}")
    if scale_mode == "best-of-three":
        raise SpecError(
            "scale_mode must be 'paper', 'requantize' or 'search', not 'best-of-three', which is for activations; "
            "use calibrators=Calibrators(candidates=3)"
        )
    if method is None:
        method = ScaleSearch() if scale_mode == "search" else Rounding()
    if isinstance(method, Rounding) and scale_mode == "search":
        raise SpecError("scale_mode must be 'paper' or 'requantize' with method rtn, not 'search'; use method search")
    if isinstance(method, Rounding):
        return method, scale_mode
    if scale_mode == "paper":
        raise SpecError(f"scale_mode must not be 'paper' with method {method.name}: it chooses codes itself")
    return method, method.layer_scale_mode


def method_options(method: Method) -> dict[str, Any]:
    """A method's name and all its options as plain values, methods among them likewise."""
    options = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    plain = {name: method_options(value) if isinstance(value, _CLASSES) else value for name, value in options.items()}
    return {"name": method.name, **plain}


def method_text(method: Method) -> str:
    """A method in one line: its name, and the options that are not the default ones, ``search:gamma=true``.

    A method among the options stands in brackets.
    """
    parts = [
        f"{field.name}={_value_text(getattr(method, field.name))}"
        for field in dataclasses.fields(method)
        if getattr(method, field.name) != getattr(type(method)(), field.name)
    ]
    return method.name + (":" + ",".join(parts) if parts else "")


def parse_method(text: str) -> Method:
    """The method of a text made by `method_text`: a name, and after a colon options such as ``search:gamma=true``.

    Raises:
        SpecError: there is no such method or option, or a value is not one that the option takes.
    """
    name, colon, rest = text.partition(":")
    if name not in METHODS:
        raise SpecError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    known = [field.name for field in dataclasses.fields(METHODS[name])]
    options = {}
    for part in _split(rest) if colon else ():
        option, equals, value = part.partition("=")
        if option not in known or not equals:
            allowed = f"one of {', '.join(known)} and a value, such as {known[0]}=…" if known else "none"
            raise SpecError(f"options of method {name} must be {allowed}, not {part!r}")
        options[option] = _value(value)
    return METHODS[name](**options)


def _split(text: str) -> list[str]:
    """Options between commas that stand in no brackets."""
    return re.split(r",(?![^\[]*\])", text)


def _value(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return parse_method(text[1:-1])
    if text in METHODS:
        return parse_method(text)
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{method_text(value)}]" if isinstance(value, _CLASSES) else str(value)
