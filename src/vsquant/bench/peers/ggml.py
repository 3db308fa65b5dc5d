"""ggml's matrix product on block-quantized weights, through ctypes: no model, no graph but the product itself."""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from vsquant.bench.cases import COLD_BYTES, Case, LinearCase
from vsquant.bench.contender import Call, Contender, Prepared, RefusedError
from vsquant.bench.inputs import copies, layer_inputs
from vsquant.bench.peers.torch_layers import rotating
from vsquant.bench.precision import Grid, Precision, expected_error

_F32: Final = 0
_TYPES: Final = {"Q4_0": 2, "Q8_0": 8, "Q4_K": 12}
_WEIGHTS: Final = {"Q4_0": Grid(bits=4, block=32), "Q8_0": Grid(bits=8, block=32), "Q4_K": Grid(bits=4, block=32)}
_REPACKABLE: Final = ("Q4_0", "Q4_K")
"""Types that ggml interleaves on every processor; asking for another one ends the process."""
_INSTALL: Final = "pip install --no-binary ggml-python -C cmake.define.GGML_LLAMAFILE=ON ggml-python"
_pointer: Final = ctypes.c_void_p
_size: Final = ctypes.c_size_t


class _Parameters(ctypes.Structure):
    _fields_ = [("mem_size", _size), ("mem_buffer", _pointer), ("no_alloc", ctypes.c_bool)]  # ctypes


class Library:
    """The few functions of ggml that a matrix product needs, with their types."""

    def __init__(self) -> None:
        folder = _library_folder()
        self.base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        self.cpu = ctypes.CDLL(str(folder / "libggml-cpu.so"), mode=ctypes.RTLD_GLOBAL)
        for name, result, arguments in (
            ("ggml_init", _pointer, [_Parameters]),
            ("ggml_new_tensor_2d", _pointer, [_pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]),
            ("ggml_mul_mat", _pointer, [_pointer, _pointer, _pointer]),
            ("ggml_new_graph", _pointer, [_pointer]),
            ("ggml_build_forward_expand", None, [_pointer, _pointer]),
            ("ggml_row_size", _size, [ctypes.c_int, ctypes.c_int64]),
            ("ggml_nbytes", _size, [_pointer]),
            ("ggml_quantize_chunk", _size,
             [ctypes.c_int, _pointer, _pointer, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, _pointer]),
            ("ggml_backend_alloc_ctx_tensors_from_buft", _pointer, [_pointer, _pointer]),
            ("ggml_backend_get_default_buffer_type", _pointer, [_pointer]),
            ("ggml_backend_tensor_set", None, [_pointer, _pointer, _size, _size]),
            ("ggml_backend_tensor_get", None, [_pointer, _pointer, _size, _size]),
            ("ggml_backend_graph_compute", ctypes.c_int, [_pointer, _pointer]),
            ("ggml_backend_reg_get_proc_address", _pointer, [_pointer, ctypes.c_char_p]),
            ("ggml_backend_reg_dev_get", _pointer, [_pointer, _size]),
        ):  # fmt: skip
            self._declare(self.base, name, result, arguments)
        self._declare(self.cpu, "ggml_backend_cpu_init", _pointer, [])
        self._declare(self.cpu, "ggml_backend_cpu_reg", _pointer, [])
        self._declare(self.cpu, "ggml_backend_cpu_set_n_threads", None, [_pointer, ctypes.c_int])
        self.backend = self.cpu.ggml_backend_cpu_init()

    @staticmethod
    def _declare(library: ctypes.CDLL, name: str, result: Any, arguments: list[Any]) -> None:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments

    def repacked(self) -> int | None:
        """The buffer type whose tensors are interleaved for this processor; None where there is none."""
        registry = self.cpu.ggml_backend_cpu_reg()
        address = self.base.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
        device = self.base.ggml_backend_reg_dev_get(registry, 0)
        found = ctypes.CFUNCTYPE(ctypes.POINTER(_pointer), _pointer)(address)(device) if address else None
        return found[0] if found else None

    def plain(self) -> int:
        """The buffer type of tensors as they are."""
        result: int = self.base.ggml_backend_get_default_buffer_type(self.backend)
        return result

    def context(self) -> int:
        """Room for the descriptions of one product."""
        size = 1 << 20
        result: int = self.base.ggml_init(_Parameters(size, None, True))
        return result


class Product:
    """y = x wᵀ with one copy of the weights; ``repack`` asks for interleaved weights."""

    def __init__(self, library: Library, blocks: bytes, kind: int, weight: Tensor, x: Tensor, repack: bool) -> None:
        base = library.base
        self._library, self._rows, self._outputs = library, x.shape[0], weight.shape[0]
        kept, moved = library.context(), library.context()
        w = base.ggml_new_tensor_2d(kept, kind, weight.shape[1], weight.shape[0])
        buffer = library.repacked() if repack else library.plain()
        if not base.ggml_backend_alloc_ctx_tensors_from_buft(kept, buffer):
            raise RefusedError("ggml could not allocate the weights")
        base.ggml_backend_tensor_set(w, blocks, 0, len(blocks))
        activations = base.ggml_new_tensor_2d(moved, _F32, x.shape[1], x.shape[0])
        self._y = base.ggml_mul_mat(moved, w, activations)
        self._graph = base.ggml_new_graph(moved)
        base.ggml_build_forward_expand(self._graph, self._y)
        base.ggml_backend_alloc_ctx_tensors_from_buft(moved, library.plain())
        base.ggml_backend_tensor_set(activations, x.contiguous().data_ptr(), 0, x.numel() * 4)

    def __call__(self) -> None:
        """Quantize x as ggml does and multiply."""
        self._library.base.ggml_backend_graph_compute(self._library.backend, self._graph)

    def output(self) -> Tensor:
        """The result, (rows, outputs)."""
        self()
        y = torch.empty(self._rows, self._outputs)
        self._library.base.ggml_backend_tensor_get(self._y, y.data_ptr(), 0, y.numel() * 4)
        return y


class Ggml(Contender):
    """One weight type; the plain and the interleaved layout are both tried and the faster one is kept."""

    package = "ggml-python"

    def __init__(self, kind: str) -> None:
        self.name = f"ggml {kind}"
        self._kind = kind

    def runs(self, case: Case) -> bool:
        return isinstance(case, LinearCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, LinearCase)
        library = Library()
        inputs = layer_inputs(case)
        blocks = _quantize(library, _TYPES[self._kind], inputs.weight)
        count = copies(case, len(blocks), COLD_BYTES)

        def products(repack: bool) -> list[Product]:
            kind = _TYPES[self._kind]
            return [Product(library, blocks, kind, inputs.weight, inputs.x, repack) for _ in range(count)]

        layouts = {"plain": products(False)}
        if self._kind in _REPACKABLE and library.repacked() is not None:
            layouts["repacked"] = products(True)
        name = min(layouts, key=lambda layout: _seconds(library, layouts[layout]))
        chosen = layouts[name]

        def start(threads: int) -> Call:
            library.cpu.ggml_backend_cpu_set_n_threads(library.backend, threads)
            return rotating(chosen)

        return Prepared(
            start=start,
            output=chosen[0].output,
            expected=inputs.expected,
            error=expected_error(inputs, Precision(weight=_WEIGHTS[self._kind], activation=Grid(bits=8, block=32))),
            weight_bytes=len(blocks),
            setting=f"{name} layout",
        )


def _seconds(library: Library, products: list[Product]) -> float:
    import time

    library.cpu.ggml_backend_cpu_set_n_threads(library.backend, 1)
    call = rotating(products)
    times = []
    for _ in range(2 + 2 * len(products)):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _quantize(library: Library, kind: int, weight: Tensor) -> bytes:
    rows, length = weight.shape
    if length % 256:
        raise RefusedError(f"its blocks need a length that 256 divides, not {length}")
    blocks = ctypes.create_string_buffer(library.base.ggml_row_size(kind, length) * rows)
    library.base.ggml_quantize_chunk(kind, weight.contiguous().data_ptr(), blocks, 0, rows, length, None)
    return blocks.raw


def _library_folder() -> Path:
    if named := os.environ.get("VSQUANT_BENCH_GGML"):
        return Path(named)
    found = importlib.util.find_spec("ggml")
    if found is None or found.origin is None:
        raise RefusedError(f"not installed: {_INSTALL}")
    return Path(found.origin).parent / "lib"
