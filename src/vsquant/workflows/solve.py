"""What follows once quantized layers are in place: methods that run calibration data through them."""

from __future__ import annotations

from torch import nn

from vsquant.errors import CalibrationError
from vsquant.nn import QuantLayer
from vsquant.optimize import ErrorFeedback, Method, Reconstruction, method_text, settle
from vsquant.progress import Progress, silent
from vsquant.spec.layer import ScaleMode
from vsquant.workflows.batches import Batches
from vsquant.workflows.block_files import BlockFiles
from vsquant.workflows.kept import Kept
from vsquant.workflows.layer_files import LayerFiles, run_key
from vsquant.workflows.reconstruct import reconstruct
from vsquant.workflows.sequential import settle_layers


def first_scale_mode(method: Method, scale_mode: ScaleMode) -> ScaleMode:
    """That of the weights which a method starts from; ``scale_mode`` is that of the layers.

    Weights to which no error is fed back keep the scales of a search.
    """
    if isinstance(method, Reconstruction):
        start, of_start = settle(method.start, "requantize")
        return first_scale_mode(start, of_start)
    return "search" if isinstance(method, ErrorFeedback) else scale_mode


def reads_data(method: Method) -> bool:
    """Whether a method runs calibration data through the quantized layers, again and again."""
    return isinstance(method, (ErrorFeedback, Reconstruction))


def require_no_data(method: Method, *, corrected: bool = False) -> None:
    """Refuse a method that cannot do without calibration data, and corrections (``corrected``), which never can.

    Raises:
        CalibrationError: the method is such a one, or there are corrections.
    """
    if corrected:
        raise CalibrationError(
            "calibration must be given: bias correction and batch-norm re-estimation compare outputs on it; "
            "pass calibration=batches"
        )
    if reads_data(method):
        raise CalibrationError(
            f"calibration must be given: method {method.name} settles weights on the inputs they meet; "
            "pass calibration=batches"
        )


def solve(
    float_model: nn.Module,
    model: nn.Module,
    batches: Batches | None,
    method: Method,
    *,
    resume: Kept | None = None,
    progress: Progress = silent,
) -> None:
    """Go on from first weights to those of ``method``, in ``model`` itself.

    Args:
        float_model: the float model that ``model`` was made of, batch norms folded.
        model: the simulated model, its weights in `first_scale_mode`.
        batches: the calibration data.
        method: the method of the weights; some have nothing more to do.
        resume: a folder for finished layers.
        progress: told how far it is.

    Raises:
        CalibrationError: the method needs calibration data, and there is none.
    """
    if not isinstance(method, (ErrorFeedback, Reconstruction)):
        return
    if batches is None:
        raise CalibrationError(
            f"calibration must be given to prepare(): method {method.name} settles weights on the inputs they meet"
        )
    if isinstance(method, ErrorFeedback):
        _feed_back(float_model, model, batches, method, resume, progress)
    else:
        solve(float_model, model, batches, method.start, resume=resume, progress=progress)
        files = None if resume is None else BlockFiles(resume, _run_key(float_model, model, batches, method))
        reconstruct(float_model, model, tuple(batches), method, files=files, progress=progress)


def _feed_back(
    float_model: nn.Module,
    model: nn.Module,
    batches: Batches,
    method: ErrorFeedback,
    resume: Kept | None,
    progress: Progress,
) -> None:
    files = None if resume is None else LayerFiles(resume, _run_key(float_model, model, batches, method))
    settle_layers(model, float_model, batches, method, files=files, progress=progress)


def _run_key(float_model: nn.Module, model: nn.Module, batches: Batches, method: Method) -> str:
    specs = [
        f"{name} {layer.spec}" + (" best-of-three" if layer.scale_mode == "best-of-three" else "")
        for name, layer in model.named_modules()
        if isinstance(layer, QuantLayer)
    ]
    return run_key((float_model, model), batches, [method_text(method), *specs])
