"""The shapes of a model's layers and matrix products, found in one run of it: what they cost is counted from these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vsquant.nn import ConvGeometry
from vsquant.results.workloads import LayerWorkload
from vsquant.spec.workload import Workload, WorkloadKind
from vsquant.transform.attention import SLOT, attention_modules
from vsquant.transform.float_layers import float_weight, geometry_of
from vsquant.transform.match import Layer, find_layers

SCORES: Final = "scores"
CONTEXT: Final = "context"

_PRODUCTS: Final = frozenset({torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.bmm, torch.Tensor.__matmul__})


@contextmanager
def recorded_shapes(model: nn.Module) -> Iterator[Shapes]:
    """Records the shapes of what runs in the block; the model is as it was when the block ends.

    Products of two activations are seen where a module calls `torch.matmul` or scaled dot-product attention; those
    inside modules that read the weights of their parts without calling them (``nn.MultiheadAttention``) are not.
    """
    shapes = Shapes(attention=frozenset(attention_modules(model)))
    with ExitStack() as undo:
        layers = {id(layer.module) for layer in find_layers(model)}
        for name, module in model.named_modules():
            if id(module) not in layers:
                undo.callback(module.register_forward_pre_hook(shapes.entering(name), prepend=True).remove)
                undo.callback(module.register_forward_hook(shapes.leaving(), always_call=True).remove)
        for layer in find_layers(model):
            undo.callback(layer.module.register_forward_pre_hook(shapes.entering(None), prepend=True).remove)
            undo.callback(layer.module.register_forward_hook(shapes.ran(layer), with_kwargs=True).remove)
            undo.callback(layer.module.register_forward_hook(shapes.leaving(), always_call=True).remove)
        undo.enter_context(shapes.products)
        yield shapes


class Shapes:
    """What ran, in the order of the first call; names of products are ``MODULE (product 1)`` and so on.

    Those of the attention modules of transformers are ``MODULE (scores)`` and ``MODULE (context)``.
    """

    def __init__(self, *, attention: frozenset[str]) -> None:
        self._attention = attention
        self._calls: Counter[tuple[str, Workload]] = Counter()
        self._inside: list[str | None] = []
        self._unnamed: Counter[str] = Counter()
        self.products = _Products(self)

    @property
    def workloads(self) -> tuple[LayerWorkload, ...]:
        """Every layer and product with each of its shapes."""
        return tuple(LayerWorkload(name=n, workload=w, calls=calls) for (n, w), calls in self._calls.items())

    def entering(self, name: str | None) -> Callable[..., None]:
        """A hook for the start of module ``name``; None is a layer, whose products are its own affair."""

        def hook(*_: Any) -> None:
            self._inside.append(name)
            if name is not None:
                self._unnamed[name] = 0

        return hook

    def leaving(self) -> Callable[..., None]:
        """A hook for the end of a module."""

        def hook(*_: Any) -> None:
            self._inside.pop()

        return hook

    def ran(self, layer: Layer) -> Callable[..., None]:
        """A hook for the end of a layer."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor) -> None:
            x = args[0] if args else next(iter(kwargs.values()))
            self._calls[layer.name, layer_workload(layer, x, output)] += 1

        return hook

    def product(self, a: Tensor, b: Tensor) -> None:
        """Told of ``a`` (..., M, K) times ``b`` (..., K, L) by the module that runs."""
        if not self._inside or self._inside[-1] is None or min(a.dim(), b.dim()) < 3:
            return
        name = self._inside[-1]
        self._unnamed[name] += 1
        part = f"product {self._unnamed[name]}"
        if name in self._attention or name.endswith(SLOT):
            part = {1: SCORES, 2: CONTEXT}.get(self._unnamed[name], part)
        name = name.removesuffix(SLOT).removesuffix(".")
        self._calls[f"{name} ({part})", product_workload(a.shape, b.shape)] += 1


def layer_workload(layer: Layer, x: Tensor, output: Tensor) -> Workload:
    """The shape of a linear layer, convolution or embedding that made ``output`` of ``x``."""
    weight = float_weight(layer.module)
    if isinstance(layer.module, (nn.Conv1d, nn.Conv2d)):
        geometry = geometry_of(layer.module)
        spatial = len(geometry.kernel)
        return conv_workload(geometry, weight.shape, x.shape[-spatial:], output.shape[-spatial:])
    positions = output.shape[1:-1] if output.dim() > 2 else output.shape[:0]
    outputs, reduction = weight.shape
    kind: WorkloadKind = "embedding" if layer.kind == "embedding" else "linear"
    return Workload(kind=kind, outputs=outputs, reduction=reduction, positions=max(1, positions.numel()))


def conv_workload(
    geometry: ConvGeometry, weight: torch.Size, input_size: torch.Size, output_size: torch.Size
) -> Workload:
    """The shape of a convolution with a ``weight`` of this shape between images of these spatial sizes."""
    before = [first for first, _ in geometry.padding_for(input_size)]
    rows, columns = _pair(output_size)
    return Workload(
        kind="conv",
        outputs=weight[0],
        reduction=weight[1],
        positions=rows * columns,
        kernel=_pair(geometry.kernel),
        stride=_pair(geometry.stride),
        padding=_pair(before, missing=0),
        dilation=_pair(geometry.dilation),
        groups=geometry.groups,
        input_size=_pair(input_size),
        output_size=(rows, columns),
    )


def product_workload(a: torch.Size, b: torch.Size) -> Workload:
    """The shape of (N, H, M, K) times (N, H, K, L), or of (N, M, K) times (N, K, L)."""
    heads = a[-3] if len(a) > 3 else 1
    return Workload(kind="matmul", outputs=heads * b[-1], reduction=a[-1], positions=a[-2], groups=heads)


def _pair(numbers: Any, missing: int = 1) -> tuple[int, int]:
    """Two numbers; those of a convolution over one dimension are its second."""
    first, second = (missing, *numbers) if len(numbers) == 1 else numbers
    return int(first), int(second)


class _Products(TorchFunctionMode):
    """Sees the products of activations that no layer makes."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self._shapes = shapes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS:
            operands = [*args, *dict(kwargs or {}).values()]
            self._shapes.product(operands[0], operands[1])
        elif func is F.scaled_dot_product_attention:
            self._saw_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _saw_attention(self, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> None:
        probabilities = torch.empty(*query.shape[:-1], key.shape[-2], device="meta")
        self._shapes.product(query, key.transpose(-1, -2))
        self._shapes.product(probabilities, value)
