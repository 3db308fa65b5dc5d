"""Convolutions on integers, of one and of two spatial dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.errors import ShapeError
from vsquant.nn.conv import QuantConv1d, QuantConv2d, require_no_tokens
from vsquant.nn.geometry import ConvGeometry
from vsquant.nn.integer_layer import Fusion, IntegerActivation, IntegerLayer
from vsquant.nn.parts import LayerParts
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.layer import ScaleMode


class IntegerConv2d(IntegerLayer):
    """A convolution over (N, C, H, W) or, with one spatial dimension, (N, C, L).

    Kernels walk channels-last memory. Outputs are laid out as inputs, as those of PyTorch's own are: from contiguous
    images, which are copied on the way, or from views of channels-last memory, which are not.
    """

    operations = ("conv2d", "conv2d_codes", "conv2d_requantize")

    def __init__(self, parts: LayerParts, *, geometry: ConvGeometry) -> None:
        require_no_tokens(parts)
        super().__init__(parts, groups=geometry.groups)
        self.geometry = geometry
        self.out_channels, self.in_channels = parts.weight_shape[0], parts.weight_shape[1] * geometry.groups
        # What models ask of a convolution of theirs; some pad by it in their own forward.
        self.kernel_size, self.stride = geometry.kernel, geometry.stride
        self.dilation, self.groups, self.padding_mode = geometry.dilation, geometry.groups, geometry.padding_mode

    @classmethod
    def of(cls, layer: QuantConv1d | QuantConv2d) -> IntegerConv2d:
        """The integer twin of a simulated layer."""
        return cls(layer.parts, geometry=layer.geometry)

    @property
    def spatial(self) -> int:
        """Spatial dimensions, 1 or 2."""
        return len(self.geometry.kernel)

    def forward(
        self,
        x: Tensor | IntegerActivation,
        residual: Tensor | None = None,
        function: kernels.Function = "none",
        output_format: str | None = None,
        output_range: Tensor | None = None,
        output_mode: ScaleMode = "requantize",
        keep_float: bool = False,
        any_layout: bool = False,
    ) -> Tensor | IntegerActivation:
        """``x`` (N, C, *spatial), or its codes, to (N, K, *spatial'), or to its codes: see `Fusion`.

        ``any_layout`` says that floats may be views of channels-last memory whatever the layout of ``x`` is.
        A missing sample dimension is allowed where floats come and go, as in PyTorch.
        """
        self._check_kind(x)
        fusion = Fusion.of(residual, function, output_format, output_range, output_mode, keep_float)
        if isinstance(x, Tensor):
            if x.dim() == self.spatial + 1 and residual is None and fusion.target is None:
                y = self.forward(x.unsqueeze(0), function=function)
                assert isinstance(y, Tensor)
                return y.squeeze(0)
            self._check_input(x)
            walk = self._walk(x.shape[2:], padded=self.geometry.padding_mode != "zeros")
            maps = self._channels_last(self._padded(x))
            epilogue = fusion.epilogue(self.bias, self._residual(residual, maps.shape, walk))
            contiguous = x.is_contiguous()
            if fusion.target is None:
                return self._as_images(
                    self._outputs(self._as_computed(maps), epilogue, walk), contiguous and not any_layout
                )
            quantized = self._quantize_map(self._as_computed(maps).to(torch.float32))
        else:
            walk = self._walk(x.codes.shape[1:-2][-self.spatial :], padded=False)
            quantized = kernels.QuantizedTensor(x.codes, x.vector_scale, x.coarse_scale)
            epilogue, contiguous = (
                fusion.epilogue(self.bias, self._residual(residual, x.codes.shape, walk)),
                x.contiguous,
            )
            if fusion.target is None:
                return self._as_images(self._outputs_of_codes(quantized, epilogue, walk), contiguous and not any_layout)
        (codes, scale, coarse), values = self._codes(
            quantized, fusion.target, epilogue, walk, keep_float=fusion.keep_float
        )
        images = None if values is None else self._as_images(values, False)
        return IntegerActivation(codes, scale, coarse, images, contiguous)

    def quantized_input(self, x: Tensor | IntegerActivation) -> kernels.QuantizedTensor:
        """The quantized input that the layer makes or is given, codes (N, H, W, groups * vectors, V)."""
        if not isinstance(x, Tensor):
            return kernels.QuantizedTensor(x.codes, x.vector_scale, x.coarse_scale)
        batch = x if x.dim() == self.spatial + 2 else x.unsqueeze(0)
        return self._quantize_map(self._channels_last(self._padded(batch)).to(torch.float32))

    def input_codes(self, x: Tensor | IntegerActivation) -> Tensor:
        return self.quantized_input(x).codes

    def _quantized_input(self, x: Tensor) -> kernels.QuantizedTensor:
        return self._quantize_map(x)

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != self.spatial + 2:
            raise ShapeError(
                f"input of layer {self.name!r} must have {self.spatial + 2} dimensions (N, C, {self.spatial} spatial), "
                f"not {x.dim()}"
            )
        self._check_channels(x.shape[1], self.in_channels)

    def _padded(self, x: Tensor) -> Tensor:
        """``x`` padded by copies of its values; zeros are the kernel's to add."""
        return x if self.geometry.padding_mode == "zeros" else self.geometry.pad(x)

    def _walk(self, size: torch.Size, *, padded: bool) -> kernels.Walk:
        """The walk over an input of spatial ``size``, one dimension as the columns of a single row."""
        geometry = self.geometry
        pairs = [(0, 0)] * self.spatial if padded else geometry.padding_for(size)
        rows = pairs[0] if self.spatial == 2 else (0, 0)
        return kernels.Walk(
            kernel=_two(geometry.kernel),
            stride=_two(geometry.stride),
            dilation=_two(geometry.dilation),
            padding=(*rows, *pairs[-1]),
            groups=geometry.groups,
        )

    def _channels_last(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) as (N, H, W, C)."""
        maps = x.movedim(1, -1)
        return (maps if self.spatial == 2 else maps.unsqueeze(1)).contiguous()

    def _as_images(self, maps: Tensor, contiguous: bool) -> Tensor:
        """(N, H', W', K) as (N, K, *spatial')."""
        images = (maps if self.spatial == 2 else maps.squeeze(1)).movedim(-1, 1)
        if not contiguous or images.is_contiguous():
            return images
        # PyTorch transposes matrices, and nothing else, in blocks that fit a cache.
        copies = torch.empty(images.shape, dtype=images.dtype, device=images.device)
        for n in range(images.shape[0]):
            copies[n].flatten(1).copy_(images[n].movedim(0, -1).flatten(0, -2).t())
        return copies

    def _residual(self, residual: Tensor | None, size: torch.Size, walk: kernels.Walk) -> Tensor | None:
        """The residual channels last, for inputs of ``size`` (N, H, W, ...)."""
        if residual is None:
            return None
        rows, columns = walk.output_size(size[1], size[2])
        spatial = (rows, columns) if self.spatial == 2 else (columns,)
        return self._channels_last(residual.expand(size[0], self.out_channels, *spatial))

    def _quantize_map(self, maps: Tensor) -> kernels.QuantizedTensor:
        """Codes (N, H, W, groups * vectors, V) of float32 ``maps`` (N, H, W, C)."""
        assert isinstance(self.spec.activation, IntegerFormat)
        parts = self.geometry.groups if self.spec.activation.has_vectors else 1
        samples, height, width, channels = maps.shape
        codes, scale, coarse = self._quantize(maps.view(samples, height * width * parts, channels // parts))
        lead = (samples, height, width, parts * codes.shape[2])
        return kernels.QuantizedTensor(
            codes.view(*lead, codes.shape[3]), None if scale is None else scale.view(lead), coarse
        )


def _two(values: tuple[int, ...]) -> tuple[int, int]:
    """One or two spatial values as two."""
    return (values[0], values[1]) if len(values) == 2 else (1, values[0])
