"""``vsquant table``: the table of one task in the layout of the VS-Quant tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from vsquant.cli.options import (
    ActivationCandidates,
    BatchNormReestimation,
    BiasCorrection,
    CalibrationSamples,
    Data,
    JsonFlag,
    Limit,
    MethodText,
    Model,
    ScaleModeName,
    VectorCalibrator,
)
from vsquant.cli.output import check_outputs, print_json
from vsquant.cli.progress import progress_bars
from vsquant.errors import MissingExtraError, VsquantError

if TYPE_CHECKING:
    from vsquant.report import Picture
    from vsquant.results import Table

_KEPT = "finished cells are kept, and the same command continues there"


def table(
    task: Annotated[str, typer.Argument(help="digits, squad-minilm, imagenet-efficientnet-lite0, cifar10 …")],
    data: Data = None,
    model: Model = None,
    rows: Annotated[
        str | None,
        typer.Option(
            help="Weight/activation bits, such as 3/8,4/4U (U: unsigned where possible). By default those of the "
            "published tables: 3/8,4/8,6/8,8/8, of images 4/4U,6/4U,6/6U,8/8U."
        ),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            help="Weight/activation scale bits, such as 4/8,6/10,x/8; fp16, fp32, per-channel; or a comparison format: "
            "nvfp4, nvfp4-4over6, mxfp4, mxint8, int4-g128. Per-channel is added if left out; "
            "--no-per-channel leaves it out."
        ),
    ] = None,
    per_channel: Annotated[bool, typer.Option(help="Whether the per-channel column is there.")] = True,
    scale_mode: ScaleModeName = "requantize",
    method: MethodText = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Several methods side by side, such as paper,rtn,search,gptq,reconstruct: a column for each. Rows may "
            "then name their scales, such as 4/4U/4/4,3/8/6/8."
        ),
    ] = None,
    gamma: Annotated[str, typer.Option(help="Activation coarse scale: static, tensor or token.")] = "static",
    vector_size: Annotated[int, typer.Option(help="Elements in a vector, V.")] = 16,
    product_bits: Annotated[int | None, typer.Option(help="Round scale products to this many bits, P.")] = None,
    first_last: Annotated[str, typer.Option(help="First and last layer: same, 8bit or float.")] = "same",
    limit: Limit = None,
    calibration_samples: CalibrationSamples = 128,
    calibration_draw: Annotated[
        int, typer.Option(min=0, help="Which of the disjoint sets of calibration samples, 0 the first.")
    ] = 0,
    vector_calibrator: VectorCalibrator = "max",
    activation_candidates: ActivationCandidates = 1,
    bias_correction: BiasCorrection = False,
    batchnorm_reestimation: BatchNormReestimation = False,
    store: Annotated[Path | None, typer.Option(help="The results store; a cell in it is not computed again.")] = None,
    as_json: JsonFlag = False,
    csv: Annotated[Path | None, typer.Option(help="Also write the table as CSV.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Also write the table as Markdown.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a report, one HTML file.")] = None,
) -> None:
    """Measure a network in many formats beside float and per-channel quantization.

    Stopping it loses nothing: the same command continues with the missing cells.

    Example: `vsquant table squad-minilm --data DIR --rows 3/8,4/8 --scales 4/8,6/10,fp32 --limit 500`
    """
    from vsquant.results import ResultsStore
    from vsquant.tasks.registry import create_task
    from vsquant.workflows import checked
    from vsquant.workflows.refinements import Refinements
    from vsquant.workflows.table import CELLS, run_table
    from vsquant.workflows.table_request import TableRequest

    check_outputs(csv, markdown, html)
    built = create_task(task, data=data, model=model)
    layout = checked.checked_layout(
        built, rows=rows, scales=scales, per_channel=per_channel, methods=methods, method=method
    )
    request = TableRequest(
        rows=layout[0],
        columns=layout[1],
        scale_mode=checked.checked_scale_mode(scale_mode),
        method=checked.checked_method(method),
        gamma=checked.checked_gamma(gamma),
        vector_size=vector_size,
        product_bits=product_bits,
        first_last=checked.checked_first_last(first_last),
        limit=limit,
        calibration_samples=calibration_samples,
        calibration_draw=calibration_draw,
        refinements=Refinements(
            bias_correction=bias_correction,
            batchnorm_reestimation=batchnorm_reestimation,
            vectors=checked.checked_vectors(vector_calibrator),
            candidates=activation_candidates,
        ),
    )
    with ResultsStore(store) as results, progress_bars(_KEPT, whole=(CELLS,)) as progress:
        measured = run_table(built, request, results, progress=progress)
    try:
        _write(measured, csv=csv, markdown=markdown, html=html)
    finally:
        _print(measured, as_json=as_json)


def _print(table: Table, *, as_json: bool) -> None:
    from vsquant.report import headline, render_table, to_json

    if as_json:
        print_json(to_json(table))
        return
    console = Console()
    console.print(render_table(table, console.width))
    console.print(headline(table))


def _write(table: Table, *, csv: Path | None, markdown: Path | None, html: Path | None) -> None:
    from vsquant.files import replacing
    from vsquant.report import to_csv, to_markdown, write_html

    console = Console(stderr=True)
    try:
        for path, text in ((csv, to_csv), (markdown, to_markdown)):
            if path is not None:
                with replacing(path) as temporary:
                    temporary.write_text(text(table), encoding="utf-8")
                console.print(f"wrote {path}", soft_wrap=True)
        if html is not None:
            write_html(html, [table], {0: _pictures(table)})
            console.print(f"wrote {html.resolve()}", soft_wrap=True)
    except OSError as error:
        raise VsquantError(f"the table is kept in the store, but a file could not be written: {error}") from error


def _pictures(table: Table) -> tuple[Picture, ...]:
    from vsquant.report import draw_pictures

    try:
        return draw_pictures(table)
    except MissingExtraError as error:
        Console(stderr=True).print(f"the report has no pictures: {error}", soft_wrap=True)
        return ()
