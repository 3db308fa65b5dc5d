"""Which processing element is built for a spec, and for a layer of a quantized network."""

from __future__ import annotations

from dataclasses import dataclass

from vsquant.errors import SpecError
from vsquant.hardware.lane import DEFAULT_MAX_REDUCTION_LENGTH, Lane
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.processing_element import ProcessingElement
from vsquant.hardware.recorded import RecordedLayer
from vsquant.hardware.rtl.generate import Design
from vsquant.hardware.rtl.golden import layer_golden, synthetic_golden
from vsquant.spec.layer import LayerSpec

LANES = 16
POSITIONS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How large an element is asked for; ``lanes`` None: as many as an output vector has channels, and not below 16."""

    lanes: int | None = None
    positions: int = POSITIONS


def design_for_spec(spec: LayerSpec, following: LayerSpec | None, sizes: Sizes) -> Design:
    """An element for ``spec`` whose codes ``following`` takes (None: without post-processing), on synthetic operands.

    Raises:
        SpecError: the spec has no integer sum, the codes need what post-processing does not have, or sizes do not fit.
    """
    lane = Lane.for_spec(spec)
    unit = None if following is None else PostProcessingUnit.between(lane, following)
    return Design(spec=spec, golden=synthetic_golden(_element(lane, unit, sizes)))


def design_for_layer(layer: RecordedLayer, *, post_process: bool, source: str, sizes: Sizes) -> Design:
    """An element for a recorded layer, on its own operands; post-processed if asked for and the layer gives codes.

    Raises:
        SpecError: as `design_for_spec`, or what lies between the layer's sums and its codes is no part of the unit.
        ShapeError: the layer has fewer input channels than a vector has elements.
    """
    longest = max(DEFAULT_MAX_REDUCTION_LENGTH, layer.workload.reduction_length)
    lane = Lane.for_spec(layer.spec, max_reduction_length=longest)
    unit = None
    if post_process:
        if layer.output is None or layer.residual is not None:
            reason = "adds a residual" if layer.residual is not None else "gives floats, not codes"
            raise SpecError(
                f"layer {layer.name!r} {reason}, which the post-processing unit of an element does not do; add --sums "
                "for its sums, or choose another --layer"
            )
        if layer.spec.is_dynamic:
            raise SpecError(
                f"layer {layer.name!r} must have a static activation scale to be post-processed, not {layer.spec}; "
                "add --sums, or calibrate it (-static)"
            )
        unit = PostProcessingUnit(lane=lane, output=layer.output.format)
    return Design(spec=layer.spec, golden=layer_golden(layer, _element(lane, unit, sizes), source=source))


def takes_codes_only(layer: RecordedLayer) -> bool:
    """Whether a layer's sums become codes without a residual, through nothing or ReLU."""
    return layer.output is not None and layer.residual is None and layer.function != "gelu"


def _element(lane: Lane, unit: PostProcessingUnit | None, sizes: Sizes) -> ProcessingElement:
    size = 1 if unit is None else unit.vector_size
    lanes = sizes.lanes or (LANES if LANES % size == 0 else size)
    return ProcessingElement(
        lane=lane,
        lanes=lanes,
        positions=sizes.positions,
        activation_words=max(256, sizes.positions),
        post_processing=unit,
    )
