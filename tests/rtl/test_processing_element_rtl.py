"""The processing element in the simulator: every word that leaves is exact, and leaves when the cycle model says."""

from __future__ import annotations

import numpy as np
import pytest
from tests.rtl.pe_cases import case_of, patterns, random_layer

from vsquant.hardware import Lane
from vsquant.hardware.cycle_model import Ports
from vsquant.hardware.lane_model import lane_sums
from vsquant.hardware.post_processing import PostProcessingUnit
from vsquant.hardware.processing_element import ProcessingElement
from vsquant.hardware.rtl.golden import golden
from vsquant.hardware.tiling import LayerShape, plan_layer
from vsquant.spec import LayerSpec

EAGER, HESITANT = Ports(), patterns(seed=1)
SUMS = [
    ("w4a4u-s4/6", {}, 4096, (16, 40, 9), HESITANT),
    ("w4a4u-s4/6", {}, 4096, (16, 40, 9), EAGER),
    ("w8a8", {"lanes": 8, "positions": 4, "weight_words": 8, "activation_words": 16, "drain_width": 1}, 4096,
     (20, 7, 20), HESITANT),
    ("w4a8-s4/10-p6", {"lanes": 8, "positions": 8, "activation_words": 32}, 64, (9, 33, 11), HESITANT),
    ("w3a4-s4/4-top", {"lanes": 8, "positions": 1, "weight_words": 8, "activation_words": 8}, 112, (8, 5, 37),
     patterns(seed=2, willing=0.3)),
    ("w4a4-s4/x-v8", {"lanes": 8, "drain_width": 8}, 4096, (8, 20, 6), EAGER),
    ("w2a8u-sx/6-v32", {"lanes": 1, "positions": 16, "drain_width": 1, "weight_words": 1}, 4096, (2, 20, 3), HESITANT),
]  # fmt: skip
POST_PROCESSED = [
    ("w4a4u-s4/6", "w4a4u-s4/6", {}, (16, 40, 9), HESITANT),
    ("w4a4u-s4/6", "w4a4u-s4/6", {}, (32, 20, 9), EAGER),
    ("w4a8-s4/10-p6", "w4a8-s6/10", {"drain_width": 4, "positions": 4}, (20, 11, 21), HESITANT),
    ("w8a8", "w8a8", {"drain_width": 16, "weight_words": 8}, (32, 17, 3), HESITANT),
    ("w4a4", "w3a2-s4/2-v8", {"drain_width": 1, "positions": 2}, (16, 9, 3), patterns(seed=3, willing=0.3)),
    ("w8a8u-s6/10", "w8a8u-s6/10-v8", {"drain_width": 8}, (16, 20, 2), HESITANT),
]


@pytest.mark.parametrize(("spec", "sizes", "longest", "shape", "ports"), SUMS)
def test_sums_are_exact_and_on_time(simulate, spec, sizes, longest, shape, ports) -> None:
    lane = Lane.for_spec(LayerSpec.parse(spec), max_reduction_length=longest)
    element = ProcessingElement(lane=lane, **sizes)
    plan = plan_layer(element, LayerShape(outputs=shape[0], positions=shape[1], vectors=shape[2]))
    weight, activation = random_layer(plan, seed=0)
    case = case_of(golden(plan, weight, activation, post_processing=None, origin=""), ports)
    simulate("vsq_pe", "ports_bench", case, element.verilog_parameters())


@pytest.mark.parametrize(("spec", "following", "sizes", "shape", "ports"), POST_PROCESSED)
@pytest.mark.parametrize("relu", [False, True])
def test_codes_are_exact_and_on_time(simulate, spec, following, sizes, shape, ports, relu) -> None:
    lane = Lane.for_spec(LayerSpec.parse(spec))
    unit = PostProcessingUnit.between(lane, LayerSpec.parse(following))
    element = ProcessingElement(lane=lane, post_processing=unit, **sizes)
    layer = LayerShape(outputs=shape[0], positions=shape[1], vectors=shape[2])
    plan = plan_layer(element, layer, post_process=True, relu=relu)
    weight, activation = random_layer(plan, seed=0)
    deviation = float(lane_sums(lane, weight, activation).sums.std()) * 2.0**lane.scale_shift
    rng = np.random.default_rng(1)
    constants = unit.constants(
        weight_coarse=rng.uniform(0.5, 2, shape[0]).astype(np.float32),
        activation_coarse=1.0,
        output_coarse=2.0 * deviation / (unit.output.qmax * unit.output.scale_top),
        bias=rng.normal(0, 0.3 * deviation, shape[0]).astype(np.float32),
        relu=relu,
    )
    case = case_of(golden(plan, weight, activation, post_processing=constants, origin=""), ports)
    assert len(set(case["sinks"]["codes"]["words"])) > 10
    simulate("vsq_pe", "ports_bench", case, element.verilog_parameters())
