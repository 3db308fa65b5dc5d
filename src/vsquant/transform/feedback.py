"""Error feedback on a quantized layer: what of its input is gathered, and its new weight and bias."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor

from vsquant.errors import CalibrationError, ScaleRangeError
from vsquant.nn import QuantConv1d, QuantConv2d, QuantEmbedding, QuantizedWeight, QuantLayer, by_position
from vsquant.optimize.input_moments import InputMoments
from vsquant.optimize.layer_feedback import LayerFeedback, layer_feedback
from vsquant.optimize.methods import ErrorFeedback
from vsquant.spec.formats import IntegerFormat


def takes_feedback(layer: object) -> bool:
    """Whether a module is a layer whose weight error feedback can settle: integers that meet an input."""
    return (
        isinstance(layer, QuantLayer)
        and not isinstance(layer, QuantEmbedding)
        and isinstance(layer.spec.weight, IntegerFormat)
    )


class StageMoments:
    """The moments of the layers that read one tensor; those that quantize it alike share them."""

    def __init__(self, layers: Sequence[QuantLayer]) -> None:
        self._readers: dict[Hashable, QuantLayer] = {}
        for layer in layers:
            self._readers.setdefault(_reads(layer), layer)
        self._moments: dict[Hashable, InputMoments] = {}

    def add(self, x: Tensor, float_x: Tensor | None) -> None:
        """Observes the tensor, and what it is in the float network if that is given."""
        for key, layer in self._readers.items():
            floats = None if float_x is None else layer.input_rows(float_x, quantized=False)
            for rows in layer.input_rows(x, quantized=True):
                if key not in self._moments:
                    self._moments[key] = InputMoments(layer.name, rows.shape[0], rows.shape[2], rows.device)
                self._moments[key].add(rows, None if floats is None else next(floats))

    def of(self, layer: QuantLayer) -> InputMoments:
        """The moments of one of the layers; at least one tensor must have been observed."""
        return self._moments[_reads(layer)]


def settle_layer(layer: QuantLayer, weight: Tensor, moments: InputMoments, method: ErrorFeedback) -> LayerFeedback:
    """The new weight of ``layer`` from its float ``weight`` (K, C, *kernel); the layer is left as it is.

    Raises:
        CalibrationError, ScaleRangeError: the message names the layer.
    """
    assert isinstance(layer.spec.weight, IntegerFormat)
    try:
        return layer_feedback(
            by_position(weight.float()),
            moments,
            layer.spec.weight,
            method,
            coarse_scale=layer.weight_coarse_scale,
            has_bias=layer.bias is not None,
        )
    except (CalibrationError, ScaleRangeError) as error:
        raise type(error)(f"weight of layer {layer.name!r}: {error}") from error


def take_feedback(layer: QuantLayer, settled: LayerFeedback) -> None:
    """Give the layer its new weight and bias."""
    layer.set_weight(QuantizedWeight.from_positions(settled.weight, layer.weight_shape), settled.bias_shift)


def _reads(layer: QuantLayer) -> Hashable:
    """What of a layer decides which rows it makes of its input."""
    geometry = layer.geometry if isinstance(layer, (QuantConv1d, QuantConv2d)) else None
    range_ = None if layer.activation_range is None else float(layer.activation_range)
    return layer.weight_shape[1], geometry, layer.spec.activation, layer.spec.gamma, range_, layer.scale_mode
