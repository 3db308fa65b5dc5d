"""What running on integers changed: codes that flipped, and the metric."""

from __future__ import annotations

from dataclasses import dataclass

from vsquant.results.scores import Difference, Scores


@dataclass(frozen=True, kw_only=True)
class CodeFlips:
    """Of the ``codes`` that one layer's input was quantized to, those that pad vectors included, ``flipped`` are not
    those of the simulated model.
    """

    layer: str
    codes: int
    flipped: int


@dataclass(frozen=True, kw_only=True)
class IntegerComparison:
    """An integer model beside the simulated one, on the same samples.

    ``flips`` has every layer and attention product that quantizes its input, in the order of their first call;
    ``chained`` counts the layers that give the next one codes, of ``layers`` in all.
    """

    simulated: Scores
    integer: Scores
    flips: tuple[CodeFlips, ...]
    chained: int
    layers: int

    @property
    def codes(self) -> int:
        """Codes of all layers."""
        return sum(each.codes for each in self.flips)

    @property
    def flipped(self) -> int:
        """Flipped codes of all layers."""
        return sum(each.flipped for each in self.flips)

    @property
    def difference(self) -> Difference:
        """The integer model's metric less the simulated one's, paired."""
        return self.integer.difference(self.simulated)
