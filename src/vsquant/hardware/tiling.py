"""A layer cut into tiles: what a processing element is told, and in which order its operands come.

Weight-stationary: the weights of up to ``lanes`` output channels stay while all positions pass, ``positions`` at a
time; a reduction that its buffers do not hold is cut, and the sums stay in the accumulators from part to part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vsquant.errors import SpecError
from vsquant.hardware.processing_element import ProcessingElement


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """A layer as the element sees it: output channels, positions of all samples, and vectors of the reduction.

    ``vectors`` is R*S*ceil(C/V) for a convolution, whose positions come with their taps side by side.
    """

    outputs: int
    positions: int
    vectors: int

    def __post_init__(self) -> None:
        for name in ("outputs", "positions", "vectors"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One command: ``positions`` by ``vectors`` by all lanes, and where in the layer they are.

    ``drain``: the sums are complete after it. ``load_*``: its operands come anew; ``free_*``: they go after it.
    """

    output: int
    position: int
    vector: int
    positions: int
    vectors: int
    drain: bool
    load_weights: bool
    free_weights: bool
    load_constants: bool
    free_constants: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The tiles of a layer, in order, and how its sums leave."""

    element: ProcessingElement
    shape: LayerShape
    tiles: tuple[Tile, ...]
    post_process: bool
    relu: bool


def plan_layer(
    element: ProcessingElement, shape: LayerShape, *, post_process: bool = False, relu: bool = False
) -> Plan:
    """The tiles of a layer; ``post_process`` sends its sums through the post-processing unit, with ``relu`` or without.

    Raises:
        SpecError: the element has no post-processing unit, or the reduction is longer than the accumulators hold, so
            that sums leave in parts, which only what adds them up could post-process.
    """
    if post_process and element.post_processing is None:
        raise SpecError("post_process must be False for a processing element without a post-processing unit")
    if post_process and shape.vectors > element.lane.max_vectors:
        raise SpecError(
            f"a layer to be post-processed must have at most {element.lane.max_vectors} vectors in its reduction, what "
            f"the accumulators hold, not {shape.vectors}; raise max_reduction_length to {shape.vectors} vectors"
        )
    if relu and not post_process:
        raise SpecError("relu must be False where nothing is post-processed: it is a part of post-processing")
    tiles = tuple(_tiles(element, shape, post_process))
    return Plan(element=element, shape=shape, tiles=tiles, post_process=post_process, relu=relu)


def _tiles(element: ProcessingElement, shape: LayerShape, post_process: bool) -> Iterator[Tile]:
    positions = min(element.positions, shape.positions)
    vectors = min(shape.vectors, element.weight_words, element.activation_words // positions)
    whole = vectors == shape.vectors
    for output in range(0, shape.outputs, element.lanes):
        for position in range(0, shape.positions, positions):
            first, last = position == 0, position + positions >= shape.positions
            for vector in range(0, shape.vectors, vectors):
                drain = vector + vectors >= shape.vectors
                yield Tile(
                    output=output,
                    position=position,
                    vector=vector,
                    positions=min(positions, shape.positions - position),
                    vectors=min(vectors, shape.vectors - vector),
                    drain=drain,
                    load_weights=first or not whole,
                    free_weights=last or not whole,
                    load_constants=post_process and first and vector == 0,
                    free_constants=post_process and last and drain,
                )


def drained_parts(plan: Plan) -> Iterator[tuple[Tile, int, int]]:
    """What leaves, in order: (a tile of its positions, the first of its vectors, the first vector after them).

    After ``max_vectors`` vectors the element drains sums by itself; the last part of a sum leaves after its last tile.
    """
    begin = 0
    for tile in plan.tiles:
        for end in range(tile.vector + 1, tile.vector + tile.vectors + 1):
            complete = tile.drain and end == tile.vector + tile.vectors
            if complete or end - begin == plan.element.lane.max_vectors:
                yield tile, begin, end
                begin = 0 if complete else end
