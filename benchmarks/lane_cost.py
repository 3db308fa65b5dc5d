"""Area and energy of the lanes of the list, on operands of two real networks, with a library that --liberty names.

Weights and inputs of four layers of each network are quantized in every lane's own formats; the per-channel lanes are
measured on the codes of the VS-Quant format of their bits too, so that both have identical operands. What was measured
before with the same library, recipe, RTL and operands is taken from the result file. ``VSQUANT_DATA`` names the data.

Usage: python benchmarks/lane_cost.py --liberty FILE [SPEC …]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from files import RESULTS, real_task
from provenance import provenance

from vsquant.hardware.energy.dataflow import interleaved, quantized_operands
from vsquant.hardware.energy.operands import LaneOperands
from vsquant.hardware.lane import Lane
from vsquant.hardware.lane_costing import GROUPS, LaneRequest, about_library, cost_lanes
from vsquant.hardware.synthesis import PERIOD_PS, read_library
from vsquant.results.lane_cost import SHARED
from vsquant.spec.layer import LayerSpec

SPECS: Final = (
    "w8a8", "w6a8", "w4a8", "w6a6", "w4a4", "w4a4u", "w3a4",
    "w8a8-s6/10",
    "w6a8-s6/10", "w6a8-s6/10-p6",
    "w4a8-s6/10", "w4a8-s6/10-p8", "w4a8-s6/10-p6", "w4a8-s6/10-p4",
    "w6a6-s4/6", "w6a6-s4/6-p6", "w6a6-s4/6-p4",
    "w4a4-s4/4", "w4a4-s4/4-p6", "w4a4-s4/4-p4",
    "w4a4u-s4/6", "w4a4u-s4/6-p6", "w4a4u-s4/6-p4",
    "w3a4-s4/4", "w3a4-s4/4-p4",
    "w4a4-s4/4-v8", "w4a4-s4/4-v32", "w4a4-s4/4-v64",
    "w4a5", "w4a5-s4/4", "w4a5-s4/4-p4", "w4a5-s4/6", "w4a5-s4/6-p4",
)  # fmt: skip
"""The list, and lanes that serve signed and unsigned inputs of 4 bits, which have one more."""
VECTOR_SIZES: Final = {"w4a4": (8, 32)}
"""Per-channel lanes of other sizes, for lanes with vector scales of that V; V = 64 misses the clock by a hair."""
SHARED_WITH: Final = {
    "w8a8": "w8a8-s6/10", "w6a8": "w6a8-s6/10", "w4a8": "w4a8-s6/10", "w6a6": "w6a6-s4/6", "w4a4": "w4a4-s4/4",
    "w4a4u": "w4a4u-s4/6", "w3a4": "w3a4-s4/4",
}  # fmt: skip
LAYERS: Final = {
    "squad-minilm": (
        "bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.attention.output.dense",
        "bert.encoder.layer.3.intermediate.dense", "bert.encoder.layer.5.output.dense",
    ),
    "cifar10": ("layer1.0.conv2", "layer2.1.conv1", "layer3.0.conv2", "layer3.2.conv2"),
}  # fmt: skip
TITLES: Final = {"squad-minilm": "MiniLM", "cifar10": "ResNet-20"}
SHARED_NETWORK: Final = "squad-minilm"
CHUNK: Final = 4
POSITIONS: Final = 512


class Recorded(NamedTuple):
    """One layer: a row of weights for each output channel, a row of inputs for each position, whole vectors along C."""

    weight: np.ndarray
    inputs: np.ndarray
    channels: int


def main() -> None:
    """Measure the lanes named on the command line, or the list, into results/lane-cost.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--liberty", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=RESULTS / "lane-cost.json")
    parser.add_argument("specs", nargs="*", default=SPECS)
    arguments = parser.parse_args()
    library = read_library(arguments.liberty)
    layers = {name: recorded(name) for name in LAYERS}
    requests = [
        LaneRequest(spec=LayerSpec.parse(spec), vector_size=size)
        for spec in arguments.specs
        for size in (16, *VECTOR_SIZES.get(spec, ()))
    ]
    cost_lanes(
        requests,
        library,
        lambda lane: operands_of(lane, layers),
        arguments.output,
        source=source_text(library.name, library.conditions),
        about=about_library(library, PERIOD_PS)
        | {"layers": {TITLES[name]: names for name, names in LAYERS.items()}, "provenance": provenance()},
        progress=lambda step, done, total: print(f"{step} {done}/{total}", file=sys.stderr, flush=True),
    )


def source_text(library: str, conditions: str) -> str:
    """Where the figures come from, in a sentence."""
    return (
        f"synthesized with yosys and simulated with delays in {library} ({conditions}) at {PERIOD_PS:g} ps, on codes "
        f"of {' and '.join(TITLES.values())}; {datetime.now(timezone.utc):%Y-%m-%d}. "
        "A predictive process: use the ratios"
    )


def recorded(name: str) -> list[Recorded]:
    """Weights and inputs of a network's layers, from calibration samples."""
    task = real_task(name)
    model = task.load_model().eval()
    inputs: dict[str, torch.Tensor] = {}
    modules = {layer: model.get_submodule(layer) for layer in LAYERS[name]}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, layer=layer: inputs.setdefault(layer, args[0].detach()))
        for layer, module in modules.items()
    ]
    with torch.no_grad():
        batch = task.calibration_batches(4)[0]
        model(**batch) if isinstance(batch, Mapping) else model(batch)
    for hook in hooks:
        hook.remove()
    return [flattened(module, inputs[layer]) for layer, module in modules.items()]


def flattened(module: torch.nn.Module, x: torch.Tensor) -> Recorded:
    """A layer as a product of matrices, channels last within each kernel position."""
    weight = module.get_parameter("weight").detach()
    if isinstance(module, torch.nn.Conv2d):
        size, channels = module.kernel_size, module.in_channels
        columns = torch.nn.functional.unfold(x, size, padding=int(module.padding[0]), stride=module.stride)
        columns = columns.transpose(1, 2).reshape(-1, channels, size[0] * size[1]).transpose(1, 2)
        weight = weight.permute(0, 2, 3, 1)
    else:
        channels, columns = weight.shape[1], x
    rows = columns.reshape(-1, weight[0].numel())[:POSITIONS]
    return Recorded(weight.reshape(len(weight), -1).numpy(), rows.contiguous().numpy(), channels)


def operands_of(lane: Lane, layers: Mapping[str, Sequence[Recorded]]) -> dict[str, LaneOperands]:
    """Each network's operands in the lane's own formats, and one's in the VS-Quant format of its bits.

    Unsigned activations have those of the network behind ReLU alone.
    """
    found = {}
    spec = str(LayerSpec(weight=lane.weight, activation=lane.activation, product_bits=lane.product_bits))
    for name, parts in layers.items():
        if any(part.channels % lane.vector_size for part in parts) or (
            not lane.activation_signed and any(part.inputs.min() < 0 for part in parts)
        ):
            continue
        found[TITLES[name]] = drawn(lane, parts)
        if spec in SHARED_WITH and (name == SHARED_NETWORK or not lane.activation_signed):
            shared = Lane.for_spec(LayerSpec.parse(f"{SHARED_WITH[spec]}-v{lane.vector_size}"))
            found[SHARED + TITLES[name]] = drawn(shared, parts).without_scales()
    return found


def drawn(lane: Lane, parts: Sequence[Recorded]) -> LaneOperands:
    """The layers' operands in turn."""
    groups = GROUPS // len(parts)
    return interleaved(
        [quantized_operands(lane, part.weight, part.inputs, groups=groups, seed=i) for i, part in enumerate(parts)],
        CHUNK,
    )


if __name__ == "__main__":
    main()
