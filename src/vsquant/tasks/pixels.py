"""From image files to uint8 pixels (resize, centre crop) and from pixels to what a network takes (normalise)."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from vsquant.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from PIL import Image

FILTERS: Final = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""Resampling filters by name; the numbers are Pillow's."""

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """(pixel - offset) / divisor per channel, in units of a pixel's 0 … 255."""

    offset: Triple
    divisor: Triple

    @classmethod
    def of_unit_range(cls, *, mean: Triple, std: Triple, factor: float = 1 / 255) -> Normalisation:
        """That of pixels scaled by ``factor``, minus ``mean``, divided by ``std``."""
        return cls(offset=_triple(value / factor for value in mean), divisor=_triple(value / factor for value in std))

    def apply(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """uint8 (n, height, width, 3) to float32 (n, 3, height, width), channels last in memory."""
        values = torch.from_numpy(pixels.astype(np.float32, order="C"))
        return values.sub_(torch.tensor(self.offset)).div_(torch.tensor(self.divisor)).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """How a photograph becomes an input of (height, width) pixels.

    It is resized, so that its shorter side is ``shorter_side``, or to exactly ``height`` × ``width`` where that is
    None; then the middle is cropped.
    """

    height: int
    width: int
    shorter_side: int | None
    resampling: int

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.shorter_side < max(self.height, self.width):
            raise DataError(
                f"images must be resized to at least the crop of {self.height}×{self.width}, not {self.shorter_side}"
            )

    def apply(self, rgb: Image.Image) -> npt.NDArray[np.uint8]:
        """Pixels (height, width, 3) of an RGB image."""
        size = self._resized(rgb.width, rgb.height)
        if size != rgb.size:
            rgb = rgb.resize(size, resample=self.resampling)
        left, top = (rgb.width - self.width) // 2, (rgb.height - self.height) // 2
        pixels: npt.NDArray[np.uint8] = np.asarray(rgb.crop((left, top, left + self.width, top + self.height)))
        return pixels

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.shorter_side is None:
            return self.width, self.height
        if width <= height:
            return self.shorter_side, int(self.shorter_side * height / width)
        return int(self.shorter_side * width / height), self.shorter_side


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Geometry, then normalisation."""

    geometry: Geometry
    normalisation: Normalisation


def decode_rgb(file: Path | bytes, origin: str) -> Image.Image:
    """The RGB image in a file or its bytes; ``origin`` names it in errors.

    Raises:
        DataError: it cannot be read, or is no whole image.
        MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("pillow", "vision", "reading images") from error
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            rgb: Image.Image = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{origin} must be a whole image file: {error}") from error
    return rgb


def _triple(values: Any) -> Triple:
    red, green, blue = values
    return red, green, blue
