"""What one call of a real layer was given and what it gave: the operands that models, RTL and energy are run with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, Integer

from vsquant.spec import IntegerFormat, LayerSpec, Workload

Function: TypeAlias = Literal["none", "relu", "relu6", "gelu"]
"""What is applied to a layer's outputs after bias and residual."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputCodes:
    """The codes that a layer made for those that follow it, by eqs. (1)-(5) under a static gamma.

    ``codes`` are (N, positions, vectors, V) and ``vector_scale`` (N, positions, vectors) or None.
    """

    format: IntegerFormat
    coarse_scale: float
    codes: Integer[np.ndarray, "n positions vectors V"]
    vector_scale: Integer[np.ndarray, "n positions vectors"] | None


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedLayer:
    """One call of one integer layer: its quantized operands, and its outputs as codes, floats or both.

    Weights are (K, C/V, V) or (K, R, S, C/V, V); activations (N, T, C/V, V) or, of convolutions,
    (N, H, W, groups * C/V, V). V = C where an operand has no vector scales (all groups' C in activations). Scales have
    the codes' shape without its last dimension. ``weight_coarse`` is gamma_w, ``activation_coarse`` gamma_a, (N, 1) or
    (N, T). Outputs are a function of what eq. (7) gives plus ``residual``; they and ``values`` are (N, positions, K).
    """

    name: str
    spec: LayerSpec
    workload: Workload
    weight_codes: Integer[np.ndarray, "k *vectors V"]
    weight_scale: Integer[np.ndarray, "k *vectors"] | None
    weight_coarse: Float32[np.ndarray, " k"]
    activation_codes: Integer[np.ndarray, "n *vectors V"]
    activation_scale: Integer[np.ndarray, "n *vectors"] | None
    activation_coarse: Float32[np.ndarray, "n rows"]
    bias: Float32[np.ndarray, " k"] | None
    residual: Float32[np.ndarray, "n positions k"] | None
    function: Function
    values: Float32[np.ndarray, "n positions k"] | None
    output: OutputCodes | None
