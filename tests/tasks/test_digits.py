import dataclasses
import os

import numpy as np
import pytest
import torch

from vsquant.errors import DataError, MissingExtraError
from vsquant.tasks import digits
from vsquant.tasks.architectures import build
from vsquant.tasks.digits import DigitsTask, cache_folder
from vsquant.tasks.digits_training import TrainingRecipe, augmented, train


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A task whose network trains in a moment, with a cache folder of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(digits, "RECIPE", TrainingRecipe(widths=(16,), blocks=1, epochs=1))
    return tmp_path / "vsquant"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The real task, trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        task = DigitsTask()
        task.prepare()
        yield task


def test_the_network_is_good_enough_to_lose_something(trained):
    scores = trained.evaluate(trained.load_model())
    assert scores.count == 597
    assert scores.value() >= 97
    assert scores.metric == "top-1"
    assert scores.unit == "%"
    assert 0 < scores.standard_error() < 1


def test_three_way_split_has_no_image_twice(trained):
    training, evaluation = trained.calibration_images(), trained.evaluation_images()
    assert len(training.labels) + len(evaluation.labels) == 1797
    assert set(evaluation.labels.tolist()) == set(range(10))
    seen = {image.tobytes() for image in training.pixels}
    assert not any(image.tobytes() in seen for image in evaluation.pixels)


def test_limits_are_nested_subsets(trained):
    model = trained.load_model()
    few, many = trained.evaluate(model, limit=100), trained.evaluate(model, limit=300)
    assert np.array_equal(few.values, many.values[:100])
    with pytest.raises(DataError, match="limit must be between 1 and the 597 evaluation images there are, not 598"):
        trained.evaluate(model, limit=598)


def test_calibration_batches_are_the_same_images_every_time(trained):
    batches = trained.calibration_batches(200)
    assert [len(batch) for batch in batches] == [128, 72]
    assert torch.equal(torch.cat(list(batches))[:128], trained.calibration_batches(128)[0])
    assert min(batch.min() for batch in batches) >= 0
    assert max(batch.max() for batch in batches) <= 1
    with pytest.raises(DataError, match="there must be 1201 calibration images, not 1200"):
        trained.calibration_batches(1201)


def test_evaluation_reports_its_progress(trained):
    calls = []
    trained.evaluate(trained.load_model(), limit=200, progress=lambda *call: calls.append(call))
    assert calls == [("evaluating digits", done, 200) for done in (0, 128, 200)]


def test_every_model_is_fresh_and_alike(trained):
    first, second = trained.load_model(), trained.load_model()
    first.linear.weight.data.zero_()
    assert second.linear.weight.abs().sum() > 0
    assert not second.training


def test_the_architecture_rebuilds_the_module(trained):
    rebuilt = build(trained.architecture())
    rebuilt.load_state_dict(trained.load_model().state_dict())
    batch = trained.calibration_batches(8)[0]
    assert torch.equal(rebuilt(batch), trained.load_model()(batch))


def test_training_reports_progress_and_is_kept(small):
    calls = []
    DigitsTask().prepare(lambda *call: calls.append(call))
    assert calls == [("training the digits network", 0, 1), ("training the digits network", 1, 1)]
    calls.clear()
    DigitsTask().prepare(lambda *call: calls.append(call))
    assert calls == []
    assert [path.suffix for path in small.iterdir()] == [".safetensors"]


def test_a_damaged_cache_is_replaced(small):
    before = DigitsTask().fingerprint()
    (cached,) = small.iterdir()
    cached.write_bytes(cached.read_bytes()[:100])
    assert DigitsTask().fingerprint() == before
    assert DigitsTask().fingerprint() == before


def test_another_recipe_is_another_file_and_fingerprint(small, monkeypatch):
    first = DigitsTask().fingerprint()
    monkeypatch.setattr(digits, "RECIPE", dataclasses.replace(digits.RECIPE, seed=1))
    second = DigitsTask().fingerprint()
    assert first["data"] == second["data"]
    assert first["model"] != second["model"]
    assert len(list(small.iterdir())) == 2


def test_training_leaves_the_callers_random_numbers_alone():
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    recipe = TrainingRecipe(widths=(4,), blocks=1, epochs=1)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = train(recipe, images, labels)
    assert torch.equal(torch.rand(1), expected)
    second = train(recipe, images, labels)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_augmentation_of_nothing_is_nothing():
    images = torch.rand(3, 1, 8, 8)
    still = TrainingRecipe(widths=(4,), blocks=1, epochs=1, rotation_radians=0, scale=0, shift=0)
    torch.testing.assert_close(augmented(images, still), images)


def test_a_full_disk_leaves_nothing_half_written(small, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        DataError, match=r"weights must be written to .*, but No space left on device; set XDG_CACHE_HOME"
    ):
        DigitsTask().prepare()
    assert list(small.iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_says_what_to_set(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(digits, "RECIPE", TrainingRecipe(widths=(4,), blocks=1, epochs=1))
    with pytest.raises(DataError, match="set XDG_CACHE_HOME to a folder that can be written"):
        DigitsTask().prepare()


def test_cache_folder_without_the_variable_is_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "vsquant"


def test_missing_package_names_the_install_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"the digits task needs the package 'scikit-learn'.*vsquant\[demo\]"):
        DigitsTask().evaluation_images()
