from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vsquant.errors import RecipeError
from vsquant.spec.layer import LayerSpec
from vsquant.transform.match import Match, apply_first_last, match_layers
from vsquant.transform.recipe import Recipe, Rule

W4A4 = LayerSpec.parse("w4a4-s4/6")
W8A8 = LayerSpec.parse("w8a8")
ALL = Rule(spec=W4A4)


class SamePaddedConv2d(nn.Conv2d):
    """Pads in forward, as TensorFlow's SAME does."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)


class RenamedLinear(nn.Linear):
    """A subclass that computes what its base class computes."""


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.Sequential(nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8), RenamedLinear(8, 8))
        self.padded = SamePaddedConv2d(8, 8, 3)
        self.again = self.blocks[2]
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight


def matched(*rules: Rule, model: nn.Module | None = None, matmuls: tuple[str, ...] = ()) -> dict[str, Match]:
    matches = match_layers(model or Small(), Recipe(rules=rules), matmuls=matmuls)
    assert len({match.name for match in matches}) == len(matches)
    return {match.name: match for match in matches}


def test_every_kind_is_found_once_in_module_order() -> None:
    matches = matched(ALL)
    assert [(name, match.kind) for name, match in matches.items()] == [
        ("embed", "embedding"),
        ("stem", "conv2d"),
        ("blocks.0", "conv1d"),
        ("blocks.2", "linear"),
        ("padded", "conv2d"),
        ("head", "linear"),
    ]


def test_a_rule_without_type_leaves_embeddings_float() -> None:
    matches = matched(ALL)
    assert matches["embed"].requested is None
    assert matches["embed"].rule_text == "no rule"
    assert matches["embed"].note.startswith("give it a rule with type: embedding")
    assert {match.requested for name, match in matches.items() if name != "embed"} == {W4A4}
    assert matched(Rule(type="embedding", spec=W8A8))["embed"].requested == W8A8


def test_the_first_rule_that_matches_decides() -> None:
    matches = matched(Rule(match="blocks.*", type="linear", spec=W8A8), Rule(match="st*", skip=True), ALL)
    assert (matches["blocks.2"].requested, matches["blocks.2"].rule_index) == (W8A8, 0)
    assert (matches["blocks.0"].requested, matches["blocks.0"].rule_index) == (W4A4, 2)
    assert (matches["stem"].requested, matches["stem"].rule_index) == (None, 1)
    assert matches["stem"].note == "skipped by the recipe"
    assert matches["stem"].rule_text == 'match: "st*", skip'


def test_layers_without_rule_stay_float_and_say_so() -> None:
    matches = matched(Rule(match="head", spec=W4A4))
    assert (matches["stem"].requested, matches["stem"].rule_index, matches["stem"].note) == (
        None,
        None,
        "no rule matches",
    )


def test_a_class_name_is_a_type() -> None:
    matches = matched(Rule(type="RenamedLinear", spec=W8A8))
    assert [name for name, match in matches.items() if match.requested] == ["blocks.2"]


def test_subclasses_with_a_forward_of_their_own_are_marked() -> None:
    assert [name for name, match in matched(ALL).items() if match.custom_forward] == ["padded"]
    model = Small()
    model.stem.forward = lambda x: x  # type: ignore[method-assign,assignment]
    assert matched(ALL, model=model)["stem"].custom_forward


def test_a_shared_module_appears_once_and_answers_to_both_names() -> None:
    shared = matched(Rule(match="again", spec=W8A8))["blocks.2"]
    assert shared.aliases == ("again",)
    assert shared.requested == W8A8
    assert shared.note == "shared with again"


def test_tied_parameters_are_noted_on_both_sides() -> None:
    matches = matched(ALL, Rule(type="embedding", spec=W8A8))
    assert matches["head"].note == "weight tied to embed.weight"
    assert matches["embed"].note == "weight tied to head.weight"


def test_the_model_itself_may_be_the_layer() -> None:
    (match,) = match_layers(nn.Linear(3, 4), Recipe.from_spec(W4A4))
    assert (match.name, match.requested) == ("", W4A4)


def test_weights_read_by_multihead_attention_stay_float() -> None:
    model = nn.ModuleDict(
        {"mha": nn.MultiheadAttention(8, 2), "layer": nn.TransformerEncoderLayer(8, 2), "fc": nn.Linear(8, 8)}
    )
    matches = matched(ALL, model=model)
    assert [name for name, match in matches.items() if match.requested] == ["fc"]
    note = "left float: MultiheadAttention 'mha' reads its weights without calling it; a module that calls its layers"
    assert matches["mha.out_proj"].note.startswith(note)
    assert "TransformerEncoderLayer 'layer' reads" in matches["layer.linear1"].note
    assert matches["layer.linear1"].rule_index == 0


def test_transformers_conv1d_is_linear() -> None:
    pytorch_utils = pytest.importorskip("transformers.pytorch_utils")
    matches = matched(ALL, model=nn.ModuleDict({"c_fc": pytorch_utils.Conv1D(16, 8)}))
    assert (matches["c_fc"].kind, matches["c_fc"].custom_forward) == ("linear", False)
    assert (matches["c_fc"].transposed, matches["c_fc"].reduction_length) == (True, 8)


def test_reduction_length_is_what_vectors_are_made_of() -> None:
    matches = matched(ALL)
    assert {name: match.reduction_length for name, match in matches.items()} == {
        "embed": 8,
        "stem": 3,
        "blocks.0": 8,
        "blocks.2": 8,
        "padded": 8,
        "head": 8,
    }
    assert not any(match.transposed for match in matches.values())
    assert matched(ALL, model=nn.Conv2d(32, 8, 3, groups=4))[""].reduction_length == 8


def test_matmuls_are_opt_in() -> None:
    model = nn.ModuleDict({"attention": nn.Identity(), "fc": nn.Linear(2, 2)})
    assert matched(ALL, model=model, matmuls=("attention",))["attention"].requested is None
    matches = matched(Rule(type="matmul", spec=W8A8), ALL, model=model, matmuls=("attention",))
    assert (matches["attention"].kind, matches["attention"].requested) == ("matmul", W8A8)
    with pytest.raises(RecipeError, match=r"rule 1 \(match: \"\*\", type: matmul, spec: w8a8\) must decide"):
        matched(Rule(type="matmul", spec=W8A8), ALL, model=model)


@pytest.mark.parametrize(
    ("rules", "rule", "reason"),
    [
        (
            (ALL, Rule(match="blockz.*", skip=True)),
            'rule 2 (match: "blockz.*", skip)',
            "the model's layers are 'blocks.2', 'blocks.0', 'embed', 'stem', 'padded', 'head'",
        ),
        (
            (ALL, Rule(match="head", spec=W8A8), Rule(match="stem", skip=True)),
            'rule 2 (match: "head", spec: w8a8)',
            "rule 1 takes all that it matches ('head'); put it before, or drop it",
        ),
        (
            (Rule(match="emb*", spec=W8A8), ALL),
            'rule 1 (match: "emb*", spec: w8a8)',
            "its pattern matches only layers of type embedding ('embed')",
        ),
    ],
)
def test_a_rule_that_decides_nothing_is_an_error(rules: tuple[Rule, ...], rule: str, reason: str) -> None:
    with pytest.raises(RecipeError) as caught:
        matched(*rules)
    assert str(caught.value) == f"{rule} must decide at least one layer, not none: {reason}"


def test_few_of_many_names_are_shown() -> None:
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(40)))
    with pytest.raises(RecipeError, match=r"the model's layers are '0', .*, '5' and 34 more$"):
        matched(Rule(match="nothing", skip=True), model=model)
    with pytest.raises(RecipeError, match="the model has no layer that can be quantized"):
        matched(ALL, model=nn.ReLU())


def test_matching_changes_nothing() -> None:
    model = Small()
    before = {name: id(module) for name, module in model.named_modules()}
    matched(ALL, model=model)
    assert {name: id(module) for name, module in model.named_modules()} == before


ORDER = ("unknown", "stem", "embed", "blocks.0", "head", "again")


def end_specs(policy: str, *rules: Rule) -> dict[str, str]:
    matches = match_layers(Small(), Recipe(rules=rules or (ALL,)))
    after = apply_first_last(matches, ORDER, policy)  # type: ignore[arg-type]
    assert [match.name for match in after] == [match.name for match in matches]
    return {match.name: str(match.requested) for match in after if match.requested != W4A4}


def test_first_and_last_follow_execution_not_definition() -> None:
    assert end_specs("same") == {"embed": "None"}
    assert end_specs("8bit") == {"embed": "None", "stem": "w8a8", "blocks.2": "w8a8"}
    assert end_specs("float") == {"embed": "None", "stem": "None", "blocks.2": "None"}


def test_first_and_last_are_among_the_quantized_linear_and_convolution_layers() -> None:
    skip_stem = Rule(match="stem", skip=True)
    embedding = Rule(type="embedding", spec=W8A8)
    assert end_specs("float", skip_stem, embedding, ALL) == {
        "stem": "None",
        "embed": "w8a8",
        "blocks.0": "None",
        "blocks.2": "None",
    }


@pytest.mark.parametrize(
    ("spec", "end"),
    [("w4a16-s4/x", "w8a16"), ("w4a4u-s4/6", "w8a8u"), ("w4a4-s4/6-tensor", "w8a8-tensor"), ("nvfp4", "w8a8")],
)
def test_eight_bit_ends_keep_what_the_spec_says_of_activations(spec: str, end: str) -> None:
    assert end_specs("8bit", Rule(spec=LayerSpec.parse(spec)))["stem"] == end


def test_policy_is_noted() -> None:
    after = {match.name: match for match in apply_first_last(list(matched(ALL).values()), ORDER, "8bit")}
    assert after["stem"].note == "first layer: 8bit"
    assert after["blocks.2"].note == "shared with again; last layer: 8bit"


def test_policy_without_an_executed_layer_is_an_error() -> None:
    with pytest.raises(RecipeError, match="first_last: float must find the first and last quantized layer executed"):
        apply_first_last(list(matched(ALL).values()), ["elsewhere"], "float")


def test_parametrized_layers_are_plain_layers() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    assert not match_layers(model, Recipe.from_spec(W4A4))[0].custom_forward
    assert torch.equal(model.weight, model.weight)
