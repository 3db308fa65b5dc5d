import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vsquant.errors import DataError
from vsquant.tasks import cifar10
from vsquant.tasks.architectures import build
from vsquant.tasks.cifar10 import Cifar10Task
from vsquant.tasks.models.cifar_resnet import CifarResNet


def _jpeg(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def _write(folder, *, images=12, side=32, broken=None, **changed):
    random = np.random.default_rng(0)
    jpegs = [_jpeg(random.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(images)]
    if broken is not None:
        jpegs[broken] = jpegs[broken][:200]
    arrays = {
        "jpeg": np.frombuffer(b"".join(jpegs), dtype=np.uint8),
        "offset": np.cumsum([0, *map(len, jpegs)]),
        "label": np.arange(images) % 10,
    } | changed
    np.savez(folder / "test.npz", **{name: array for name, array in arrays.items() if array is not None})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A dozen images, eight of them to evaluate on, and a ResNet-20."""
    monkeypatch.setattr(cifar10, "EVALUATION_IMAGES", 8)
    torch.manual_seed(0)
    save_file(CifarResNet(20).state_dict(), tmp_path / "resnet20.safetensors")
    _write(tmp_path)
    return tmp_path


def test_halves_share_no_image_and_labels_follow_their_images(folder):
    task = Cifar10Task(data=folder)
    evaluation, calibration = task.evaluation_images(), task.calibration_images()
    assert (len(evaluation.labels), len(calibration.labels)) == (8, 4)
    original = np.load(folder / "test.npz", allow_pickle=False)
    for images in (evaluation, calibration):
        for pixels, label in zip(images.pixels, images.labels, strict=True):
            positions = [
                i
                for i in range(12)
                if np.array_equal(
                    pixels,
                    np.asarray(Image.open(io.BytesIO(original["jpeg"][original["offset"][i] :].tobytes()))),
                )
            ]
            assert [original["label"][i] for i in positions] == [label]


def test_pixels_are_normalised_as_in_training(folder):
    images = Cifar10Task(data=folder).evaluation_images()
    batch = images.batch(2, 4)
    assert batch.shape == (2, 3, 32, 32)
    expected = (images.pixels[2:4] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(batch.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)


def test_scores_are_per_image_and_limits_nested(folder):
    task = Cifar10Task(data=folder)
    model = task.load_model()
    scores = task.evaluate(model)
    with torch.inference_mode():
        predicted = model(task.evaluation_images().batch(0, 8)).argmax(1).numpy()
    assert scores.values.tolist() == (100.0 * (predicted == task.evaluation_images().labels)).tolist()
    assert task.evaluate(model, limit=3).values.tolist() == scores.values[:3].tolist()
    assert len(set(scores.groups.tolist())) == 8


def test_folder_or_its_parent(folder, tmp_path_factory):
    parent = tmp_path_factory.mktemp("parent")
    (parent / "cifar10").symlink_to(folder, target_is_directory=True)
    assert Cifar10Task(data=parent).fingerprint() == Cifar10Task(data=folder).fingerprint()


def test_fingerprint_follows_weights_and_images(folder):
    before = Cifar10Task(data=folder).fingerprint()
    _write(folder, images=13)
    changed_data = Cifar10Task(data=folder).fingerprint()
    assert changed_data["model"] == before["model"]
    assert changed_data["data"] != before["data"]
    save_file(CifarResNet(20).state_dict(), folder / "resnet20.safetensors")
    assert Cifar10Task(data=folder).fingerprint()["model"] != before["model"]


def test_architecture_rebuilds_the_module(folder):
    task = Cifar10Task(data=folder)
    build(task.architecture()).load_state_dict(task.load_model().state_dict())


def test_missing_weights_or_images_say_what_the_folder_must_hold(folder):
    with pytest.raises(DataError, match=r"must hold test.npz and resnet32.safetensors"):
        Cifar10Task("cifar10-resnet32", data=folder)
    with pytest.raises(DataError, match=r"must be a .safetensors file of ResNet-20, not 'resnet99'"):
        Cifar10Task(data=folder, model="resnet99")


def test_weights_of_another_network_name_the_tensor_that_does_not_fit(folder):
    state = CifarResNet(20).state_dict()
    other = folder / "other.safetensors"
    save_file(CifarResNet(32).state_dict(), other)
    with pytest.raises(DataError, match=r"other.safetensors must be those of CifarResNet, which has no 'layer1.3"):
        Cifar10Task(data=folder, model=str(other)).load_model()
    save_file({name: tensor for name, tensor in state.items() if name != "linear.bias"}, other)
    with pytest.raises(DataError, match=r"'linear.bias' is missing"):
        Cifar10Task(data=folder, model=str(other)).load_model()
    save_file(state | {"linear.bias": torch.zeros(11)}, other)
    with pytest.raises(DataError, match=r"'linear.bias' must be \(10,\), not \(11,\)"):
        Cifar10Task(data=folder, model=str(other)).load_model()
    other.write_bytes(b"\x80\x04not tensors")
    with pytest.raises(DataError, match=r"other.safetensors must be a whole safetensors file"):
        Cifar10Task(data=folder, model=str(other)).load_model()


def test_a_corrupt_image_is_named(folder):
    _write(folder, broken=5)
    with pytest.raises(DataError, match=r"image 5 in .*test.npz must be a whole image file"):
        Cifar10Task(data=folder).evaluation_images()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": 8}, "must hold more than 8 images .*, not 8"),
        ({"side": 16}, "image 0 in .* must be 32×32 pixels, not 16×16"),
        ({"label": None}, "must hold the arrays jpeg, offset and label: .*label"),
        ({"label": np.full(12, 10)}, "labels in .* must be 0 to 9, not 10 to 10"),
        ({"offset": np.arange(13)}, "offset in .* must rise from 0 to the"),
        ({"label": np.array([{}] * 12, dtype=object)}, "must be a NumPy .npz archive without pickles"),
    ],
)
def test_malformed_archives_say_what_must_be(folder, content, message):
    _write(folder, **content)
    with pytest.raises(DataError, match=message):
        Cifar10Task(data=folder).evaluation_images()


def test_a_file_that_is_no_archive_is_refused(folder):
    (folder / "test.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"must be a NumPy .npz archive without pickles"):
        Cifar10Task(data=folder).evaluation_images()


def test_too_few_calibration_images(folder):
    with pytest.raises(DataError, match="there must be 5 calibration images, not 4"):
        Cifar10Task(data=folder).calibration_batches(5)


def test_unknown_name():
    with pytest.raises(DataError, match="must be one of cifar10, cifar10-resnet32, not 'cifar100'"):
        Cifar10Task("cifar100")


@pytest.mark.parametrize(("name", "expected"), [("cifar10", 81.0), ("cifar10-resnet32", 82.0)])
def test_real_networks_reach_their_known_accuracy(vsquant_data, name, expected):
    task = Cifar10Task(name, data=vsquant_data)
    scores = task.evaluate(task.load_model(), limit=1000)
    assert abs(scores.value() - expected) < 4 * scores.standard_error()
    for images in (task.evaluation_images(), task.calibration_images()):
        assert np.bincount(images.labels).min() > 400
