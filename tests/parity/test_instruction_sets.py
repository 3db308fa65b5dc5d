"""Every instruction set that this processor has, with one thread and with two, quantizes to the eager kernels' bits."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from vsquant.kernels import native

SCRIPT = Path(__file__).with_name("quantization_digest.py")
SUPPORTED = native.status().supported


def digest(*arguments: str, isa: str) -> str:
    environment = {**os.environ, "VSQUANT_ISA": isa, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@lru_cache(maxsize=1)
def eager_digest() -> str:
    return digest("eager", isa="")


@pytest.mark.skipif(not SUPPORTED, reason="the native library was not built")
@pytest.mark.parametrize("isa", SUPPORTED)
def test_the_same_bits(isa):
    assert digest(isa=isa) == eager_digest()
