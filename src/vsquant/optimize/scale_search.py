"""Scale search over a weight: gamma by eq. (4), then the vector scales of least error under it."""

from __future__ import annotations

from torch import Tensor

from vsquant import kernels
from vsquant.spec.formats import IntegerFormat


def search_weight(rows: Tensor, fmt: IntegerFormat) -> kernels.QuantizedTensor:
    """Codes and scales of scale mode ``search`` for ``rows`` (K, positions, C), gamma over the whole of an output K.

    Raises:
        SpecError: ``fmt`` has no integer vector scales.
        NonFiniteError: ``rows`` holds NaN or Inf.
        ScaleRangeError: gamma would be zero, subnormal or infinite in fp16 (``-g16``).
    """
    coarse = kernels.quantize(rows, fmt).coarse_scale
    assert coarse is not None
    searched = kernels.search_scales(rows, fmt, coarse.reshape(-1))
    return kernels.QuantizedTensor(searched.codes, searched.vector_scale, coarse)
