"""What a request to quantize asks for, and what is wrong with it, before the long work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from vsquant.errors import CalibrationError, NonFiniteError, RecipeError, SpecError
from vsquant.nn import IntegerLayer, QuantLayer
from vsquant.spec.layer import LayerSpec
from vsquant.transform.float_layers import float_bias, float_weight
from vsquant.transform.match import eight_bit
from vsquant.transform.plan import LayerPlan
from vsquant.transform.recipe import DEFAULT_KINDS, FirstLast, Recipe


def as_recipe(spec_or_recipe: LayerSpec | Recipe | str, first_last: FirstLast | None = None) -> Recipe:
    """A spec, its notation or a recipe as a recipe.

    Raises:
        SpecError: it is none of these, or the text is no spec.
    """
    if not isinstance(spec_or_recipe, (str, LayerSpec, Recipe)):
        raise SpecError(f"spec_or_recipe must be a LayerSpec, its notation or a Recipe, not {spec_or_recipe!r}")
    if isinstance(spec_or_recipe, str):
        if spec_or_recipe.endswith((".yaml", ".yml")):
            raise SpecError(f"spec_or_recipe must be a recipe, not its file; give Recipe.from_yaml({spec_or_recipe!r})")
        spec_or_recipe = LayerSpec.parse(spec_or_recipe)
    if isinstance(spec_or_recipe, LayerSpec):
        return Recipe.from_spec(spec_or_recipe, first_last or "same")
    return spec_or_recipe if first_last is None else spec_or_recipe.model_copy(update={"first_last": first_last})


def layers_to_observe(plans: Sequence[LayerPlan], first_last: FirstLast = "same") -> dict[str, LayerSpec]:
    """Layers whose operands must be seen, by name, with the spec that needs it."""
    needed = {}
    for plan in plans:
        if plan.spec is None or plan.match.kind == "embedding":
            continue
        ends = first_last == "8bit" and plan.match.kind in DEFAULT_KINDS
        for spec in (plan.spec, eight_bit(plan.spec)) if ends else (plan.spec,):
            if spec.needs_calibration:
                needed[plan.match.name] = spec
    return needed


def has_weight(plan: LayerPlan) -> bool:
    """Whether a plan quantizes a weight: matmuls have none."""
    return plan.spec is not None and plan.match.kind != "matmul"


def require_float(model: nn.Module) -> None:
    """Refuse a model that is quantized already.

    Raises:
        RecipeError: it is.
    """
    for name, module in model.named_modules():
        if isinstance(module, (QuantLayer, IntegerLayer)):
            raise RecipeError(
                f"model must be a float model, but its layer {name!r} is quantized already ({module.spec}); quantize "
                "the float model anew"
            )


def require_finite(layers: Mapping[str, nn.Module]) -> None:
    """Found only after calibration, a weight of NaN would be blamed on the input of the next layer."""
    tensors = {
        f"{part} of layer {name!r}": tensor
        for name, module in layers.items()
        for part, tensor in (("weight", float_weight(module)), ("bias", float_bias(module)))
    }
    for what, tensor in tensors.items():
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "Inf"
            raise NonFiniteError(f"{what}: a tensor must be finite to be quantized, but it holds {kind}")


def require_some_layer(plans: Sequence[LayerPlan], recipe: Recipe) -> None:
    """A request to quantize that leaves the whole model as it is has failed, and must not look as if it had not."""
    if any(plan.spec is not None for plan in plans) or all(rule.skip for rule in recipe.rules):
        return
    reasons = [f"{plan.match.name or 'the model'}: {plan.note}" for plan in plans if plan.match.rule_index is not None]
    raise RecipeError(f"at least one layer must be quantized, not none; {'; '.join(reasons[:3])}")


def require_no_calibration(needed: Mapping[str, LayerSpec], first_last: FirstLast) -> None:
    """Refuse to go without calibration data where layers must be seen.

    Raises:
        CalibrationError: they must.
    """
    for name, spec in needed.items():
        raise CalibrationError(
            f"calibration must be given: layer {name!r} with {spec} needs its input observed; pass "
            "calibration=batches, or use a spec with -tensor or -token and no 'u'"
        )
    if first_last != "same":
        raise CalibrationError(
            f"calibration must be given: first_last: {first_last} needs to see which layer runs first and which last; "
            "pass calibration=batches, or use first_last: same"
        )
