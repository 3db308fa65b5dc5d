"""Every error vsquant raises on purpose. Each message says what must be, what was given, and what to do."""

from __future__ import annotations


class VsquantError(Exception):
    """Base of all errors that a user of vsquant can cause and mend."""


class SpecError(VsquantError, ValueError):
    """A layer spec, a tensor format or its notation is malformed or contradicts itself."""


class RecipeError(VsquantError, ValueError):
    """A recipe has an unknown key, a rule that matches nothing, or a rule that cannot be applied."""


class NonFiniteError(VsquantError, ValueError):
    """A tensor to be quantized holds NaN or Inf; the message names the tensor."""


class ScaleRangeError(VsquantError, ValueError):
    """A scale stored as fp16 would be zero, subnormal or infinite; the message names the channel."""


class ShapeError(VsquantError, ValueError):
    """An array does not have the shape that the operation is defined for."""


class PackingError(VsquantError, ValueError):
    """Codes or scales to be packed are not what their format says, or the format has no such layout."""


class WidthError(VsquantError, OverflowError):
    """A value does not fit the width that the hardware has for it."""


class CalibrationError(VsquantError, ValueError):
    """Calibration data is missing, empty, or did not reach a layer that needs it."""


class AllocationError(VsquantError, ValueError):
    """A budget is malformed or too small, or what is to be allocated contradicts itself."""


class AcceleratorError(VsquantError, ValueError):
    """The description of an accelerator is malformed, a layer does not fit it, or a part of it has no known cost."""


class CheckpointError(VsquantError):
    """A checkpoint is foreign, truncated, inconsistent, or could not be written."""


class DataError(VsquantError):
    """A data set or model is missing, malformed, or too small for what was asked."""


class StoreError(VsquantError):
    """The results store cannot be opened, or was written by another version."""


class LibraryError(VsquantError, ValueError):
    """A Liberty file cannot be read, or has no cell of a kind that is needed."""


class SynthesisError(VsquantError, RuntimeError):
    """Synthesis or the simulation of its netlist failed, took too long, or missed the clock."""


class BackendError(VsquantError, RuntimeError):
    """A backend was asked for by name and cannot run here; the message says what can."""


class MissingExtraError(VsquantError, ImportError):
    """An optional dependency is not installed; the message carries the install line."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed. "
            f"Install it with:  pip install 'vsquant[{extra}]'"
        )
