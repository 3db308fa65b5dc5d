"""What the buffers of an accelerator hold, in bits, under either policy."""

from __future__ import annotations

from dataclasses import dataclass

from vsquant.hardware.accelerator.configuration import Accelerator, LaneWidths
from vsquant.hardware.accelerator.fit import Fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """Bits of the buffers: of a processing element's weights and activations, and of the shared one."""

    weight: int
    activation: int
    shared: int
    lanes: int
    vector_size: int

    @classmethod
    def of(cls, accelerator: Accelerator, lane: LaneWidths) -> Capacity:
        """Equal bytes hold 8 bits each; equal elements have the width of the lane's, with a share of their scales.

        The shared buffer holds weights and activations; its elements are as wide as the wider of the two.
        """
        buffers, size = accelerator.buffers, accelerator.vector_size
        weight = lane.weight_bits * size + lane.weight_scale_bits
        activation = lane.operand_bits * size + lane.activation_scale_bits
        if buffers.policy == "bytes":
            weight = activation = 8 * size
        return cls(
            weight=buffers.weight * weight // size,
            activation=buffers.activation * activation // size,
            shared=buffers.shared * max(weight, activation) // size,
            lanes=accelerator.lanes,
            vector_size=size,
        )

    def weight_words_per_lane(self, fit: Fit) -> int:
        """Words of V weights with their scale that half a buffer holds for each lane."""
        word = self.vector_size * fit.lane.weight_bits + fit.lane.weight_scale_bits
        return self.weight // 2 // (fit.lanes * word)


def accumulator_bits(lane: LaneWidths, accelerator: Accelerator) -> int:
    """Bits of one accumulator, eq. (9)."""
    return lane.as_spec(accelerator.vector_size).accumulator_bits(accelerator.max_reduction_length)


def accumulator_capacity(lane: LaneWidths, accelerator: Accelerator) -> int:
    """Words that an accumulator adds up without ever wrapping; a longer reduction drains in parts."""
    spec = lane.as_spec(accelerator.vector_size)
    longest = spec.max_reduction_length(accumulator_bits(lane, accelerator))
    return max(1, longest // accelerator.vector_size)
