"""Linear layers and embeddings on integers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.nn.integer_layer import Fusion, IntegerActivation, IntegerLayer
from vsquant.nn.linear import QuantEmbedding, QuantLinear, last_length, samples_rows
from vsquant.nn.parts import LayerParts
from vsquant.spec.layer import ScaleMode


class IntegerLinear(IntegerLayer):
    """A linear layer: inputs (..., C), dim 0 is the samples wherever there is more than one dim."""

    operations = ("linear", "linear_codes", "linear_requantize")

    @classmethod
    def of(cls, layer: QuantLinear) -> IntegerLinear:
        """The integer twin of a simulated layer."""
        return cls(layer.parts)

    @property
    def out_features(self) -> int:
        """Output channels K."""
        return self.weight_shape[0]

    @property
    def in_features(self) -> int:
        """Input channels C."""
        return self.weight_shape[1]

    def forward(
        self,
        x: Tensor | IntegerActivation,
        residual: Tensor | None = None,
        function: kernels.Function = "none",
        output_format: str | None = None,
        output_range: Tensor | None = None,
        output_mode: ScaleMode = "requantize",
        keep_float: bool = False,
    ) -> Tensor | IntegerActivation:
        """``x`` (..., C), or the codes of such a tensor, to (..., K), or to its codes: see `Fusion`."""
        if residual is None and output_format is None and isinstance(x, Tensor):
            return self._of_floats(x, function)
        self._check_kind(x)
        fusion = Fusion.of(residual, function, output_format, output_range, output_mode, keep_float)
        lead = x.shape[:-1] if isinstance(x, Tensor) else x.codes.shape[:-2]
        epilogue = fusion.epilogue(self.bias, self._residual(residual, (*lead, self.out_features)))
        if isinstance(x, Tensor):
            self._check_channels(last_length(x), self.in_features)
            rows = samples_rows(x)
            if fusion.target is None:
                return self._outputs(self._as_computed(rows), epilogue, None).view(*lead, self.out_features)
            quantized = self._quantize(self._as_computed(rows).to(torch.float32))
        else:
            quantized = _sample_rows(x)
            if fusion.target is None:
                return self._outputs_of_codes(quantized, epilogue, None).view(*lead, self.out_features)
        (codes, scale, coarse), values = self._codes(
            quantized, fusion.target, epilogue, None, keep_float=fusion.keep_float
        )
        return IntegerActivation(
            codes=codes.view(*lead, *codes.shape[2:]),
            vector_scale=None if scale is None else scale.view(*lead, scale.shape[2]),
            coarse_scale=coarse,
            values=None if values is None else values.view(*lead, self.out_features),
        )

    def _of_floats(self, x: Tensor, function: kernels.Function) -> Tensor:
        """Floats to floats with no residual: what most calls are, and no more Python than it takes."""
        shape = x.shape
        outputs, channels = self.weight_shape
        self._check_channels(last_length(x), channels)
        rows = x if len(shape) == 3 else samples_rows(x)
        y = self._outputs(self._as_computed(rows), kernels.Epilogue(self.bias, None, function), None)
        return y if len(shape) == 3 else y.view(*shape[:-1], outputs)

    def quantized_input(self, x: Tensor | IntegerActivation) -> kernels.QuantizedTensor:
        """The quantized input that the layer makes or is given, codes (samples, rows, vectors, V)."""
        return self._quantize(samples_rows(x).to(torch.float32)) if isinstance(x, Tensor) else _sample_rows(x)

    def input_codes(self, x: Tensor | IntegerActivation) -> Tensor:
        return self.quantized_input(x).codes

    def _residual(self, residual: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
        return None if residual is None else samples_rows(residual.expand(shape)).contiguous()


class IntegerEmbedding(IntegerLayer):
    """An embedding table of packed rows; those that are asked for are unpacked."""

    @classmethod
    def of(cls, layer: QuantEmbedding) -> IntegerEmbedding:
        """The packed twin of a simulated embedding."""
        return cls(layer.parts, padding_idx=layer.padding_idx)

    def __init__(self, parts: LayerParts, *, padding_idx: int | None) -> None:
        super().__init__(parts)
        self.padding_idx = padding_idx

    def input_codes(self, x: Tensor) -> Tensor:
        """Indices are not quantized."""
        return x

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self.weight_shape[0]

    @property
    def embedding_dim(self) -> int:
        """Length of a row."""
        return self.weight_shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """Integer indices ``x`` (...) to vectors (..., embedding_dim) in the dtype of the model."""
        rows = kernels.unpacked_rows(self.packed_weight, x.reshape(-1))
        return rows.view(*x.shape, self.embedding_dim).to(self.output_dtype)


def _sample_rows(x: IntegerActivation) -> kernels.QuantizedTensor:
    """Codes (samples, rows, vectors, V) of an activation; one vector is one sample."""
    lead = x.codes.shape[:-2]
    samples, rows = (lead[0], math.prod(lead[1:])) if lead else (1, 1)
    return kernels.QuantizedTensor(
        codes=x.codes.reshape(samples, rows, *x.codes.shape[-2:]),
        vector_scale=None if x.vector_scale is None else x.vector_scale.reshape(samples, rows, x.codes.shape[-2]),
        coarse_scale=x.coarse_scale,
    )
