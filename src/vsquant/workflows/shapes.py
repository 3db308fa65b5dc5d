"""The shapes of a network's layers: from a run that calibration makes anyway, or from one of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from vsquant.results.workloads import LayerWorkload
from vsquant.transform.shapes import recorded_shapes
from vsquant.workflows.batches import call


class RecordingCall:
    """Calls a model as ``run`` does, and records the shapes of the first call: ``workloads``, empty before it."""

    def __init__(self, run: Callable[[nn.Module, Any], Any]) -> None:
        self._run = run
        self._called = False
        self.workloads: tuple[LayerWorkload, ...] = ()

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        if self._called:
            return self._run(model, batch)
        self._called = True
        with recorded_shapes(model) as shapes:
            output = self._run(model, batch)
        self.workloads = shapes.workloads
        return output


def network_shapes(model: nn.Module, batch: Any) -> tuple[LayerWorkload, ...]:
    """The shapes of a float model's layers and products for one sample of ``batch``, in the order of the first call.

    A model on the meta device is not computed, only measured; ``batch`` is then on the meta device too.
    """
    recording = RecordingCall(call)
    with torch.inference_mode():
        recording(model.eval(), batch)
    return recording.workloads
