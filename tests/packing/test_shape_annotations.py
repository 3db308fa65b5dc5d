"""The shapes and types in packing's signatures hold while it runs, on a checked copy that only these tests hold."""

from __future__ import annotations

import importlib
import math
import sys
from types import ModuleType

import numpy as np
import pytest
from jaxtyping import TypeCheckError, install_import_hook

from vsquant import packing
from vsquant.spec import IntegerFormat

FORMATS = [
    IntegerFormat(bits=4, scale=4),
    IntegerFormat(bits=3, scale=10, vector_size=32, full_range=True, scale_top_pow2=True),
    IntegerFormat(bits=8, scale=None, vector_size=None),
]


@pytest.fixture(scope="module")
def checked() -> ModuleType:
    """A copy of `vsquant.packing` whose every call is checked."""
    import vsquant

    originals = _take_out()
    with install_import_hook("vsquant.packing", "beartype.beartype"):
        module = importlib.import_module("vsquant.packing")
    _take_out()
    sys.modules.update(originals)
    vsquant.packing = packing
    assert module is not packing
    return module


def _take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if f"{name}.".startswith("vsquant.packing.")]
    return {name: sys.modules.pop(name) for name in names}


@pytest.mark.parametrize("shape", [(3, 40), (1, 1), (0, 16), (2, 0), (18, 20, 3, 3), (4, 33, 2)])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_both_layouts_keep_their_shapes(checked, make_codes, fmt, shape):
    codes, scale = make_codes(fmt, checked.codes_shape(fmt, shape))
    codes.reshape(*codes.shape[:-2], math.prod(codes.shape[-2:]))[..., shape[1] :] = 0
    assert np.array_equal(checked.unpack_codes(checked.pack_codes(codes, fmt, shape), fmt, shape), codes)
    if scale is not None:
        assert np.array_equal(
            checked.unpack_vector_scale(checked.pack_vector_scale(scale, fmt, shape), fmt, shape), scale
        )
    packed = checked.interleave(codes, scale, fmt)
    back, back_scale = checked.deinterleave(packed.codes, packed.vector_scale, fmt, codes.shape)
    assert np.array_equal(back, codes) and (scale is None or np.array_equal(back_scale, scale))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p: p.interleave(np.ones((2, 1, 16)), np.ones((2, 1), int), FORMATS[0]),
        lambda p: p.interleave(np.ones((2, 1, 16), int), np.ones((2, 2), int), FORMATS[0]),
        lambda p: p.unpack_codes(np.ones((2, 8), np.int8), FORMATS[0], (2, 16)),
        lambda p: p.InterleavedWeight(codes=np.ones(2), vector_scale=np.ones(2), sums=np.ones(2)),
    ],
)
def test_the_check_is_on(checked, wrong):
    with pytest.raises(TypeCheckError):
        wrong(checked)
