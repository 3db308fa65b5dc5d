"""Linear layers and embeddings on integers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vsquant import kernels
from vsquant.nn.integer_layer import IntegerActivation, IntegerLayer
from vsquant.nn.linear import QuantEmbedding, QuantLinear, samples_rows


class IntegerLinear(IntegerLayer):
    """A linear layer: inputs (..., C), dim 0 is the samples wherever there is more than one dim."""

    operations = ("linear", "linear_codes", "linear_requantize")

    @classmethod
    def of(cls, layer: QuantLinear) -> IntegerLinear:
        """The integer twin of a simulated layer."""
        return cls(
            name=layer.name,
            spec=layer.spec,
            scale_mode=layer.scale_mode,
            weight=layer.quantized_weight,
            weight_shape=layer.weight_shape,
            bias=layer.bias,
            activation_range=layer.activation_range,
            dtype=layer.output_dtype,
        )

    @property
    def out_features(self) -> int:
        """Output channels K."""
        return self.weight_shape[0]

    @property
    def in_features(self) -> int:
        """Input channels C."""
        return self.weight_shape[1]

    def forward(self, x: Tensor | IntegerActivation, residual: Tensor | None = None) -> Tensor | IntegerActivation:
        """``x`` (..., C), or the codes of such a tensor, to (..., K); ``residual`` (..., K) is added after the bias."""
        if residual is not None:
            residual = samples_rows(residual).contiguous()
        if isinstance(x, Tensor):
            self._check_channels(x.shape[-1], self.in_features)
            rows, lead = samples_rows(x), x.shape[:-1]
            if self.output_format is None:
                y = self._outputs(self._as_computed(rows), residual, None)
                return y.view(*lead, self.out_features)
            quantized = self._quantize(rows.to(torch.float32))
        else:
            lead = x.codes.shape[:-2]
            quantized = _sample_rows(x)
            if self.output_format is None:
                return self._outputs_of_codes(quantized, residual, None).view(*lead, self.out_features)
        (codes, scale, coarse), values = self._codes(quantized, residual, None)
        return IntegerActivation(
            codes=codes.view(*lead, *codes.shape[2:]),
            vector_scale=None if scale is None else scale.view(*lead, scale.shape[2]),
            coarse_scale=coarse,
            values=None if values is None else values.view(*lead, self.out_features),
        )


class IntegerEmbedding(IntegerLayer):
    """An embedding table of packed rows; those that are asked for are unpacked."""

    @classmethod
    def of(cls, layer: QuantEmbedding) -> IntegerEmbedding:
        """The packed twin of a simulated embedding."""
        embedding = cls(
            name=layer.name,
            spec=layer.spec,
            scale_mode=layer.scale_mode,
            weight=layer.quantized_weight,
            weight_shape=layer.weight_shape,
            bias=None,
            activation_range=None,
            dtype=layer.output_dtype,
        )
        embedding.padding_idx = layer.padding_idx
        return embedding

    padding_idx: int | None = None

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
