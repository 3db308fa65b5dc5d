"""Model surgery: which layers a recipe means, what is folded, what is replaced, and a report of all of it."""

from vsquant.transform.attention import AttentionEntry, attention_entries, attention_modules, place_matmuls
from vsquant.transform.fold import FoldReport, fold_batchnorm
from vsquant.transform.match import Match, apply_first_last, find_layers, match_layers
from vsquant.transform.observe import Observations, observe
from vsquant.transform.plan import LayerPlan, plan_layers, with_signs
from vsquant.transform.recipe import Recipe, Rule
from vsquant.transform.replace import replace_layers

__all__ = [
    "AttentionEntry",
    "FoldReport",
    "LayerPlan",
    "Match",
    "Observations",
    "Recipe",
    "Rule",
    "apply_first_last",
    "attention_entries",
    "attention_modules",
    "find_layers",
    "fold_batchnorm",
    "match_layers",
    "observe",
    "place_matmuls",
    "plan_layers",
    "replace_layers",
    "with_signs",
]
