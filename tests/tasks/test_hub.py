import pytest

from vsquant.errors import DataError
from vsquant.tasks.hub import model_folder


def test_a_folder_is_itself(tmp_path):
    assert model_folder(str(tmp_path), files=["config.json"]) == tmp_path


@pytest.mark.parametrize("model", ["nobody/nothing-of-this-name", "not an id", "a/b/c"])
def test_what_the_hub_does_not_have_is_named_with_the_way_out(model, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=rf"must be a local folder or an id that the hub has, not '{model}'.*path of a folder"
    ):
        model_folder(model, files=["config.json"])
