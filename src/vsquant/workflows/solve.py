"""What follows once quantized layers are in place: methods and corrections that run calibration data through them."""

from __future__ import annotations

from torch import nn

from vsquant.errors import CalibrationError
from vsquant.optimize import Method, Reconstruction, settle
from vsquant.progress import Progress, silent
from vsquant.spec.layer import ScaleMode
from vsquant.workflows.batches import Batches
from vsquant.workflows.reconstruct import reconstruct


def first_scale_mode(method: Method, scale_mode: ScaleMode) -> ScaleMode:
    """That of the weights which a method starts from; ``scale_mode`` is that of the layers."""
    return settle(method.start, "requantize")[1] if isinstance(method, Reconstruction) else scale_mode


def require_no_data(method: Method) -> None:
    """Refuse a method that cannot do without calibration data.

    Raises:
        CalibrationError: the method is such a one.
    """
    if isinstance(method, Reconstruction):
        raise CalibrationError(
            f"calibration must be given: method {method.name} learns from what goes through the layers; "
            "pass calibration=batches"
        )


def solve(
    float_model: nn.Module, model: nn.Module, batches: Batches | None, method: Method, *, progress: Progress = silent
) -> None:
    """Go on from first weights to those of ``method``, in ``model`` itself.

    Args:
        float_model: the float model that ``model`` was made of, batch norms folded.
        model: the simulated model, its weights in `first_scale_mode`.
        batches: the calibration data.
        method: the method of the weights; most have nothing more to do.
        progress: told how far it is.

    Raises:
        CalibrationError: the method needs calibration data, and there is none.
    """
    if not isinstance(method, Reconstruction):
        return
    if batches is None:
        require_no_data(method)
    else:
        reconstruct(float_model, model, tuple(batches), method, progress=progress)
