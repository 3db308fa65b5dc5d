"""Calibration batches: what they may be, and running a model on one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from vsquant.errors import CalibrationError


def as_batches(calibration: Iterable[Any]) -> list[Any]:
    """The batches in a list.

    Raises:
        CalibrationError: there is none, or ``calibration`` is itself one batch, or holds what is no batch.
    """
    if isinstance(calibration, (Tensor, Mapping)) or not isinstance(calibration, Iterable):
        raise CalibrationError(
            f"calibration must be an iterable of batches, not one {type(calibration).__name__}; pass [batch]"
        )
    batches = list(calibration)
    if not batches:
        raise CalibrationError("calibration data must hold at least one batch, not none; pass an iterable of batches")
    for number, batch in enumerate(batches, start=1):
        if not isinstance(batch, (Tensor, tuple, list, Mapping)):
            raise CalibrationError(
                f"calibration batch {number} must be a tensor, a tuple of arguments or a mapping of keyword arguments, "
                f"not {type(batch).__name__}"
            )
    return batches


def call(model: nn.Module, batch: Any) -> Any:
    """The model's output on one batch: a tensor, a tuple of arguments, or a mapping of keyword arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


def by_argument(model: nn.Module, batch: Any) -> Tensor | Mapping[str, Any] | None:
    """A batch as a tensor or a mapping of keyword arguments; None where the model's arguments have no names."""
    if not isinstance(batch, (tuple, list)):
        return batch  # type: ignore[no-any-return]  # a tensor or a mapping, see `as_batches`
    try:
        bound = inspect.signature(model.forward).bind(*batch)
    except TypeError as error:
        raise CalibrationError(f"a calibration batch must hold the arguments of the model: {error}") from error
    return dict(bound.arguments) if len(bound.kwargs) + len(bound.args) == len(bound.arguments) else None
