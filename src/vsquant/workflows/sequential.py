"""Layer by layer, in the order in which they run: each is settled on what the quantized layers before it give."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

from vsquant.errors import CalibrationError
from vsquant.nn import QuantLayer
from vsquant.optimize.methods import ErrorFeedback
from vsquant.progress import Progress, silent
from vsquant.transform.blocks import find_blocks
from vsquant.transform.feedback import StageMoments, settle_layer, take_feedback, takes_feedback
from vsquant.transform.float_layers import float_weight
from vsquant.transform.stages import find_stages
from vsquant.workflows.batches import Batches, call
from vsquant.workflows.captured import DEFAULT_MEMORY_BYTES
from vsquant.workflows.layer_files import LayerFiles
from vsquant.workflows.stage_inputs import StageInputs


def settle_layers(
    model: nn.Module,
    float_model: nn.Module,
    batches: Batches,
    method: ErrorFeedback,
    *,
    files: LayerFiles | None = None,
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
    progress: Progress = silent,
) -> None:
    """Settle the weights of a quantized model by error feedback, in ``model`` itself.

    Batches run through the quantized layers up to those in question (`StageInputs`), and through ``float_model`` too
    where the error of a layer's input is made up for. Layers that read the same tensor share the pass; what is
    gathered of one tensor is in memory at a time. Layers that the first batch does not reach keep the weights they
    have.

    Args:
        model: with the quantized layers in place, their activation ranges and coarse scales settled.
        float_model: the model that ``model`` was made of, with layers of the same names.
        batches: calibration data, read once for every pass.
        method: the options.
        files: where finished layers are kept, and found again by the next run of the same arguments.
        memory_bytes: how much of the data between two layers stays in memory; the rest is in temporary files.
        progress: told how many batches of how many, all passes together.

    Raises:
        CalibrationError: ``batches`` can be read only once, or a Hessian cannot be factored.
        NonFiniteError: a layer's input holds NaN or Inf; the message names the layer.
    """
    _require_repeatable(batches)
    layers = {name: module for name, module in _quantized(model) if takes_feedback(module)}
    stages = find_stages(model, layers, batches.first, call)
    reference = float_model if method.compensation > 0 else None
    blocks = find_blocks(model, layers, batches.first, call)
    inputs = StageInputs(model, reference, stages, blocks, batches, memory_bytes=memory_bytes)
    count = max(1, batches.count)
    for done, stage in enumerate(stages):
        finished = {name: None if files is None else files.load(name) for name in stage.layers}
        missing = {name: layers[name] for name, settled in finished.items() if settled is None}
        moments = StageMoments(list(missing.values()))
        if missing:
            step = _counted(progress, done * count, len(stages) * count)
            for number, (x, float_x) in enumerate(inputs.read(stage)):
                if number % stage.calls == 0:
                    step()
                moments.add(x, float_x)
        for name in stage.layers:
            settled = finished[name]
            if settled is None:
                weight = float_weight(float_model.get_submodule(name))
                settled = settle_layer(layers[name], weight, moments.of(layers[name]), method)
                if files is not None:
                    files.save(name, settled)
            take_feedback(layers[name], settled)
    progress("error feedback", len(stages) * count, len(stages) * count)


def _quantized(model: nn.Module) -> Iterator[tuple[str, QuantLayer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, QuantLayer))


def _require_repeatable(batches: Batches) -> None:
    if isinstance(batches.source, Iterator):
        raise CalibrationError(
            "calibration must be data that can be read again for every layer, not an iterator; pass a list of batches"
        )


def _counted(progress: Progress, start: int, total: int) -> Callable[[], None]:
    done = start

    def step() -> None:
        nonlocal done
        progress("error feedback", done, total)
        done += 1

    return step
