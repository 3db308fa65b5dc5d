"""What goes with any method of the weights: finer activations, and outputs corrected once weights are settled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vsquant.calibrate import VectorMethod
from vsquant.errors import SpecError
from vsquant.spec.layer import LayerSpec, ScaleMode
from vsquant.workflows.options import Calibrators
from vsquant.workflows.ranges import has_clippable_vectors


@dataclass(frozen=True, kw_only=True)
class Refinements:
    """Options that go with any method, each off by default.

    ``bias_correction`` and ``batchnorm_reestimation`` are described at `vsquant.quantize`, ``vectors`` and
    ``candidates`` (of activations) at `Calibrators`.

    Raises:
        CalibrationError: ``vectors`` or ``candidates`` is none that there is.
    """

    bias_correction: bool = False
    batchnorm_reestimation: bool = False
    vectors: VectorMethod = "max"
    candidates: int = 1

    def __post_init__(self) -> None:
        self.calibrators()

    def calibrators(self, base: Calibrators | None = None) -> Calibrators:
        """``base`` (all the maximum, if None) with what is refined of the activations."""
        return replace(base or Calibrators(), vectors=self.vectors, candidates=self.candidates)

    def in_force(self, spec: LayerSpec, scale_mode: ScaleMode) -> Refinements:
        """What changes anything in a network of layers of this spec.

        Raises:
            SpecError: there are candidates for codes that scale mode ``paper`` keeps.
        """
        vectors = self.vectors if has_clippable_vectors(spec) else "max"
        candidates = self.candidates if spec.activation is not None and spec.activation.two_level else 1
        if candidates > 1 and scale_mode == "paper":
            raise SpecError(
                f"activation candidates must be 1 in scale mode paper, whose codes do not follow the scales, "
                f"not {candidates}; use requantize"
            )
        return replace(self, vectors=vectors, candidates=candidates)

    @property
    def text(self) -> str:
        """What a table says of them, such as ``bias correction, mse activation ranges``; empty where there are none."""
        named = (
            ("bias correction", self.bias_correction),
            ("batch-norm re-estimation", self.batchnorm_reestimation),
            ("mse activation ranges", self.vectors == "mse"),
            ("best-of-three activations", self.candidates > 1),
        )
        return ", ".join(name for name, done in named if done)

    @property
    def chosen(self) -> Mapping[str, Any]:
        """The options that are not at their default, by name."""
        fields = dataclasses.fields(self)
        return {field.name: getattr(self, field.name) for field in fields if getattr(self, field.name) != field.default}
