"""Methods as text and as options: what records, stores and the command line say of them."""

from __future__ import annotations

import pytest

from vsquant.errors import SpecError
from vsquant.optimize import (
    METHODS,
    ErrorFeedback,
    Reconstruction,
    Rounding,
    ScaleSearch,
    method_options,
    method_text,
    parse_method,
    settle,
)
from vsquant.spec import LayerSpec


@pytest.mark.parametrize("method", [make() for make in METHODS.values()], ids=lambda method: method.name)
def test_a_method_as_text_is_read_back(method):
    assert method_text(method) == method.name
    assert parse_method(method.name) == method
    assert method_options(method)["name"] == method.name


def test_texts_that_are_no_method():
    with pytest.raises(SpecError, match=r"method must be one of rtn, search.*, not 'best'"):
        parse_method("best")
    with pytest.raises(SpecError, match=r"options of method rtn must be none, not 'steps=3'"):
        parse_method("rtn:steps=3")


def test_the_method_and_the_scale_mode_agree():
    assert settle(None, "paper") == (Rounding(), "paper")
    assert settle(None, "search") == settle(ScaleSearch(), "requantize") == (ScaleSearch(), "search")


def test_which_weights_a_method_changes():
    changed = {
        text: ScaleSearch().changes(LayerSpec.parse(text).weight)
        for text in ("w4a8-s4/8", "w4a8", "w4a16-sfp16/x", "nvfp4")
    }
    assert changed == {"w4a8-s4/8": True, "w4a8": False, "w4a16-sfp16/x": False, "nvfp4": False}
    assert not Rounding().changes(LayerSpec.parse("w4a8-s4/8").weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be an integer of at least 1, not 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer of at least 1, not 2.5"),
        ({"activation_drop": 1.5}, "activation_drop must be 0 to 1, not 1.5"),
        ({"warmup": -0.1}, "warmup must be 0 to 1, not -0.1"),
        ({"regularisation": -1.0}, "regularisation must be at least 0, not -1.0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, not 0.0"),
        ({"start": "rtn"}, r"start must be Rounding\(\), ScaleSearch\(\) or ErrorFeedback\(\), not 'rtn'"),
    ],
)
def test_options_of_reconstruction_are_checked(options, message):
    with pytest.raises(SpecError, match=message):
        Reconstruction(**options)


def test_a_reconstruction_reads_as_it_is_written():
    method = Reconstruction(start=Rounding(), iterations=50, activation_drop=0.5)
    assert method_text(method) == "reconstruct:start=[rtn],iterations=50,activation_drop=0.5"
    assert parse_method(method_text(method)) == method
    assert method_options(method)["start"] == {"name": "rtn"}


def test_a_method_may_be_given_as_its_text():
    assert settle("gptq:damping=0.1", "requantize")[0] == ErrorFeedback(damping=0.1)
    assert parse_method("reconstruct:start=search") == Reconstruction(start=ScaleSearch())


@pytest.mark.parametrize("given", [3, ErrorFeedback])
def test_what_is_no_method_is_refused(given):
    with pytest.raises(SpecError, match=r"method must be such as vsquant\.ErrorFeedback\(\), or its text 'gptq', not "):
        settle(given, "requantize")


@pytest.mark.parametrize(
    "text",
    ["gptq:damping=abc", "gptq:compensation=null", "reconstruct:learning_rate=x", "reconstruct:activation_drop=x",
     "reconstruct:start=foo"],
)  # fmt: skip
def test_options_of_another_type_are_refused_by_name(text):
    option = text.partition(":")[2].partition("=")[0]
    with pytest.raises(SpecError, match=rf"^{option} must "):
        parse_method(text)
