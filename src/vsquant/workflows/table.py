"""The table of one task: every cell computed once, kept in the results store, resumed where it stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import torch
from torch import nn

import vsquant
from vsquant.calibrate import CALIBRATORS
from vsquant.errors import ScaleRangeError
from vsquant.optimize import Rounding, method_options, method_text, settle
from vsquant.progress import Progress, silent
from vsquant.results.published import PUBLISHED
from vsquant.results.records import Candidate, CellKind, CellRecord, Provenance
from vsquant.results.store import ResultsStore, content_key
from vsquant.results.table import Table
from vsquant.spec import LayerSpec
from vsquant.tasks.base import Batch, Task, run
from vsquant.transform.recipe import Recipe, Rule
from vsquant.workflows.ptq import (
    Calibrators,
    PreparedModel,
    WeightCache,
    WeightMethod,
    plan,
    prepare,
    quantize_prepared,
)
from vsquant.workflows.record import quantization_record
from vsquant.workflows.refinements import Refinements
from vsquant.workflows.table_request import CellRequest, TableRequest

WEIGHT_METHODS: Final[tuple[WeightMethod, ...]] = ("max", "mse")
CELLS: Final = "cells"
"""The step whose units are the table's cells."""
CRITERION: Final = "KL divergence from the float network's outputs"


def run_table(
    task: Task,
    request: TableRequest,
    store: ResultsStore,
    *,
    stored_only: bool = False,
    commit: str = "",
    progress: Progress = silent,
) -> Table:
    """Compute the missing cells of a table, store each as it is done, and return the whole table.

    A cell whose format the network cannot be run in (a scale beyond fp16) is left out, and the table says why. Under
    ``stored_only`` no cell is computed, and those that the store lacks are left out. ``commit`` is kept with every cell
    that is computed, as the source it was computed by.

    Raises:
        SpecError: a row or column is malformed (before any work), or no spec for a layer of the network.
        DataError: the task's data or model is missing, or there are too few samples.
    """
    cells = list(request.cells())
    method, scale_mode = settle(request.method, request.scale_mode)
    task.prepare(progress)
    runner = TableRunner(task, request, store, progress, commit=commit)
    if stored_only:
        cells = [cell for cell in cells if runner.holds(cell)]
    runner.check(cells)
    baseline = runner.baseline()
    by_weight_format = sorted(cells, key=lambda cell: (str(cell.spec.weight), str(cell.spec)))
    records: dict[tuple[str, str], CellRecord] = {}
    refusals: dict[tuple[str, str], str] = {}
    for done, cell in enumerate(by_weight_format):
        outcome = runner.cell(cell, done, len(cells))
        if isinstance(outcome, CellRecord):
            records[cell.row, cell.column] = outcome
        else:
            refusals[cell.row, cell.column] = outcome
    progress(CELLS, len(cells), len(cells))
    return Table(
        task=task.name,
        title=task.title,
        baseline=baseline,
        rows=request.all_rows,
        columns=request.columns,
        cells=records,
        scale_mode=scale_mode,
        method=method_text(method),
        refinements=request.refinements.text,
        gamma=request.gamma,
        samples_available=task.evaluation_samples,
        calibration_samples=request.calibration_samples,
        source=task.source,
        caveat=task.caveat,
        published=None if task.published is None else PUBLISHED[task.published],
        refusals=refusals,
    )


class Cells(Protocol):
    """Where cells are looked up and kept: a `ResultsStore`, or what stands in for one in a worker."""

    def get(self, key: str) -> CellRecord | None:
        """The record under ``key``, None where there is none."""

    def put(self, key: str, inputs: Mapping[str, Any], record: CellRecord) -> None:
        """Keep ``record`` under ``key``, which is ``content_key(inputs)``."""

    def refusal(self, key: str) -> str | None:
        """Why what is under ``key`` cannot be evaluated; None where no reason is known."""

    def put_refusal(self, key: str, inputs: Mapping[str, Any], reason: str) -> None:
        """Keep why what is under ``key`` cannot be evaluated."""


@dataclass(frozen=True, kw_only=True)
class QuantizedCell:
    """A cell's network, and the calibrators that were tried and chosen where the cell is per-channel."""

    model: nn.Module
    best: Candidate | None
    candidates: tuple[Candidate, ...]


class TableRunner:
    """Evaluates cells of one table. The float model is prepared, and its outputs are computed, at most once."""

    def __init__(
        self, task: Task, request: TableRequest, store: Cells, progress: Progress, *, commit: str = ""
    ) -> None:
        self._task = task
        self._request = request
        self._store = store
        self._progress = progress
        self._commit = commit
        self._prepared: PreparedModel | None = None
        self._float_logits: list[torch.Tensor] | None = None
        self._weights: WeightCache = {}
        self._weight_format = ""

    def check(self, cells: Sequence[CellRequest]) -> None:
        """Find before any evaluation what would end the table after it: specs no layer can have, too little data.

        Raises:
            SpecError, DataError: as `run_table`.
        """
        missing = [cell for cell in cells if not self.holds(cell)]
        for cell in missing:
            recipe = Recipe.from_spec(cell.spec, self._request.first_last)
            plan(self._float_model().model, self._float_model().observations, recipe, cell.scale_mode)

    def holds(self, cell: CellRequest) -> bool:
        """Whether the store has the cell, or why there is none."""
        inputs = self.cell_inputs(cell)
        return self._stored(inputs) is not None or self._refusal(inputs) is not None

    def baseline(self) -> CellRecord:
        """The float network's record."""
        inputs = self.float_inputs()
        return self._stored(inputs) or self._evaluate(inputs, self._task.load_model(), "float", "float")

    def cell(self, cell: CellRequest, done: int, total: int) -> CellRecord | str:
        """One cell's record, from the store where it is there; or why the network cannot be run in that format."""
        self._progress(CELLS, done, total)
        inputs = self.cell_inputs(cell)
        known = self._stored(inputs) or self._refusal(inputs)
        if known is not None:
            return known
        try:
            return self.evaluated(cell, self.quantized(cell))
        except ScaleRangeError as error:
            self._store.put_refusal(content_key(inputs), inputs, str(error))
            return str(error)

    @property
    def float_network(self) -> PreparedModel:
        """The float network with what calibration saw of it; calibrated at the first call."""
        return self._float_model()

    def quantized(self, cell: CellRequest) -> QuantizedCell:
        """The network in the cell's format, as it is evaluated.

        Raises:
            ScaleRangeError: the network cannot be run in that format.
            SpecError, CalibrationError: as `quantize_prepared`.
        """
        spec = cell.spec
        if str(spec.weight) != self._weight_format:
            self._weights.clear()
            self._weight_format = str(spec.weight)
        recipe = self._recipe(spec)
        candidates = self._candidates(cell, recipe)
        best = min(candidates, key=lambda candidate: candidate.score) if candidates else None
        model = self._quantize(cell, recipe, Calibrators() if best is None else _calibrators(best))
        return QuantizedCell(model=model, best=best, candidates=candidates)

    def evaluated(self, cell: CellRequest, quantized: QuantizedCell) -> CellRecord:
        """The record of a cell whose network is at hand; it is not evaluated again where the store has it."""
        inputs, spec = self.cell_inputs(cell), cell.spec
        if (known := self._stored(inputs)) is not None:
            return known
        kind: CellKind = "comparison" if spec.is_comparison else "per-channel" if spec.is_baseline else "vector"
        return self._evaluate(
            inputs,
            quantized.model,
            kind,
            str(spec),
            method=quantization_record(quantized.model).method,
            best=quantized.best,
            candidates=quantized.candidates,
        )

    def _recipe(self, spec: LayerSpec) -> Recipe:
        """One spec everywhere. Per-channel cells keep 8 bits where per-vector cells must fall back, for equal terms."""
        recipe = Recipe.from_spec(spec, self._request.first_last)
        if not spec.is_baseline:
            return recipe
        vectors = Recipe.from_spec(f"w8a8-s8/8-v{self._request.vector_size}")
        plans = plan(self._float_model().model, self._float_model().observations, vectors)
        fallbacks = [layer.match.name for layer in plans if "fallback" in layer.note]
        eight_bit = replace(
            LayerSpec.parse("w8a8" if spec.activation is None or spec.activation.signed else "w8a8u"), gamma=spec.gamma
        )
        rules = tuple(Rule(match=name, spec=eight_bit) for name in fallbacks)
        return recipe.model_copy(update={"rules": (*rules, *recipe.rules)})

    def _candidates(self, cell: CellRequest, recipe: Recipe) -> tuple[Candidate, ...]:
        """Every pair of calibrators for a per-channel cell, scored on calibration data; none for other cells.

        They are scored with weights rounded to nearest and nothing refined, whatever the method: one that learns would
        take as many times as long as there are pairs. They are those of the cell of rounded weights, if that is in the
        store.
        """
        spec = cell.spec
        if not spec.is_baseline:
            return ()
        rounded = replace(cell, method=Rounding(), scale_mode="requantize", refinements=Refinements())
        for known in (rounded, cell):
            if (same := self._stored(self.cell_inputs(known))) is not None:
                return same.candidates
        activation = tuple(CALIBRATORS) if spec.activation is not None and not spec.is_dynamic else ("max",)
        pairs = [Calibrators(activation=a, weight=w) for w in WEIGHT_METHODS for a in activation]
        scored = []
        for done, pair in enumerate(pairs):
            self._progress(f"calibrators for {spec}", done, len(pairs))
            score = self._divergence(self._quantize(rounded, recipe, pair))
            scored.append(Candidate(activation=pair.activation, weight=pair.weight, score=score))
        self._progress(f"calibrators for {spec}", len(pairs), len(pairs))
        return tuple(scored)

    def _quantize(self, cell: CellRequest, recipe: Recipe, calibrators: Calibrators) -> nn.Module:
        return quantize_prepared(
            self._float_model(),
            recipe,
            scale_mode=cell.scale_mode,
            method=cell.method,
            calibrators=cell.refinements.calibrators(calibrators),
            bias_correction=cell.refinements.bias_correction,
            batchnorm_reestimation=cell.refinements.batchnorm_reestimation,
            weight_cache=self._weights,
            progress=silent if isinstance(cell.method, Rounding) else self._progress,
        )

    def _float_model(self) -> PreparedModel:
        if self._prepared is None:
            model = self._task.load_model()
            batches = self._calibration(self._request.calibration_samples)
            pairs = self._task.batchnorm_pairs(model)
            moments = None if self._request.needs_inputs else ()
            self._prepared = prepare(
                model,
                batches,
                second_moments=moments,
                batchnorm_pairs=pairs,
                sample_rows=self._request.needs_rows,
                progress=self._progress,
            )
        return self._prepared

    def _calibration(self, samples: int) -> Sequence[Batch]:
        return self._task.calibration_batches(samples, draw=self._request.calibration_draw)

    def _divergence(self, model: nn.Module) -> float:
        """Mean KL divergence of ``model``'s outputs from the float network's on the selection samples."""
        batches = self._calibration(self._request.selecting)
        if self._float_logits is None:
            self._float_logits = self._logits(self._float_model().model, batches)
        divergences = [
            (expected.softmax(-1) * (expected.log_softmax(-1) - given.log_softmax(-1))).sum(-1)
            for expected, given in zip(self._float_logits, self._logits(model, batches), strict=True)
        ]
        return float(torch.cat(divergences).mean())

    def _logits(self, model: nn.Module, batches: Sequence[Batch]) -> list[torch.Tensor]:
        with torch.inference_mode():
            return [self._task.logits(run(model, batch), batch).double() for batch in batches]

    def _evaluate(
        self,
        inputs: Mapping[str, Any],
        model: nn.Module,
        kind: CellKind,
        spec: str,
        *,
        method: str = "rtn",
        best: Candidate | None = None,
        candidates: tuple[Candidate, ...] = (),
    ) -> CellRecord:
        start = time.perf_counter()
        scores = self._task.evaluate(model, limit=self._request.limit, progress=self._progress)
        record = CellRecord(
            task=self._task.name,
            spec=spec,
            kind=kind,
            scale_mode=inputs.get("scale_mode", ""),
            method=method,
            gamma=self._request.gamma,
            scores=scores,
            seconds=time.perf_counter() - start,
            provenance=Provenance.here(vsquant=vsquant.__version__, torch=torch.__version__, commit=self._commit),
            activation_calibrator=None if best is None else best.activation,
            weight_calibrator=None if best is None else best.weight,
            criterion=CRITERION if candidates else "",
            candidates=candidates,
            layers=() if kind == "float" else quantization_record(model).layers,
        )
        self._store.put(content_key(inputs), inputs, record)
        return record

    def _stored(self, inputs: Mapping[str, Any]) -> CellRecord | None:
        return self._store.get(content_key(inputs))

    def _refusal(self, inputs: Mapping[str, Any]) -> str | None:
        return self._store.refusal(content_key(inputs))

    def _evaluation_inputs(self) -> dict[str, Any]:
        return {
            "task": self._task.name,
            "fingerprint": dict(self._task.fingerprint()),
            "limit": self._request.limit,
        }

    def float_inputs(self) -> dict[str, Any]:
        """All that the float network's record depends on."""
        return {"kind": "float", **self._evaluation_inputs()}

    def cell_inputs(self, cell: CellRequest) -> dict[str, Any]:
        """All that a cell depends on. Scale mode, method and refinements are left out where they change no bit, so that
        requests share such cells.
        """
        request, spec = self._request, cell.spec
        refined = {"refinements": dict(cell.refinements.chosen)} if cell.refinements.chosen else {}
        solver = {} if isinstance(cell.method, Rounding) else {"method": method_options(cell.method)}
        two_level = spec.weight.two_level or (spec.activation is not None and spec.activation.two_level)
        calibration: dict[str, Any] = {"samples": request.calibration_samples}
        if spec.is_baseline:
            calibration |= {"selection": request.selecting, "vector_size": request.vector_size}
        if request.calibration_draw:
            calibration |= {"draw": request.calibration_draw}
        return {
            "kind": "cell",
            **self._evaluation_inputs(),
            "spec": str(spec),
            "scale_mode": cell.scale_mode if two_level else "",
            **solver,
            **refined,
            "first_last": request.first_last,
            "calibration": calibration,
        }


def _calibrators(candidate: Candidate) -> Calibrators:
    weight: WeightMethod = "mse" if candidate.weight == "mse" else "max"
    return Calibrators(activation=candidate.activation or "max", weight=weight)
