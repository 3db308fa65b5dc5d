"""Every built-in task by name; a task's module is imported when the task is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Final

from vsquant.errors import DataError
from vsquant.spec.hints import did_you_mean
from vsquant.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class TaskFactory:
    """Where a task's class is."""

    module: str
    class_name: str

    def __call__(self, name: str, *, data: Path | None, model: str | None) -> Task:
        """The task ``name``; raises `DataError` where its data or model is missing."""
        task: Task = getattr(import_module(self.module), self.class_name)(name, data=data, model=model)
        return task


_SQUAD: Final = TaskFactory(module="vsquant.tasks.squad", class_name="SquadTask")
_IMAGENET: Final = TaskFactory(module="vsquant.tasks.imagenet", class_name="ImagenetTask")
_CIFAR10: Final = TaskFactory(module="vsquant.tasks.cifar10", class_name="Cifar10Task")

TASKS: Final[Mapping[str, TaskFactory]] = MappingProxyType(
    {
        "digits": TaskFactory(module="vsquant.tasks.digits", class_name="DigitsTask"),
        "squad": _SQUAD,
        "squad-minilm": _SQUAD,
        "squad-bert-base": _SQUAD,
        "squad-bert-large": _SQUAD,
        "imagenet": _IMAGENET,
        "imagenet-resnet50": _IMAGENET,
        "imagenet-efficientnet-lite0": _IMAGENET,
        "cifar10": _CIFAR10,
        "cifar10-resnet32": _CIFAR10,
        "wikitext": TaskFactory(module="vsquant.tasks.wikitext", class_name="WikitextTask"),
    }
)


def create_task(name: str, *, data: Path | None = None, model: str | None = None) -> Task:
    """The built-in task ``name`` on the data in ``data`` (its folder or that folder's parent), with another ``model``.

    Raises:
        DataError: there is no such task, or its data or model is missing; found before any heavy work.
    """
    factory = TASKS.get(name)
    if factory is None:
        raise DataError(f"task must be one of {', '.join(TASKS)}, not {name!r}{did_you_mean(name, TASKS)}")
    return factory(name, data=data, model=model)
