"""Wheels with and without the native module: what the packaging hook and the build script do, whatever is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler is installed"
)
CMAKE = """\
cmake_minimum_required(VERSION 3.22)
project(stand_in LANGUAGES CXX)
add_library(_native MODULE ${CMAKE_CURRENT_SOURCE_DIR}/empty.cpp)
set_target_properties(_native PROPERTIES PREFIX "" SUFFIX ".so" LIBRARY_OUTPUT_DIRECTORY "${VSQUANT_OUTPUT}")
"""
REQUIRES = "import json; from hatchling.build import get_requires_for_build_wheel as f; print(json.dumps(f()))"
EDITABLE = "import sys; from hatchling.build import build_editable as f; f(sys.argv[1])"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose module compiles in no time."""
    folder = tmp_path / "checkout"
    (folder / "native").mkdir(parents=True)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore", "native/build_native.py"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "_native.*"))
    (folder / "native" / "CMakeLists.txt").write_text(CMAKE)
    (folder / "native" / "empty.cpp").write_text("")
    return folder


def run(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """This Python in the checkout, free of what the caller's environment says of builds."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("CXX", "VSQUANT_BUILD")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def wheel(checkout: Path, **environment: str) -> tuple[str, list[str]]:
    """The name of the wheel that is built, and what it holds."""
    done = run(checkout, "-m", "hatchling", "build", "-t", "wheel", "-d", "made", **environment)
    assert done.returncode == 0, done.stderr
    [made] = (checkout / "made").glob("*.whl")
    return made.name, zipfile.ZipFile(made).namelist()


@needs_compiler
def test_a_wheel_with_the_module_fits_every_python_of_one_platform(checkout: Path) -> None:
    name, files = wheel(checkout, VSQUANT_BUILD="require")
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert name.endswith(f"-py3-none-{platform}.whl") and "vsquant/kernels/_native.so" in files


@pytest.mark.parametrize(
    "environment",
    [{"PATH": "/nowhere"}, {"CXX": "/bin/false"}, {"CXX": "/no/such/compiler"}, {"VSQUANT_BUILD": "off"}],
)
def test_without_a_working_compiler_the_wheel_is_pure_python(checkout: Path, environment: dict[str, str]) -> None:
    name, files = wheel(checkout, **environment)
    assert name.endswith("-py3-none-any.whl") and "vsquant/kernels/native.py" in files
    assert not [file for file in files if file.endswith(".so")]


def test_a_required_module_that_cannot_be_built_fails_the_wheel(checkout: Path) -> None:
    done = run(checkout, "-m", "hatchling", "build", "-t", "wheel", VSQUANT_BUILD="require", CXX="/no/such/compiler")
    assert done.returncode != 0 and "no C++ compiler was found" in done.stderr


def test_an_unknown_mode_is_refused(checkout: Path) -> None:
    done = run(checkout, "-m", "hatchling", "build", "-t", "wheel", VSQUANT_BUILD="always")
    assert done.returncode != 0
    assert "VSQUANT_BUILD must be one of auto, require, off, not 'always'" in done.stderr


@needs_compiler
def test_pytorch_is_asked_for_only_where_there_is_a_compiler(checkout: Path) -> None:
    assert "torch>=2.10" in json.loads(run(checkout, "-c", REQUIRES).stdout)
    assert json.loads(run(checkout, "-c", REQUIRES, CXX="/no/such/compiler").stdout) == []
    assert json.loads(run(checkout, "-c", REQUIRES, VSQUANT_BUILD="off").stdout) == []


@needs_compiler
def test_an_editable_install_builds_into_the_checkout_and_leaves_no_stale_module(checkout: Path) -> None:
    module = checkout / "src" / "vsquant" / "kernels" / "_native.so"
    assert run(checkout, "-c", EDITABLE, str(checkout)).returncode == 0
    assert module.is_file()
    assert run(checkout, "-c", EDITABLE, str(checkout), CXX="/no/such/compiler").returncode == 0
    assert not module.exists()


def test_the_build_script_fails_only_where_the_module_is_required(checkout: Path) -> None:
    done = run(checkout, "native/build_native.py", CXX="/no/such/compiler")
    assert done.returncode == 0
    assert done.stderr == "native kernels are not built, eager ones run: no C++ compiler was found\n"
    assert run(checkout, "native/build_native.py", "--require", CXX="/no/such/compiler").returncode == 1


@needs_compiler
def test_a_build_folder_of_another_checkout_is_made_anew(checkout: Path) -> None:
    foreign = checkout / "build" / "native"
    foreign.mkdir(parents=True)
    (foreign / "CMakeCache.txt").write_text("CMAKE_HOME_DIRECTORY:INTERNAL=/another/checkout/native\n")
    done = run(checkout, "native/build_native.py", "--require", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()
