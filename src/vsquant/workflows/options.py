"""How layers get their integers: the options of quantization after training, apart from model and data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from vsquant.calibrate import VectorMethod
from vsquant.calibrate.calibrators import create_calibrator
from vsquant.errors import CalibrationError, SpecError
from vsquant.optimize import Method, Rounding, settle
from vsquant.spec.layer import ScaleMode
from vsquant.workflows.kept import Kept
from vsquant.workflows.solve import reads_data

WeightMethod: TypeAlias = Literal["max", "mse"]


@dataclass(frozen=True, kw_only=True)
class Calibrators:
    """How coarse ranges are chosen where an operand has no vector scales; with them, ranges are the maximum.

    ``activation`` names a calibrator for static activation scales, ``weight`` says how output channels are clipped.
    ``vectors`` is for layers that do have vector scales under a static coarse one: "mse" takes the range of least
    squared error on sampled rows of the layer's input, in place of the maximum (attention products keep that).
    ``candidates=3`` is for activations with integer vector scales: at run time each vector takes the one of three
    neighbouring scales that gives the least squared error, scale mode ``best-of-three``.

    Raises:
        CalibrationError: there is no such calibrator or method.
    """

    activation: str = "max"
    weight: WeightMethod = "max"
    vectors: VectorMethod = "max"
    candidates: int = 1

    def __post_init__(self) -> None:
        create_calibrator(self.activation)
        if self.vectors not in get_args(VectorMethod):
            raise CalibrationError(f"vectors must be one of {', '.join(get_args(VectorMethod))}, not {self.vectors!r}")
        if self.candidates not in (1, 3):
            raise CalibrationError(f"candidates must be 1 or 3 vector scales, not {self.candidates!r}")
        if self.weight not in get_args(WeightMethod):
            raise CalibrationError(f"weight must be one of {', '.join(get_args(WeightMethod))}, not {self.weight!r}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the layers of a model get their integers; each is described at `vsquant.quantize`.

    ``method`` and ``scale_mode`` are those in force (`vsquant.optimize.settle`).
    """

    scale_mode: ScaleMode = "requantize"
    method: Method = field(default_factory=Rounding)
    calibrators: Calibrators = field(default_factory=Calibrators)
    bias_correction: bool = False
    batchnorm_reestimation: bool = False
    resume: Kept | None = None

    @classmethod
    def of(
        cls,
        *,
        scale_mode: ScaleMode,
        method: Method | str | None,
        calibrators: Calibrators | None,
        bias_correction: bool,
        batchnorm_reestimation: bool,
        resume: str | Path | Kept | None,
    ) -> Options:
        """What a caller gave, settled.

        Raises:
            SpecError: ``method``, ``scale_mode`` and ``calibrators`` contradict each other.
            CalibrationError: ``calibrators`` are none, or ``resume`` is a file.
        """
        if calibrators is not None and not isinstance(calibrators, Calibrators):
            raise CalibrationError(
                f"calibrators must be a Calibrators, such as Calibrators(activation='mse'), not {calibrators!r}"
            )
        method, scale_mode = settle(method, scale_mode)
        if calibrators is not None and calibrators.candidates > 1 and scale_mode == "paper":
            raise SpecError(
                "scale_mode must not be 'paper' with candidates=3, which has codes follow scales; use 'requantize'"
            )
        return cls(
            scale_mode=scale_mode,
            method=method,
            calibrators=calibrators or Calibrators(),
            bias_correction=bias_correction,
            batchnorm_reestimation=batchnorm_reestimation,
            resume=Kept.of(resume),
        )

    @property
    def layer_scale_mode(self) -> ScaleMode:
        """The scale mode of the layers, which is that of their activations."""
        return self.scale_mode if self.calibrators.candidates == 1 else "best-of-three"

    @property
    def text(self) -> str:
        """What a record says of the options beside the method; empty where there are none."""
        named = (
            ("mse activation ranges", self.calibrators.vectors == "mse"),
            ("best-of-three activations", self.calibrators.candidates > 1),
        )
        return "".join(f" + {name}" for name, done in named if done)

    @property
    def corrected(self) -> bool:
        """Whether outputs are compared on calibration data once weights are settled."""
        return self.bias_correction or self.batchnorm_reestimation

    @property
    def reads_data(self) -> bool:
        """Whether calibration data runs through the quantized layers too."""
        return self.corrected or reads_data(self.method)
