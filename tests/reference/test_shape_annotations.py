"""The shapes and types in the reference's signatures hold while it runs: jaxtyping and beartype check every call.

The checked modules are a second copy that only these tests hold, so that every other test in the process, whatever the
order, runs the code that users run.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest
from jaxtyping import TypeCheckError, install_import_hook

from vsquant import LayerSpec, reference
from vsquant.spec.comparison import COMPARISON_FORMATS
from vsquant.spec.formats import IntegerFormat

F32 = np.float32
FORMATS = [
    IntegerFormat(bits=4, scale=4),
    IntegerFormat(bits=4, signed=False, scale=6, vector_size=4),
    IntegerFormat(bits=4, scale="fp32"),
    IntegerFormat(bits=4, scale="fp16", full_range=True),
    IntegerFormat(bits=8, scale=None, vector_size=None),
    IntegerFormat(bits=3, scale=None, vector_size=None, full_range=True, coarse_fp16=True),
    IntegerFormat(bits=3, scale=3, full_range=True, scale_top_pow2=True, coarse_fp16=True),
    *(pair[0] for pair in COMPARISON_FORMATS.values()),
]


@pytest.fixture(scope="module")
def checked() -> ModuleType:
    """A copy of `vsquant.reference` whose every call is checked."""
    import vsquant

    originals = _take_out()
    with install_import_hook("vsquant.reference", "beartype.beartype"):
        module = importlib.import_module("vsquant.reference")
    _take_out()
    sys.modules.update(originals)
    vsquant.reference = reference
    assert module is not reference
    return module


def _take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if f"{name}.".startswith("vsquant.reference.")]
    return {name: sys.modules.pop(name) for name in names}


@pytest.mark.parametrize("mode", ["paper", "requantize"])
@pytest.mark.parametrize("share", ["row", "tensor"])
@pytest.mark.parametrize("shape", [(3, 40), (1, 1), (0, 16), (2, 0), (5, 16)])
@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_every_path_of_quantize_keeps_its_shapes(checked, fmt, shape, share, mode):
    if isinstance(fmt, IntegerFormat) and fmt.scale_top_pow2:
        mode = "requantize"
    x = np.random.default_rng(0).standard_normal(shape).astype(F32)
    result = checked.quantize(x, fmt, share, mode)
    np.testing.assert_array_equal(result.dequantize(), reference.quantize(x, fmt, share, mode).dequantize())
    if isinstance(fmt, IntegerFormat):
        checked.quantize(x, fmt, share, mode, coarse_range=0.5)
        checked.quantize(x, fmt, share, mode, coarse_range=np.full(len(x), 0.5, dtype=F32))


@pytest.mark.parametrize(
    "text", ["w4a4-s4/6-tensor", "w4a4u-s4/6-p6-token", "w4a8-s4/x-token", "w8a4-sx/4-tensor", "w8a8-tensor"]
)
def test_every_path_of_linear_keeps_its_shapes(checked, text):
    spec = LayerSpec.parse(text)
    x, w = (np.random.default_rng(n).standard_normal((n, 20)).astype(F32) for n in (3, 5))
    ours = checked.linear(x, w, spec, bias=np.ones(5, dtype=F32))
    assert ours.S.tolist() == reference.linear(x, w, spec).S.tolist()


def test_layouts_keep_their_shapes(checked):
    assert checked.conv_weight_rows(np.ones((2, 3, 3, 3), dtype=F32), 4).shape == (2, 36)
    assert checked.conv_activation_rows(np.ones((3, 5, 5), dtype=F32), 4).shape == (25, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r: r.conv_weight_rows(np.ones((2, 3, 3), dtype=F32), 4),
        lambda r: r.conv_activation_rows(np.ones((3, 5, 5)), 4),
        lambda r: r.quantize(np.ones(16, dtype=F32), FORMATS[0]),
        lambda r: r.linear(np.ones((2, 16), dtype=F32), np.ones((2, 17), dtype=F32), LayerSpec.parse("w8a8-token")),
        lambda r: r.linear(
            np.ones((2, 16), dtype=F32),
            np.ones((2, 16), dtype=F32),
            LayerSpec.parse("w8a8-token"),
            bias=np.ones(3, dtype=F32),
        ),
        lambda r: r.Quantized(
            format=FORMATS[0],
            length=16,
            codes=np.ones((2, 1, 16), dtype=np.int64),
            vector_scale=None,
            coarse_scale=None,
        ),
    ],
)
def test_the_check_is_on(checked, wrong):
    with pytest.raises(TypeCheckError):
        wrong(checked)
