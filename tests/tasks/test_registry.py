import re
from importlib import import_module

import pytest

from vsquant.errors import DataError
from vsquant.tasks.base import Task
from vsquant.tasks.registry import TASKS, create_task


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_name_leads_to_a_task_class(name):
    factory = TASKS[name]
    assert issubclass(getattr(import_module(factory.module), factory.class_name), Task)


def test_unknown_task_lists_the_known_ones():
    with pytest.raises(DataError, match=re.escape(f"task must be one of {', '.join(TASKS)}, not 'mnist'")):
        create_task("mnist")


@pytest.mark.parametrize("name", sorted(set(TASKS) - {"digits"}))
def test_missing_data_says_which_folder_and_what_it_must_hold(name, tmp_path):
    with pytest.raises(DataError, match=r"must be an existing folder that holds .*nowhere'"):
        create_task(name, data=tmp_path / "nowhere", model="some-org/some-model" if name == "imagenet" else None)
    with pytest.raises(DataError, match=rf"task '{name}' needs data"):
        create_task(name, model="some-org/some-model" if name == "imagenet" else None)


def test_digits_needs_neither_data_nor_model(tmp_path):
    assert create_task("digits").name == "digits"
    with pytest.raises(DataError, match="task 'digits' brings its own data; leave --data out"):
        create_task("digits", data=tmp_path)
    with pytest.raises(DataError, match="brings its own model; leave --model out, or give - for MODEL, not 'other'"):
        create_task("digits", model="other")


def test_imagenet_needs_a_model(tmp_path):
    with pytest.raises(DataError, match=r"task 'imagenet' needs a model: give the hub id .* \(--model MODEL\)"):
        create_task("imagenet", data=tmp_path)
