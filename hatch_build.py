"""The packaging hook: builds the native kernels into a wheel or, for an editable install, into the checkout.

VSQUANT_BUILD says what happens where they cannot be built: ``auto`` (the default) makes a wheel of pure Python,
``require`` fails. ``off`` builds none.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent / "native"))
import build_native

MODES = ("auto", "require", "off")


class NativeBuildHook(BuildHookInterface[Any]):
    """Adds ``vsquant/kernels/_native.so``, which fits every Python, to wheels of one platform."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def dependencies(self) -> list[str]:
        """What the build needs beside hatchling: nothing where no compiler is."""
        if self.target_name != "wheel" or _mode() == "off" or build_native.compiler() is None:
            return []
        tools = [] if build_native.tool("cmake") else ["cmake>=3.22"]
        return [*tools, *([] if build_native.tool("ninja") else ["ninja>=1.10"]), "torch>=2.10"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before the wheel is put together."""
        if self.target_name != "wheel" or _mode() == "off":
            return
        try:
            if version == "editable":
                build_native.build(build_native.CHECKOUT, Path(self.root) / "build" / "native")
                return
            self._folder = tempfile.TemporaryDirectory(prefix="vsquant-")
            folder = Path(self._folder.name)
            module = build_native.build(folder / "module", folder / "build")
        except build_native.BuildError as error:
            if _mode() == "require":
                raise
            self.app.display_warning(f"native kernels are left out, eager ones will run: {error}")
            return
        build_data["force_include"][str(module)] = f"vsquant/kernels/{module.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel has its copy."""
        if self._folder is not None:
            self._folder.cleanup()


def _mode() -> str:
    mode = os.environ.get("VSQUANT_BUILD", "auto")
    if mode not in MODES:
        raise ValueError(f"VSQUANT_BUILD must be one of {', '.join(MODES)}, not {mode!r}")
    return mode


def _platform() -> str:
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")
