"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Data: TypeAlias = Annotated[
    Path | None, typer.Option("--data", help="Folder of the task's data, or the folder that holds it.")
]
Model: TypeAlias = Annotated[
    str | None, typer.Option("--model", help="Another model for the task: a local folder or a hub id.")
]
Limit: TypeAlias = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Evaluate a fixed subset of this many samples (smaller ones are inside)."),
]
CalibrationSamples: TypeAlias = Annotated[
    int, typer.Option("--calibration-samples", min=1, help="How many calibration samples are observed.")
]
ScaleModeName: TypeAlias = Annotated[
    str, typer.Option("--scale-mode", help="requantize; paper: eqs. (1)-(6) as they stand; search: as --method search.")
]
MethodText: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="How weights are quantized: rtn (round to nearest), search (try every vector scale), gptq "
        "(later weights make up for the errors of earlier ones, layer by layer) or reconstruct (learn the rounding, "
        "block by block). Options follow a colon: METHOD:OPTION=VALUE,OPTION=VALUE.",
    ),
]
VectorCalibrator: TypeAlias = Annotated[
    str, typer.Option(help="Range of activations with vector scales under a static coarse one: max or mse.")
]
ActivationCandidates: TypeAlias = Annotated[
    int, typer.Option(help="Vector scales tried for each vector of activations at run time: 1 or 3.")
]
BiasCorrection: TypeAlias = Annotated[bool, typer.Option("--bias-correction", help="Give outputs their float mean.")]
BatchNormReestimation: TypeAlias = Annotated[
    bool, typer.Option("--batchnorm-reestimation", help="And, behind folded batch norms, their float variance.")
]
JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
