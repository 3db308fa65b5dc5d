"""The processing element: lanes that share activations, with their buffers and a post-processing unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vsquant.errors import SpecError
from vsquant.hardware.lane import Lane
from vsquant.hardware.post_processing import PostProcessingUnit

NO_POST_PROCESSING: Final = {
    "OUT_V": 1,
    "MULT_BITS": 1,
    "SHIFT_BITS": 1,
    "BIAS_BITS": 1,
    "CODE_BITS": 1,
    "SCALE_BITS": 0,
}
"""Parameters that make the ports of an absent post-processing unit as narrow as they can be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessingElement:
    """``lanes`` lanes of one format, each with accumulators for ``positions`` outputs, all doubled.

    ``weight_words`` is the words of V weights that each lane holds in one half of its buffer, ``activation_words`` that
    of the shared activation buffer. ``drain_width`` sums leave in one cycle.

    Invariants: all sizes are powers of two; the activation buffer holds a vector of every position; ``drain_width``
    divides ``lanes``; with a post-processing unit the vector size of what it writes divides ``lanes`` and is divided by
    ``drain_width``.
    """

    lane: Lane
    lanes: int = 16
    positions: int = 16
    weight_words: int = 16
    activation_words: int = 256
    drain_width: int = 2
    post_processing: PostProcessingUnit | None = None

    def __post_init__(self) -> None:
        for name in ("lanes", "positions", "weight_words", "activation_words", "drain_width"):
            size = getattr(self, name)
            if type(size) is not int or size < 1 or size & (size - 1):
                raise SpecError(f"{name} must be a power of two, not {size!r}")
        if self.activation_words < self.positions:
            raise SpecError(
                f"activation_words must be at least positions, {self.positions}, not {self.activation_words}"
            )
        if self.lanes % self.drain_width:
            raise SpecError(f"drain_width must divide the {self.lanes} lanes, not be {self.drain_width}")
        if self.post_processing is not None:
            self._check_post_processing(self.post_processing)

    def _check_post_processing(self, unit: PostProcessingUnit) -> None:
        size = unit.vector_size
        if unit.lane != self.lane:
            raise SpecError("post_processing must be of the element's own lane, not of another")
        if self.lanes % size:
            raise SpecError(
                f"lanes must be a multiple of the {size} channels of one output vector, not {self.lanes}; choose "
                f"{size} lanes, or leave the post-processing unit out"
            )
        if size % self.drain_width:
            raise SpecError(f"drain_width must divide the {size} channels of a vector, not be {self.drain_width}")

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates in one cycle of computing."""
        return self.lanes * self.lane.vector_size

    def verilog_parameters(self) -> dict[str, int]:
        """The parameters of ``vsq_pe`` by their names there."""
        return {
            "LANES": self.lanes,
            "DEPTH": self.positions,
            "WEIGHT_WORDS": self.weight_words,
            "ACT_WORDS": self.activation_words,
            "E": self.drain_width,
            **self.lane.verilog_parameters(),
            "HAS_PPU": int(self.post_processing is not None),
            **self._post_processing_parameters(),
        }

    def _post_processing_parameters(self) -> dict[str, int]:
        if self.post_processing is None:
            return dict(NO_POST_PROCESSING)
        parameters = self.post_processing.verilog_parameters()
        return {"OUT_V": parameters.pop("V"), **parameters}
