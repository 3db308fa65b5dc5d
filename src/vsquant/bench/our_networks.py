"""vsquant on whole networks: integer models, and the simulated cells of accuracy tables."""

from __future__ import annotations

import torch

from vsquant.bench.cases import Case, CellCase, ModelCase
from vsquant.bench.contender import Contender, ParityError, Prepared
from vsquant.bench.networks import LARGEST_ERROR, calibration_inputs, network
from vsquant.bench.ours import PREFIX, isa_environment
from vsquant.bench.peers.cells import cell_prepared, cell_task, evaluation
from vsquant.bench.peers.torch_layers import inference
from vsquant.bench.precision import relative_error
from vsquant.kernels import native
from vsquant.transform.integer import to_integer
from vsquant.workflows.ptq import as_recipe, prepare, quantize, quantize_prepared

FLIPS = 0.5
"""Of the error that quantization makes, the share by which the integer model may differ from the simulated one: a last
bit of a float may flip a code of the next layer."""


class VsquantNetwork(Contender):
    """The integer model, layers chained where they can be."""

    def __init__(self, spec: str) -> None:
        self.name = PREFIX + spec
        self._spec = spec

    def environment(self, isa: str) -> dict[str, str] | None:
        return isa_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, ModelCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, ModelCase)
        float_ = network(case)
        simulated = quantize(float_.model, self._spec, calibration=[calibration_inputs(case)])
        model = to_integer(simulated)
        with torch.inference_mode():
            expected, y = simulated(**float_.first()), model(**float_.first())
        flips, rounding = relative_error(y, expected), relative_error(expected, float_.expected)
        if not flips <= FLIPS * rounding:
            raise ParityError(
                f"the integer model is {flips:.2g} from the simulated one, that {rounding:.2g} from float"
            )
        call = inference(lambda: model(**float_.inputs))
        return Prepared(
            start=lambda threads: call,
            output=lambda: y,
            expected=float_.expected,
            error=LARGEST_ERROR,
            checked=f"{flips:.1g} from the simulated model",
            setting=f"native {native.status().isa}" if native.status().available else "eager",
        )


class VsquantCell(Contender):
    """The simulated network's evaluation."""

    def __init__(self, spec: str) -> None:
        self.name = PREFIX + spec
        self._spec = spec

    def environment(self, isa: str) -> dict[str, str] | None:
        return isa_environment(isa)

    def runs(self, case: Case) -> bool:
        return isinstance(case, CellCase)

    def prepare(self, case: Case) -> Prepared:
        assert isinstance(case, CellCase)
        task = cell_task(case.task)
        model = task.load_model()
        pairs = task.batchnorm_pairs(model)
        prepared = prepare(model, task.calibration_batches(16), batchnorm_pairs=pairs)
        cell = quantize_prepared(prepared, as_recipe(self._spec))
        return cell_prepared(evaluation(task, cell, case.samples))
