import numpy as np
import pytest
import torch
from PIL import Image

from vsquant.errors import DataError, MissingExtraError
from vsquant.tasks.pixels import FILTERS, Geometry, Normalisation, decode_rgb


def _image(width, height):
    random = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_shorter_side_then_middle():
    geometry = Geometry(height=6, width=6, shorter_side=8, resampling=FILTERS["bilinear"])
    wide = _image(32, 16)
    expected = np.asarray(wide.resize((16, 8), Image.Resampling.BILINEAR))[1:7, 5:11]
    assert np.array_equal(geometry.apply(wide), expected)
    tall = _image(16, 32)
    assert np.array_equal(geometry.apply(tall), np.asarray(tall.resize((8, 16), Image.Resampling.BILINEAR))[5:11, 1:7])


def test_an_image_of_the_right_size_is_only_cropped():
    image = _image(8, 8)
    geometry = Geometry(height=6, width=4, shorter_side=8, resampling=FILTERS["bicubic"])
    assert np.array_equal(geometry.apply(image), np.asarray(image)[1:7, 2:6])


def test_without_a_shorter_side_the_image_is_squashed():
    geometry = Geometry(height=5, width=7, shorter_side=None, resampling=FILTERS["bicubic"])
    assert np.array_equal(geometry.apply(_image(20, 10)), np.asarray(_image(20, 10).resize((7, 5))))


def test_a_crop_beyond_the_image_is_refused():
    with pytest.raises(DataError, match="resized to at least the crop of 6×9, not 8"):
        Geometry(height=6, width=9, shorter_side=8, resampling=0)


def test_normalisation_is_per_channel_and_channels_last_in_memory():
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    batch = Normalisation(offset=(127.0, 0.0, 1.0), divisor=(128.0, 1.0, 2.0)).apply(pixels)
    assert batch.shape == (1, 3, 2, 4)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    expected = np.moveaxis((pixels - np.float32([127, 0, 1])) / np.float32([128, 1, 2]), -1, 1)
    assert np.array_equal(batch.numpy(), expected)
    assert pixels[0, 0, 0, 0] == 0


def test_unit_range_is_in_units_of_pixels():
    unit = Normalisation.of_unit_range(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0), factor=1 / 256)
    assert unit == Normalisation(offset=(128.0, 64.0, 0.0), divisor=(128.0, 64.0, 256.0))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    file = tmp_path / "image.tiff"
    _image(4, 3).convert(mode).save(file)
    assert decode_rgb(file, "image").mode == "RGB"


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    file = tmp_path / f"photo{suffix}"
    _image(64, 64).save(file)
    file.write_bytes(file.read_bytes()[:-600])
    with pytest.raises(DataError, match=rf"photo{suffix} must be a whole image file"):
        decode_rgb(file, str(file))


def test_missing_package_names_the_install_line(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'pillow'.*vsquant\[vision\]"):
        decode_rgb(tmp_path / "image.jpg", "image.jpg")
