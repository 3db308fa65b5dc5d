"""Labelled image files: a CSV that lists them, or a folder of class folders."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vsquant.errors import DataError
from vsquant.tasks.textfiles import fixed_order

HOLDS: Final = (
    "labels.csv (columns file, label and perhaps split) with the images beside it or in images/, or one folder of "
    "images per class, perhaps within calibration/ and evaluation/ (or train/ and val/)"
)
CSV_NAME: Final = "labels.csv"
MAX_CALIBRATION_IMAGES: Final = 1024
"""Of a large calibration set, the first this many in the fixed order are used."""

_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
_SPLITS: Final = {
    "calibration": "calibration",
    "train": "calibration",
    "evaluation": "evaluation",
    "val": "evaluation",
    "validation": "evaluation",
    "test": "evaluation",
}
_CALIBRATION_SHARE: Final = 0.2


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """An image file with its label as the CSV or the folder's name says it; ``split`` is "" where none is given."""

    path: Path
    label: str
    split: str


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Two disjoint sets, each in its fixed order, found in the CSV or folder ``origin``."""

    calibration: tuple[Photograph, ...]
    evaluation: tuple[Photograph, ...]
    origin: Path

    @property
    def by_folder(self) -> bool:
        """Whether labels are the names of class folders."""
        return self.origin.is_dir()

    @property
    def count(self) -> int:
        """Images in both sets."""
        return len(self.calibration) + len(self.evaluation)


def find_photographs(data: Path | None, *, task: str, subfolders: Sequence[str]) -> Photographs:
    """The images of ``data``: a CSV, its folder, a folder of class folders, or a folder that holds one of these.

    Where not both splits are given, the images are divided in the fixed order: a fifth, at most
    `MAX_CALIBRATION_IMAGES`, for calibration, the others for evaluation.

    Raises:
        DataError: there is nothing of the kind in ``data``; names it and says what it must hold.
    """
    if data is None:
        raise DataError(f"task {task!r} needs data: give the folder that holds {HOLDS} (--data DIR)")
    if data.is_file() and data.suffix == ".csv":
        return _divided(_from_csv(data), data)
    if not data.is_dir():
        raise DataError(f"the data of task {task!r} must be an existing folder that holds {HOLDS}; not {str(data)!r}")
    for folder in (data, *(data / name for name in subfolders)):
        if (folder / CSV_NAME).is_file():
            return _divided(_from_csv(folder / CSV_NAME), folder / CSV_NAME)
        if found := _from_folders(folder):
            return _divided(found, folder)
    raise DataError(f"the data folder of task {task!r} must hold {HOLDS}; {str(data)!r} does not")


def class_table(
    labels: Collection[str], *, classes: int, names: Mapping[str, int], by_folder: bool
) -> Mapping[str, int]:
    """The class index of every one of the distinct ``labels``.

    They are class indices, or class names of the model (``names``), or, where they are the names of as many folders as
    there are ``classes``, their sorted order counts.

    Raises:
        DataError: they are none of these; names the first that is not.
    """
    known = {label: int(label) for label in labels if label.isdecimal() and int(label) < classes}
    if not all(label.isdecimal() for label in labels):
        known = {label: names[label] for label in labels if label in names}
    if len(known) < len(labels) == classes and by_folder:
        return {label: index for index, label in enumerate(sorted(labels))}
    for label in sorted(labels):
        if label not in known:
            raise DataError(
                f"labels must be class indices from 0 to {classes - 1}, class names of the model, or the names of "
                f"{classes} class folders, whose sorted order then counts; not {label!r} among {len(labels)} labels"
            )
    return known


def _from_csv(path: Path) -> list[Photograph]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} must be a CSV file in UTF-8: {error}") from error
    for column in ("file", "label"):
        if column not in (reader.fieldnames or ()):
            raise DataError(
                f"{path} must have the columns file and label, not {', '.join(reader.fieldnames or ['none'])}"
            )
    folder = path.parent / "images" if (path.parent / "images").is_dir() else path.parent
    return [_of_row(row, folder, path, number) for number, row in enumerate(rows, start=2)]


def _of_row(row: Mapping[str, str | None], folder: Path, path: Path, line: int) -> Photograph:
    file, label, split = row["file"], row["label"], row.get("split") or ""
    if not file or not label:
        raise DataError(f"{path} must give a file and a label in every line, but line {line} does not")
    if split and split not in _SPLITS:
        raise DataError(f"split in line {line} of {path} must be calibration or evaluation, not {split!r}")
    return Photograph(path=folder / file, label=label.strip(), split=_SPLITS.get(split, ""))


def _from_folders(folder: Path) -> list[Photograph]:
    if not folder.is_dir():
        return []
    parts = [(folder / name, split) for name, split in _SPLITS.items() if (folder / name).is_dir()]
    return [
        Photograph(path=file, label=class_folder.name, split=split)
        for part, split in parts or [(folder, "")]
        for class_folder in sorted(part.iterdir())
        if class_folder.is_dir()
        for file in sorted(class_folder.iterdir())
        if file.suffix.lower() in _SUFFIXES
    ]


def _divided(found: Sequence[Photograph], origin: Path) -> Photographs:
    ordered = [found[index] for index in fixed_order(len(found))]
    splits = {photograph.split for photograph in ordered}
    if "" in splits and len(splits) > 1:
        raise DataError(f"{origin} must give a split for every image or for none")
    if len(splits) == 1:
        share = min(int(len(ordered) * _CALIBRATION_SHARE), MAX_CALIBRATION_IMAGES)
        calibration, evaluation = ordered[:share], ordered[share:]
    else:
        calibration = [photograph for photograph in ordered if photograph.split == "calibration"]
        evaluation = [photograph for photograph in ordered if photograph.split == "evaluation"]
    if not evaluation:
        raise DataError(f"{origin} must list at least one image to evaluate on, not none")
    return Photographs(
        calibration=tuple(calibration[:MAX_CALIBRATION_IMAGES]), evaluation=tuple(evaluation), origin=origin
    )
