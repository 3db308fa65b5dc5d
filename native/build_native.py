"""Configure and build the native kernels with CMake. The packaging hook and ``make`` run it; it needs no package.

Exit status 0 where the module was built, and where it was not but need not be: the eager kernels then run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

NATIVE = Path(__file__).resolve().parent
MODULE = "_native.so"
CHECKOUT = NATIVE.parent / "src" / "vsquant" / "kernels"


class BuildError(Exception):
    """The module was not built; the message says why."""


def tool(name: str) -> str | None:
    """A program beside this Python (that of an environment), or on the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def compiler() -> str | None:
    """The C++ compiler that CMake will take, as far as can be told without it."""
    named = os.environ.get("CXX", "").split()
    return shutil.which(named[0]) if named else next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


def build(output: Path, folder: Path, *, options: tuple[str, ...] = (), jobs: int | None = None) -> Path:
    """Build the module for this Python's PyTorch in ``folder`` and put it into ``output``.

    Raises:
        BuildError: a tool is missing or fails; an older module is then removed from ``output``, as it would not fit.
    """
    try:
        _configure(folder, (f"-DVSQUANT_OUTPUT={output}", f"-DPython_EXECUTABLE={sys.executable}", *options))
        command = ["--build", str(folder), "--parallel", str(jobs or os.cpu_count() or 1)]
        _cmake(command, "the native kernels do not compile")
    except BuildError:
        (output / MODULE).unlink(missing_ok=True)
        raise
    return output / MODULE


def _configure(folder: Path, options: tuple[str, ...]) -> None:
    """Configure; a folder that another checkout or another generator has left is made anew."""
    if compiler() is None:
        raise BuildError("no C++ compiler was found")
    command = ["-S", str(NATIVE), "-B", str(folder), *options]
    if ninja := tool("ninja"):
        command += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    try:
        _cmake(command, "")
    except BuildError:
        shutil.rmtree(folder, ignore_errors=True)
        _cmake(command, "CMake cannot configure the native kernels")


def _cmake(arguments: list[str], trouble: str) -> None:
    cmake = tool("cmake")
    if cmake is None:
        raise BuildError("CMake was not found")
    process = subprocess.run(
        [cmake, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if process.returncode:
        raise BuildError(f"{trouble}:\n{process.stdout}")


def main() -> int:
    """Build into the checkout."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=NATIVE.parent / "build" / "native", help="CMake's build folder")
    parser.add_argument("--jobs", type=int, help="compilers at a time; as many as there are processors by default")
    parser.add_argument("--require", action="store_true", help="fail where the module cannot be built")
    parser.add_argument("options", nargs="*", help="more arguments for CMake, after --")
    arguments = parser.parse_args()
    try:
        module = build(CHECKOUT, arguments.folder, options=tuple(arguments.options), jobs=arguments.jobs)
    except BuildError as error:
        print(f"native kernels are not built, eager ones run: {error}", file=sys.stderr)
        return int(arguments.require)
    print(module)
    return 0


if __name__ == "__main__":
    sys.exit(main())
