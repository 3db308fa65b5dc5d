"""Calibration batches: what they may be, and running a model on one."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, nn

from vsquant.errors import CalibrationError


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Calibration batches, taken one at a time: only the first, which shows what a batch is, stays in memory.

    ``count`` is how many there are, 0 where that is not known beforehand.
    """

    first: Any
    count: int
    source: Iterable[Any]

    def __iter__(self) -> Iterator[Any]:
        """The batches from the first on; raises `CalibrationError` at one that is no batch."""
        for number, batch in enumerate(self.source, start=1):
            yield _checked(batch, number)


def as_batches(calibration: Iterable[Any]) -> Batches:
    """The batches of an iterable; an iterator is used up by one pass.

    Raises:
        CalibrationError: there is none, or ``calibration`` is itself one batch, or the first is no batch.
    """
    if isinstance(calibration, (Tensor, Mapping)) or not isinstance(calibration, Iterable):
        raise CalibrationError(
            f"calibration must be an iterable of batches, not one {type(calibration).__name__}; pass [batch]"
        )
    batches = iter(calibration)
    try:
        first = _checked(next(batches), 1)
    except StopIteration:
        raise CalibrationError(
            "calibration data must hold at least one batch, not none; pass an iterable of batches"
        ) from None
    source = chain([first], batches) if batches is calibration else calibration
    return Batches(first=first, count=len(calibration) if isinstance(calibration, Sized) else 0, source=source)


def repeatable(calibration: Iterable[Any]) -> Iterable[Any]:
    """``calibration`` itself, once it is known that it can be passed through twice.

    Raises:
        CalibrationError: it is an iterator, which one pass uses up.
    """
    if iter(calibration) is calibration:
        raise CalibrationError(
            "calibration must be a list of batches, or another iterable to pass twice, not an iterator"
        )
    return calibration


def _checked(batch: Any, number: int) -> Any:
    if not isinstance(batch, (Tensor, tuple, list, Mapping)):
        raise CalibrationError(
            f"calibration batch {number} must be a tensor, a tuple of arguments or a mapping of keyword arguments, "
            f"not {type(batch).__name__}"
        )
    return batch


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
