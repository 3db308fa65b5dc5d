"""The interleaved layout: what native/core/products.hpp reads, derived from codes and vector scales.

A panel is 16 output channels of one group, a block 16 elements along the reduction of each. The channels' rows are
cut into 32-bit words (8 nibbles or 4 bytes each); a panel is the transpose of its matrix of words, so that a 64-byte
register holds one word of 16 channels. docs/design/packed-layouts.md has the equations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Int8, Int32, Integer, Shaped

from vsquant.packing.checks import Array, Shape, check_codes, check_vector_scale, require
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat, padded_length

PANEL_CHANNELS: Final = 16
BLOCK_ELEMENTS: Final = 16

_NIBBLE_BITS: Final = 4
_NIBBLE_OFFSET: Final = 8
_BYTE_BITS: Final = 8
_ALIGNMENT: Final = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class InterleavedWeight:
    """A weight as kernels read it; every array starts on a 64-byte boundary.

    ``codes`` is uint8 (groups·panels, blocks, 128), nibbles q + 8, where N ≤ 4; int8 (groups·panels, blocks, 256)
    above; int8 (R·S, K padded to 16) for depthwise weights. ``vector_scale`` is σ (σ − 1 under ``-top``): uint8
    (groups·panels, vectors, 8), nibbles, where M ≤ 4; uint8 (…, 16) where M ≤ 8; int16 (…, 16) above; float16 or
    float32 (…, 16) where scales are such floats; uint8 (0,) without vectors. ``sums`` is int32 (K,), each channel's
    Σ q·σ modulo 2^32, σ = 1 where scales are no integers. Padding is q = 0 and stored zeros for σ. A vector takes whole
    blocks: one whose size is no multiple of 16 is padded to them.
    """

    codes: Shaped[np.ndarray, "..."]
    vector_scale: Shaped[np.ndarray, "..."]
    sums: Int32[np.ndarray, "k"]


def why_not_interleaved(fmt: TensorFormat) -> str | None:
    """Why weights of this format have no interleaved layout; None where they have one."""
    if isinstance(fmt, FloatFormat):
        return f"{fmt.name} is a comparison format, which is simulated only"
    if not fmt.signed:
        return "weights must be signed"
    return None


def is_depthwise(shape: Shape, groups: int) -> bool:
    """Whether codes of this ``shape``, (K, [R, [S,]] vectors, V), take the depthwise layout: one channel a group."""
    return groups > 1 and shape[-2:] == (1, 1)


def interleave(
    codes: Integer[np.ndarray, "k *kernel vectors v"],
    vector_scale: Shaped[np.ndarray, "k *kernel vectors"] | None,
    fmt: IntegerFormat,
    *,
    groups: int = 1,
) -> InterleavedWeight:
    """The interleaved layout of a weight.

    ``codes`` are integers (K, ⌈C/V⌉, V) or (K, [R,] S, ⌈C/V⌉, V), V = C without vectors; ``vector_scale`` has the same
    shape less the last dimension, or is None; C counts the input channels of one group.

    Raises:
        PackingError: the format has no such layout, or codes or scales are not what the format says.
    """
    _check_layout(fmt, codes.shape, groups)
    check_codes(codes, fmt)
    _check_scales(vector_scale, codes.shape[:-1], fmt)
    sums = weight_sums(codes, vector_scale if fmt.two_level else None)
    if is_depthwise(codes.shape, groups):
        return InterleavedWeight(codes=_depthwise(codes), vector_scale=_no_scales(), sums=sums)
    rows = _panel_rows(_blocked(codes, fmt), groups)
    words = _nibble_words(rows) if fmt.bits <= _NIBBLE_BITS else rows.view("<u4")
    panels = _aligned_copy(words.swapaxes(-1, -2))
    stored = panels.view(_code_type(fmt, depthwise=False))
    blocks = rows.shape[-1] // BLOCK_ELEMENTS
    return InterleavedWeight(
        codes=stored.reshape(rows.shape[0], blocks, _block_bytes(fmt)),
        vector_scale=_no_scales() if vector_scale is None else _panel_scales(vector_scale, fmt, groups),
        sums=sums,
    )


def deinterleave(
    codes: Shaped[np.ndarray, "..."],
    vector_scale: Shaped[np.ndarray, "..."],
    fmt: IntegerFormat,
    shape: Shape,
    *,
    groups: int = 1,
) -> tuple[Int8[np.ndarray, "k *kernel vectors v"], Shaped[np.ndarray, "k *kernel vectors"] | None]:
    """The codes (int8, of ``shape``) and vector scales (int16, float32, or None) of interleaved arrays: `interleave`
    undone.

    Raises:
        PackingError: the arrays are not those of a weight of this format and shape.
    """
    _check_layout(fmt, shape, groups)
    depthwise = is_depthwise(shape, groups)
    code_shape, scale_shape = interleaved_shapes(fmt, shape, groups=groups)
    _check_array("codes", codes, code_shape, _code_type(fmt, depthwise=depthwise))
    _check_array("vector_scale", vector_scale, scale_shape, _scale_type(fmt))
    plain = _plain_depthwise(codes, shape) if depthwise else _plain_codes(codes, fmt, shape, groups)
    check_codes(plain, fmt)
    if not fmt.has_vectors:
        return plain, None
    scales = _group_channels(_plain_scales(vector_scale, fmt), shape[0], groups).reshape(shape[:-1])
    _check_scales(scales, shape[:-1], fmt)
    return plain, scales


def interleaved_shapes(fmt: IntegerFormat, shape: Shape, *, groups: int = 1) -> tuple[Shape, Shape]:
    """Shapes of the interleaved codes and vector scales of a weight whose codes have ``shape``."""
    if is_depthwise(shape, groups):
        return (math.prod(shape[1:-2]), padded_length(shape[0], PANEL_CHANNELS)), (0,)
    panels = groups * math.ceil(shape[0] // groups / PANEL_CHANNELS)
    positions = math.prod(shape[1:-2])
    blocks = positions * _position_elements(shape, fmt) // BLOCK_ELEMENTS
    entries = PANEL_CHANNELS // 2 if fmt.scale_storage_bits <= _NIBBLE_BITS else PANEL_CHANNELS
    scales = (panels, math.prod(shape[1:-1]), entries) if fmt.has_vectors else (0,)
    return (panels, blocks, _block_bytes(fmt)), scales


def weight_sums(
    codes: Integer[np.ndarray, "k *kernel vectors v"], vector_scale: Integer[np.ndarray, "k *kernel vectors"] | None
) -> Int32[np.ndarray, "k"]:
    """Σ q·σ over each channel's codes (K, …, V), σ = 1 without vector scales: int32 (K,), modulo 2^32."""
    vectors = codes.sum(-1, dtype=np.int64)
    products = vectors if vector_scale is None else vectors * vector_scale
    total = products.sum(axis=tuple(range(1, products.ndim)))
    return _aligned_copy((total & 0xFFFFFFFF).astype(np.uint32).view(np.int32))


def _check_layout(fmt: IntegerFormat, shape: Shape, groups: int) -> None:
    reason = why_not_interleaved(fmt)
    require(reason is None, f"the weight must have an interleaved layout, but {reason}")
    require(len(shape) >= 3, f"codes must be (K, kernel..., vectors, V), not {shape}")
    expected = shape[-2] * shape[-1] if fmt.vector_size is None else fmt.vector_size
    require(
        shape[-1] == expected and (fmt.has_vectors or shape[-2] == 1 or not shape[-1]),
        f"codes must be (K, kernel..., vectors, V), V = {fmt.vector_size or 'C, one vector'}, not {shape}",
    )
    require(groups >= 1 and shape[0] % max(1, groups) == 0, f"groups must divide {shape[0]} channels, not be {groups}")


def _check_array(what: str, array: Array, shape: Shape, dtype: type[np.generic]) -> None:
    require(array.shape == shape, f"interleaved {what} must be {shape}, not {array.shape}")
    require(array.dtype == dtype, f"interleaved {what} must be {np.dtype(dtype)}, not {array.dtype}")


def _check_scales(scale: Array | None, vectors: Shape, fmt: IntegerFormat) -> None:
    """As `check_vector_scale`; floats of any size where the format's scales are floats."""
    if not isinstance(fmt.scale, str):
        check_vector_scale(scale, vectors, fmt)
        return
    require(scale is not None, f"vector_scale must be given for {fmt.scale} vector scales, not None")
    assert scale is not None
    require(scale.dtype.kind == "f", f"vector_scale must be floats, not {scale.dtype}")
    require(scale.shape == vectors, f"vector_scale must be {vectors}, not {scale.shape}")


def _position_elements(shape: Shape, fmt: IntegerFormat) -> int:
    """Elements of one position: its vectors padded to whole blocks, or all of them where there are none."""
    unit = shape[-1] if fmt.has_vectors else math.prod(shape[-2:])
    return (shape[-2] if fmt.has_vectors else 1) * padded_length(unit, BLOCK_ELEMENTS)


def _blocked(codes: Array, fmt: IntegerFormat) -> Array:
    """Int8 rows (K, positions·C'), C' = a position's elements padded with zeros to whole blocks."""
    positions, padded = math.prod(codes.shape[1:-2]), _position_elements(codes.shape, fmt)
    vectors = codes.shape[-2] if fmt.has_vectors else 1
    rows = codes.reshape(len(codes), positions, vectors, math.prod(codes.shape[-2:]) // max(1, vectors)).astype(np.int8)
    missing = padded // max(1, vectors) - rows.shape[-1]
    if missing:
        rows = np.pad(rows, ((0, 0), (0, 0), (0, 0), (0, missing)))
    return rows.reshape(len(codes), positions * padded)


def _panel_rows(rows: Array, groups: int) -> Array:
    """(K, length) to (groups·panels, 16, length): each group's channels padded with zeros to whole panels."""
    channels, length = len(rows) // groups, rows.shape[1]
    padded = padded_length(channels, PANEL_CHANNELS)
    by_group = rows.reshape(groups, channels, length)
    if padded != channels:
        by_group = np.pad(by_group, ((0, 0), (0, padded - channels), (0, 0)))
    return by_group.reshape(groups * padded // PANEL_CHANNELS, PANEL_CHANNELS, length)


def _group_channels(panels: Array, channels: int, groups: int) -> Array:
    """(groups·panels, 16, length) to (K, length): `_panel_rows` undone."""
    length = panels.shape[-1]
    by_group = panels.reshape(groups, len(panels) // groups * PANEL_CHANNELS, length)
    return by_group[:, : channels // groups].reshape(channels, length)


def _nibble_words(rows: Array) -> Array:
    """Words of eight elements: nibbles q + 8, elements 0..3 in the low and 4..7 in the high halves of four bytes."""
    halves = (rows + np.int8(_NIBBLE_OFFSET)).view("<u4")
    words: Array = halves[..., 0::2] | (halves[..., 1::2] << _NIBBLE_BITS)
    return words.astype("<u4", copy=False)


def _from_nibble_words(words: Array) -> Array:
    halves = np.empty((*words.shape[:-1], 2 * words.shape[-1]), dtype="<u4")
    halves[..., 0::2] = words & 0x0F0F0F0F
    halves[..., 1::2] = (words >> _NIBBLE_BITS) & 0x0F0F0F0F
    rows: Array = halves.view(np.int8) - np.int8(_NIBBLE_OFFSET)
    return rows


def _block_bytes(fmt: IntegerFormat) -> int:
    codes = PANEL_CHANNELS * BLOCK_ELEMENTS
    return codes // 2 if fmt.bits <= _NIBBLE_BITS else codes


def _code_type(fmt: IntegerFormat, *, depthwise: bool) -> type[np.uint8 | np.int8]:
    return np.uint8 if fmt.bits <= _NIBBLE_BITS and not depthwise else np.int8


def _scale_type(fmt: IntegerFormat) -> type[np.uint8 | np.int16 | np.float16 | np.float32]:
    if isinstance(fmt.scale, str):
        return np.float16 if fmt.scale == "fp16" else np.float32
    return np.int16 if fmt.scale_storage_bits > _BYTE_BITS else np.uint8


def _panel_scales(scale: Array, fmt: IntegerFormat, groups: int) -> Array:
    values = scale - fmt.scale_min if fmt.two_level else scale
    stored = values.astype(_scale_type(fmt)).reshape(len(scale), math.prod(scale.shape[1:]))
    panels = _panel_rows(stored, groups).swapaxes(-1, -2)
    if fmt.scale_storage_bits <= _NIBBLE_BITS:
        panels = panels[..., :8] | (panels[..., 8:] << _NIBBLE_BITS)
    return _aligned_copy(panels)


def _no_scales() -> Array:
    return np.empty(0, dtype=np.uint8)


def _plain_codes(codes: Array, fmt: IntegerFormat, shape: Shape, groups: int) -> Array:
    """Int8 codes of ``shape`` from the panels."""
    words = np.ascontiguousarray(codes).view("<u4")
    words = words.reshape(len(codes), words[:1].size // PANEL_CHANNELS, PANEL_CHANNELS)
    rows = np.ascontiguousarray(words.swapaxes(-1, -2))
    rows = _from_nibble_words(rows) if fmt.bits <= _NIBBLE_BITS else rows.view(np.int8)
    vectors = shape[-2] if fmt.has_vectors else 1
    blocked = _group_channels(rows, shape[0], groups)
    blocked = blocked.reshape(
        shape[0], math.prod(shape[1:-2]) * vectors, _position_elements(shape, fmt) // max(1, vectors)
    )
    return np.ascontiguousarray(blocked[..., : math.prod(shape[-2:]) // max(1, vectors)]).reshape(shape)


def _plain_scales(panels: Array, fmt: IntegerFormat) -> Array:
    """Scales σ, int16 (panels, 16, vectors), or scales that are floats, float32."""
    if not fmt.two_level:
        floats: Array = panels.swapaxes(-1, -2).astype(np.float32)
        return floats
    if fmt.scale_storage_bits <= _NIBBLE_BITS:
        panels = np.concatenate([panels & 0xF, panels >> _NIBBLE_BITS], axis=-1)
    scales: Array = panels.swapaxes(-1, -2).astype(np.int16) + np.int16(fmt.scale_min)
    return scales


def _depthwise(codes: Array) -> Array:
    """(K, R, S, 1, 1) to (R·S, K padded to 16)."""
    flat = codes.reshape(len(codes), -1).T
    return _aligned_copy(np.pad(flat, ((0, 0), (0, -len(codes) % PANEL_CHANNELS))).astype(np.int8))


def _plain_depthwise(codes: Array, shape: Shape) -> Array:
    return np.ascontiguousarray(codes[:, : shape[0]].T).reshape(shape)


def _aligned_copy(array: Array) -> Array:
    """A contiguous copy that starts on a 64-byte boundary."""
    buffer = np.empty(array.nbytes + _ALIGNMENT, dtype=np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    aligned: Array = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(aligned, array)
    return aligned
