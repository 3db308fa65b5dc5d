"""Which backend runs what, and what is said of the others."""

from __future__ import annotations

import pytest

from vsquant import LayerSpec
from vsquant.errors import BackendError
from vsquant.kernels import backends, choose, native, registry
from vsquant.kernels.native import NativeStatus
from vsquant.kernels.schemas import ARGUMENTS


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A native library with every operation."""
    monkeypatch.setattr(native, "status", lambda: NativeStatus(available=True, isa="scalar", reason=""))
    monkeypatch.setattr(registry, "_has_native_kernel", lambda operation: True)


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    status = NativeStatus(available=False, isa=None, reason="the native library was not built")
    monkeypatch.setattr(native, "status", lambda: status)


def formats(text: str):
    spec = LayerSpec.parse(text)
    return spec.weight, spec.activation


def test_the_backends_have_names() -> None:
    assert backends() == ("eager", "cpu")


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("operation", ARGUMENTS)
def test_native_code_runs_where_it_can(operation: str) -> None:
    choice = choose(operation, *formats("w4a8-s4/x"))
    assert (choice.backend, choice.others) == ("cpu", {"eager": "cpu runs it faster"})


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("text", ["w4a8-s4/4-v8", "w4a8-sfp16/x", "w4a8-s4/fp32", "w4a16-s4/x", "w8a16-sfp32/x-v2"])
@pytest.mark.parametrize("operation", ["linear", "conv2d"])
def test_native_code_runs_every_scale_and_vector_size(operation: str, text: str) -> None:
    assert choose(operation, *formats(text)).backend == "cpu"


@pytest.mark.usefixtures("built")
def test_what_native_code_cannot_run_says_why() -> None:
    choice = choose("linear", *formats("mxfp4"))
    problem = "mxfp4 is a comparison format, which is simulated only"
    assert (choice.backend, choice.others) == ("eager", {"cpu": problem})


@pytest.mark.usefixtures("built")
def test_depthwise_weights_under_activation_vectors_run_eager() -> None:
    fmts = formats("w8a8-sx/8")
    assert choose("conv2d", *fmts).backend == "cpu"
    choice = choose("conv2d", *fmts, depthwise=True)
    assert choice.backend == "eager"
    assert "depthwise convolutions" in choice.others["cpu"]


@pytest.mark.usefixtures("not_built")
def test_without_native_code_the_reason_is_its_own() -> None:
    choice = choose("linear", *formats("w4a8-s4/x"))
    assert (choice.backend, choice.others) == ("eager", {"cpu": "the native library was not built"})


def test_an_operation_that_native_code_lacks(built: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_has_native_kernel", lambda operation: operation != "matmul")
    assert choose("matmul", *formats("w4a8-s4/x")).others == {"cpu": "the native library has no matmul"}


@pytest.mark.usefixtures("built")
def test_a_backend_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSQUANT_BACKEND", "eager")
    choice = choose("linear", *formats("w4a8-s4/x"))
    assert (choice.backend, choice.others) == ("eager", {"cpu": "VSQUANT_BACKEND is 'eager'"})
    monkeypatch.setenv("VSQUANT_BACKEND", "cpu")
    assert choose("linear", *formats("w4a8-s4/x")).others == {"eager": "VSQUANT_BACKEND is 'cpu'"}


@pytest.mark.usefixtures("not_built")
def test_a_backend_that_cannot_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSQUANT_BACKEND", "cpu")
    with pytest.raises(BackendError) as error:
        choose("linear", *formats("w4a8-s4/x"))
    assert str(error.value) == (
        "VSQUANT_BACKEND must not be 'cpu' for linear: the native library was not built; unset it, or use 'eager'"
    )


def test_an_unknown_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSQUANT_BACKEND", "cuda")
    with pytest.raises(BackendError) as error:
        choose("linear", *formats("w4a8-s4/x"))
    assert str(error.value) == "VSQUANT_BACKEND must be one of eager, cpu, not 'cuda'"
