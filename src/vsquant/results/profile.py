"""Where the time of an integer model goes, layer by layer, beside the same layers in float."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """One layer or attention product in one run of the model, all its calls in that run together.

    ``shape`` is the float weight's, of a product (outputs, contracted length); ``rows`` is how often the weight is
    applied, in all calls; ``takes_codes`` and ``gives_codes`` say what chaining made of its input and output. Seconds
    are CPU time. ``reason`` says why native code does not run the layer; it is empty where it does.
    """

    name: str
    kind: str
    spec: str
    shape: tuple[int, ...]
    rows: int
    calls: int
    takes_codes: bool
    gives_codes: bool
    backend: str
    reason: str
    float_seconds: float
    integer_seconds: float

    @property
    def times_faster(self) -> float:
        """Float time over integer time: below 1 the layer is slower on integers."""
        return self.float_seconds / self.integer_seconds

    @property
    def slower(self) -> bool:
        """Whether the layer takes longer on integers than in float."""
        return self.integer_seconds > self.float_seconds


@dataclass(frozen=True, kw_only=True)
class IntegerProfile:
    """An integer model's layers in the order of their first call, and the CPU seconds of one run of the whole model.

    ``isa`` is the instruction set of the native kernels, None where there are none.
    """

    layers: tuple[LayerProfile, ...]
    model_seconds: float
    threads: int
    isa: str | None

    @property
    def float_seconds(self) -> float:
        """All layers in float."""
        return sum(layer.float_seconds for layer in self.layers)

    @property
    def integer_seconds(self) -> float:
        """All layers on integers."""
        return sum(layer.integer_seconds for layer in self.layers)

    @property
    def outside_seconds(self) -> float:
        """What the model takes besides its quantized layers, which were timed on their own; not below zero."""
        return max(0.0, self.model_seconds - self.integer_seconds)

    @property
    def slower(self) -> tuple[LayerProfile, ...]:
        """The layers that take longer on integers than in float."""
        return tuple(layer for layer in self.layers if layer.slower)

    def share(self, layer: LayerProfile) -> float:
        """The part of the model's time that a layer takes."""
        return layer.integer_seconds / max(self.model_seconds, self.integer_seconds)
