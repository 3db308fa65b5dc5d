"""The inputs and outputs of chosen layers in one run of a model, with the outputs open to differentiation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vsquant.errors import CalibrationError


@dataclass(frozen=True, kw_only=True)
class LayerCall:
    """One call of a layer: its input, detached, and its output, which the model's output can be differentiated by."""

    name: str
    input: Tensor
    input_identity: tuple[int, ...]
    """Equal for calls in one run that were given the same values in the same memory."""
    output: Tensor


@contextmanager
def captured_calls(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[list[LayerCall]]:
    """The calls of ``layers`` (by name, submodules of ``model``) while the block runs, in order.

    What follows a layer gets a copy of its output, so that what works in place leaves the captured one alone.
    """
    calls: list[LayerCall] = []
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(_capturing(calls, name), with_kwargs=True).remove)
        yield calls
    for call in calls:
        if _identity(call.input) != call.input_identity:
            raise CalibrationError(
                f"the input of layer {call.name!r} must not be written over later in the run, but it is; "
                "make the operation after it work out of place (inplace=False)"
            )


def _capturing(
    calls: list[LayerCall], name: str
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        x = args[0] if args else next(iter(kwargs.values()))
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        calls.append(LayerCall(name=name, input=x.detach(), input_identity=_identity(x), output=output))
        return output.clone()

    return hook


def _identity(x: Tensor) -> tuple[int, ...]:
    return (x.data_ptr(), x._version, *x.shape, *x.stride())
