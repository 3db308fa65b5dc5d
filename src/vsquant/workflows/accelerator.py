"""What a network asks of an accelerator: the shapes of its layers, and the spec each has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import nn

from vsquant.errors import AcceleratorError, MissingExtraError
from vsquant.hardware.accelerator.configuration import Accelerator, integer_formats
from vsquant.hardware.accelerator.cost import Request, network_cost
from vsquant.hardware.accelerator.lane_prices import LanePrices
from vsquant.results.accelerator import CostComparison
from vsquant.results.workloads import LayerWorkload
from vsquant.spec.formats import IntegerFormat
from vsquant.spec.hints import did_you_mean
from vsquant.spec.layer import LayerSpec
from vsquant.tasks.models.cifar_resnet import CifarResNet
from vsquant.tasks.models.efficientnet_lite import EfficientNetLite0
from vsquant.tasks.models.resnet import ResNet50
from vsquant.transform.attention import attention_modules
from vsquant.transform.match import apply_first_last, match_layers
from vsquant.transform.plan import LayerPlan, plan_layers, with_signs
from vsquant.transform.recipe import FirstLast, Recipe, Rule
from vsquant.transform.shapes import CONTEXT, SCORES
from vsquant.workflows.prepare import prepare
from vsquant.workflows.shapes import network_shapes

BASELINE: Final = LayerSpec.parse("w8a8")
"""What every cost is set beside: 8/8 per-channel."""

_TOKENS: Final = 384


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network by its shapes alone: how it is built, with random weights, and an input of one sample."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]


def _images(size: int) -> Callable[[], Any]:
    return lambda: torch.rand(1, 3, size, size) - 0.5


def _bert(sizes: Mapping[str, Any]) -> Network:
    def build() -> nn.Module:
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise MissingExtraError("transformers", "transformers", "the shapes of BERT") from error
        return transformers.BertForQuestionAnswering(transformers.BertConfig(**sizes))

    return Network(build=build, inputs=lambda: {"input_ids": torch.zeros(1, _TOKENS, dtype=torch.long)})


NETWORKS: Final[Mapping[str, Network]] = MappingProxyType(
    {
        "resnet20": Network(build=lambda: CifarResNet(20), inputs=_images(32)),
        "resnet50": Network(build=lambda: ResNet50(1000), inputs=_images(224)),
        "efficientnet-lite0": Network(build=EfficientNetLite0, inputs=_images(224)),
        "minilm": _bert({"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}),
        "bert-base": _bert({}),
        "bert-large": _bert(
            {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
        ),
    }
)
"""Networks whose shapes are known without data; MiniLM and BERT read 384 tokens."""


@dataclass(frozen=True, kw_only=True)
class NetworkRequests:
    """The layers of a network and their specs, in the order in which they run, and the spec most of it has."""

    network: str
    spec: LayerSpec
    requests: tuple[Request, ...]

    def with_spec(self, spec: LayerSpec) -> NetworkRequests:
        """Every quantized layer in one spec: the baseline."""
        changed = (replace(each, spec=spec, requested=True) if each.spec else each for each in self.requests)
        return replace(self, spec=spec, requests=tuple(changed))


def named_network(name: str, *, meta: bool = True) -> tuple[nn.Module, Any]:
    """A network of `NETWORKS` and an input; on the ``meta`` device without memory for weights, else with random ones.

    Raises:
        AcceleratorError: there is no such network.
    """
    if name not in NETWORKS:
        raise AcceleratorError(
            f"network must be one of {', '.join(NETWORKS)}, not {name!r}{did_you_mean(name, NETWORKS)}; "
            "--task takes the network of a task"
        )
    with torch.device("meta" if meta else "cpu"):
        return NETWORKS[name].build().eval(), NETWORKS[name].inputs()


def spec_requests(
    model: nn.Module,
    batch: Any,
    spec: LayerSpec,
    *,
    network: str,
    first_last: FirstLast = "same",
    matmuls: bool = False,
) -> NetworkRequests:
    """The layers of a float model with ``spec``, as `vsquant.quantize` would give it, for one sample of ``batch``.

    ``matmuls`` gives it to the products of attention too. Where the spec asks for unsigned activations, the signs are
    those of ``batch``, and the model must not be on the meta device.

    Raises:
        SpecError: no lane of integers runs the spec.
    """
    integer_formats(spec)
    rules = (Rule(type="matmul", spec=replace(spec, gamma="static")),) if matmuls else ()
    recipe = Recipe(rules=(*rules, Rule(spec=spec)), first_last=first_last)
    shapes = network_shapes(model, batch)
    matches = match_layers(model, recipe, matmuls=tuple(attention_modules(model)))
    matches = apply_first_last(matches, [shape.name for shape in shapes], first_last)
    plans = plan_layers(matches, recipe.fallback, "requantize")
    if not integer_formats(spec)[1].signed:
        plans = with_signs(plans, prepare(model, [batch]).observations.statistics)
    return NetworkRequests(network=network, spec=spec, requests=requests_of(shapes, specs_of(plans), spec))


def specs_of(plans: Sequence[LayerPlan]) -> dict[str, LayerSpec | None]:
    """Specs in force by the names that shapes have: both products of attention modules, and aliases, too."""
    specs: dict[str, LayerSpec | None] = {}
    for plan in plans:
        for name in (plan.match.name, *plan.match.aliases):
            specs |= matmul_specs(name, plan.spec) if plan.match.kind == "matmul" else {name: plan.spec}
    return specs


def matmul_specs(name: str, spec: LayerSpec | None) -> dict[str, LayerSpec | None]:
    """The specs of an attention module's products: the operand held has a weight's place, probabilities no sign."""
    if spec is None or not isinstance(spec.activation, IntegerFormat):
        return {f"{name} ({part})": None for part in (SCORES, CONTEXT)}
    held = replace(spec.activation, signed=True)
    scores = LayerSpec(weight=held, activation=held, product_bits=spec.product_bits)
    return {
        f"{name} ({SCORES})": scores,
        f"{name} ({CONTEXT})": scores.with_activation(replace(held, signed=False)),
    }


def requests_of(
    shapes: Sequence[LayerWorkload], specs: Mapping[str, LayerSpec | None], wanted: LayerSpec
) -> tuple[Request, ...]:
    """Shapes with their specs; one that has none stays floating point, as do layers with floating activations."""
    found = []
    for shape in shapes:
        spec = specs.get(shape.name)
        priced = spec if spec is not None and spec.has_integer_sums else None
        requested = priced is not None and _plain(priced) == _plain(wanted)
        found.append(Request(layer=shape, spec=priced, requested=requested))
    return tuple(found)


def main_spec(requests: Sequence[Request]) -> LayerSpec:
    """The spec of most multiply-accumulates, whatever the sign of its activations; unsigned if any layer's are.

    Products of attention do not decide the sign: probabilities are never negative.

    Raises:
        AcceleratorError: no layer is quantized to integers.
    """
    layers = [(request.spec, request.layer) for request in requests if request.spec is not None]
    if not layers:
        raise AcceleratorError("a layer must be quantized to integers, but all stay floating point")
    macs: Counter[LayerSpec] = Counter()
    for spec, layer in layers:
        macs[_plain(spec)] += layer.macs
    chosen = macs.most_common(1)[0][0]
    same = [(spec, layer.workload.kind == "matmul") for spec, layer in layers if _plain(spec) == chosen]
    unsigned = (spec for spec, product in same if not product and not integer_formats(spec)[1].signed)
    return next(unsigned, same[0][0])


def compare_cost(
    accelerator: Accelerator, wanted: NetworkRequests, prices: LanePrices, *, batch: int = 1
) -> CostComparison:
    """The network's cost beside that of the same layers at 8/8 per-channel, on lanes made for that.

    Raises:
        AcceleratorError, SpecError: as `network_cost`.
    """
    plain = accelerator.model_copy(update={"lane": "spec", "misfit": "passes", "wide_lanes": None})
    baseline = wanted.with_spec(BASELINE)
    cost, base = (
        network_cost(on, each.spec, each.requests, prices, network=each.network, batch=batch)
        for on, each in ((accelerator, wanted), (plain, baseline))
    )
    return CostComparison(cost=cost, baseline=base)


def _plain(spec: LayerSpec) -> LayerSpec:
    """A spec without what no lane sees: the sign of its activations, where γ comes from and how wide it is stored."""
    weight = spec.weight
    if isinstance(weight, IntegerFormat):
        weight = replace(weight, coarse_fp16=False)
    return replace(spec.signed_activation(), weight=weight, gamma="static")
