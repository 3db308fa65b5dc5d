"""The canonical layout: dense little-endian bit streams, one for each output channel; padding is not stored.

A stream of b-bit numbers n_i is the integer Σ n_i·2^(i·b) in little-endian bytes, its last byte filled with zero bits.
A channel's codes are its elements in the order (kernel position, input channel), two's complement where signed; its
vector scales are σ, or σ - 1 under ``-top``, in the order (kernel position, vector).
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from jaxtyping import Int16, Integer, UInt8

from vsquant.packing.checks import Array, Shape, check_codes, check_vector_scale, require
from vsquant.spec.formats import FloatFormat, IntegerFormat, TensorFormat, padded_length

_GROUP: Final = 8  # numbers that end on a byte whatever their width


def why_not_packed(fmt: TensorFormat) -> str | None:
    """Why tensors of this format have no bit streams; None where they have."""
    return f"{fmt.name} is a comparison format, which is simulated only" if isinstance(fmt, FloatFormat) else None


def stream_bytes(count: int, bits: int) -> int:
    """Bytes of a stream of ``count`` numbers of ``bits`` bits."""
    return -(-count * bits // 8)


def codes_shape(fmt: TensorFormat, shape: Shape) -> Shape:
    """Shape (K, *kernel, ⌈C/V⌉, V) of the codes of a weight of ``shape`` (K, C, *kernel); V = C without vectors."""
    size = fmt.vector_size or shape[1]
    return (shape[0], *shape[2:], padded_length(shape[1], fmt.vector_size) // size if size else 0, size)


def packed_shapes(fmt: IntegerFormat, shape: Shape) -> tuple[Shape, Shape | None]:
    """Shapes of the streams of codes and of vector scales of a weight of ``shape`` (K, C, *kernel)."""
    codes = (shape[0], stream_bytes(math.prod(shape[1:]), fmt.bits))
    if not fmt.two_level:
        return codes, None
    return codes, (shape[0], stream_bytes(math.prod(codes_shape(fmt, shape)[1:-1]), fmt.scale_storage_bits))


def pack_codes(
    codes: Integer[np.ndarray, "k *kernel vectors v"], fmt: IntegerFormat, shape: Shape
) -> UInt8[np.ndarray, "k row_bytes"]:
    """The streams of the codes (K, *kernel, ⌈C/V⌉, V), zeros where padded, of a weight of ``shape`` (K, C, *kernel).

    Raises:
        PackingError: the codes are not what the format says.
    """
    _check_shape(fmt, shape)
    expected = codes_shape(fmt, shape)
    require(codes.shape == expected, f"codes must be {expected}, not {codes.shape}")
    check_codes(codes, fmt)
    positions = codes.reshape(shape[0], math.prod(shape[2:]), math.prod(expected[-2:]))
    require(not positions[..., shape[1] :].any(), "codes must be zero where tails are padded")
    elements = positions[..., : shape[1]].reshape(shape[0], math.prod(shape[1:]))
    return pack_bits(elements.astype(np.uint8), fmt.bits)


def pack_vector_scale(
    vector_scale: Integer[np.ndarray, "k *kernel vectors"], fmt: IntegerFormat, shape: Shape
) -> UInt8[np.ndarray, "k row_bytes"]:
    """The streams of the integer vector scales (K, *kernel, ⌈C/V⌉) of a weight of ``shape`` (K, C, *kernel).

    Raises:
        PackingError: the scales are not what the format says.
    """
    _check_shape(fmt, shape)
    require(fmt.two_level, f"vector scales must be integers to be packed, not {fmt.scale!r}")
    vectors = codes_shape(fmt, shape)[:-1]
    check_vector_scale(vector_scale, vectors, fmt)
    stored = (vector_scale - fmt.scale_min).astype(np.uint16)
    return pack_bits(stored.reshape(shape[0], math.prod(vectors[1:])), fmt.scale_storage_bits)


def unpack_codes(
    packed: UInt8[np.ndarray, "k row_bytes"], fmt: IntegerFormat, shape: Shape
) -> Integer[np.ndarray, "k *kernel vectors v"]:
    """Codes (K, *kernel, ⌈C/V⌉, V) of a weight of ``shape`` (K, C, *kernel): int8, or uint8 for 8 bits unsigned.

    Raises:
        PackingError: ``packed`` is no stream of such codes.
    """
    _check_shape(fmt, shape)
    elements = _numbers("codes", packed, fmt.bits, shape[0], math.prod(shape[1:]))
    if fmt.signed:
        sign = np.uint8(1 << (fmt.bits - 1))
        elements ^= sign
        elements -= sign
    if fmt.signed or fmt.bits < 8:
        elements = elements.view(np.int8)
    check_codes(elements, fmt)
    expected = codes_shape(fmt, shape)
    elements = elements.reshape(shape[0], math.prod(shape[2:]), shape[1])
    padding = math.prod(expected[-2:]) - shape[1]
    if padding:
        elements = np.pad(elements, ((0, 0), (0, 0), (0, padding)))
    return elements.reshape(expected)


def unpack_vector_scale(
    packed: UInt8[np.ndarray, "k row_bytes"], fmt: IntegerFormat, shape: Shape
) -> Int16[np.ndarray, "k *kernel vectors"]:
    """Vector scales σ, int16 (K, *kernel, ⌈C/V⌉), of a weight of ``shape`` (K, C, *kernel).

    Raises:
        PackingError: ``packed`` is no stream of such scales.
    """
    _check_shape(fmt, shape)
    require(fmt.two_level, f"vector scales must be integers to be packed, not {fmt.scale!r}")
    vectors = codes_shape(fmt, shape)[:-1]
    stored = _numbers("vector_scale", packed, fmt.scale_storage_bits, shape[0], math.prod(vectors[1:]))
    scales: Array = stored.astype(np.int16)
    scales += np.int16(fmt.scale_min)
    return scales.reshape(vectors)


def pack_bits(numbers: Integer[np.ndarray, "rows count"], bits: int) -> UInt8[np.ndarray, "rows bytes"]:
    """Streams, uint8 (rows, bytes), of the low ``bits`` bits of ``numbers``, unsigned (rows, count)."""
    rows, count = numbers.shape
    length = stream_bytes(count, bits)
    numbers = _widened(numbers, np.uint8 if bits <= 8 else np.uint16, -(-count // _GROUP) * _GROUP)
    groups = numbers.reshape(rows, numbers.shape[1] // _GROUP, _GROUP)
    packed = np.zeros((rows, groups.shape[1], bits), dtype=np.uint8)
    for i in range(_GROUP):
        number = groups[..., i] & groups.dtype.type((1 << bits) - 1)
        for j, left in _places(i, bits):
            packed[..., j] |= _shifted(number, left).astype(np.uint8, copy=False)
    return np.ascontiguousarray(packed.reshape(rows, groups.shape[1] * bits)[:, :length])


def unpack_bits(packed: UInt8[np.ndarray, "rows bytes"], bits: int, count: int) -> Integer[np.ndarray, "rows count"]:
    """The numbers (rows, count) of streams: uint8, or uint16 where they have more than 8 bits."""
    rows = len(packed)
    dtype = np.uint8 if bits <= 8 else np.uint16
    group_count = -(-count // _GROUP)
    groups = _widened(packed, np.uint8, group_count * bits).reshape(rows, group_count, bits)
    numbers = np.zeros((rows, group_count, _GROUP), dtype=dtype)
    for i in range(_GROUP):
        for j, left in _places(i, bits):
            numbers[..., i] |= _shifted(groups[..., j].astype(dtype, copy=False), -left)
    numbers &= dtype((1 << bits) - 1)
    return np.ascontiguousarray(numbers.reshape(rows, group_count * _GROUP)[:, :count])


def _places(i: int, bits: int) -> list[tuple[int, int]]:
    """The bytes j of a group that number i reaches into, and how far to the left its bits move in each."""
    first, last = i * bits // 8, ((i + 1) * bits - 1) // 8
    return [(j, i * bits - 8 * j) for j in range(first, last + 1)]


def _shifted(numbers: Array, left: int) -> Array:
    shifted: Array = numbers << left if left >= 0 else numbers >> -left
    return shifted


def _widened(array: Array, dtype: type[np.generic], length: int) -> Array:
    """``array`` (rows, n), followed by zeros up to ``length``."""
    array = array.astype(dtype, copy=False)
    return np.pad(array, ((0, 0), (0, length - array.shape[1]))) if length != array.shape[1] else array


def _check_shape(fmt: TensorFormat, shape: Shape) -> None:
    reason = why_not_packed(fmt)
    require(reason is None, f"the weight must have a packed layout, but {reason}")
    require(len(shape) >= 2 and min(shape) >= 0, f"the weight's shape must be (K, C, kernel...), not {shape}")


def _numbers(what: str, packed: Array, bits: int, rows: int, count: int) -> Array:
    shape = (rows, stream_bytes(count, bits))
    require(packed.dtype == np.uint8, f"packed {what} must be uint8, not {packed.dtype}")
    require(packed.shape == shape, f"packed {what} must be {shape}, not {packed.shape}")
    used = count * bits % 8
    require(not used or not (packed[:, -1] >> used).any(), f"packed {what} must end in zero bits")
    return unpack_bits(packed, bits, count)
