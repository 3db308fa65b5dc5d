from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsquant.errors import RecipeError, SpecError
from vsquant.spec.layer import LayerSpec
from vsquant.transform.recipe import Recipe, Rule

EXAMPLE = """
first_last: 8bit
fallback: w8a8u
rules:
  - match: "lm_head"
    skip: true
  - {match: "re:encoder\\\\.[0-3]\\\\..*", spec: w4a8-s4/6}
  - type: embedding
    spec: w4a16-s4/x
  - spec: w4a4u-s4/6-v16-p6
"""


def test_yaml_gives_the_recipe_of_python() -> None:
    assert Recipe.from_yaml(EXAMPLE) == Recipe(
        first_last="8bit",
        fallback=LayerSpec.parse("w8a8u"),
        rules=(
            Rule(match="lm_head", skip=True),
            Rule(match=r"re:encoder\.[0-3]\..*", spec=LayerSpec.parse("w4a8-s4/6")),
            Rule(type="embedding", spec=LayerSpec.parse("w4a16-s4/x")),
            Rule(spec=LayerSpec.parse("w4a4u-s4/6-v16-p6")),
        ),
    )


def test_a_file_is_read_by_path_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(EXAMPLE, encoding="utf-8")
    assert Recipe.from_yaml(path) == Recipe.from_yaml(str(path)) == Recipe.from_yaml(EXAMPLE)


rules = st.builds(
    lambda match, kind, spec: Rule(match=match, type=kind, spec=spec, skip=spec is None),
    st.sampled_from(["*", "layer?.*", "re:a(b|c)+", 'odd: "name"', "# no comment", "été"]),
    st.sampled_from([None, "linear", "conv2d", "embedding", "BertSelfOutput"]),
    st.sampled_from([None, *map(LayerSpec.parse, ["w4a4u-s4/6", "nvfp4", "w8a8", "w4a16-s4/x-v32-full"])]),
)


@given(st.lists(rules, min_size=1), st.sampled_from(["same", "8bit", "float"]))
def test_yaml_round_trip(rule_list: list[Rule], first_last: str) -> None:
    recipe = Recipe.from_mapping({"rules": rule_list, "first_last": first_last, "fallback": "w8a8u"})
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


def test_from_spec_is_one_rule_for_all() -> None:
    recipe = Recipe.from_spec("w4a4-s4/6", first_last="float")
    assert recipe == Recipe(rules=(Rule(match="*", spec=LayerSpec.parse("w4a4-s4/6")),), first_last="float")
    assert Recipe.from_spec(LayerSpec.parse("w4a4-s4/6"), first_last="float") == recipe
    assert recipe.fallback == LayerSpec.parse("w8a8")


def test_recipes_are_frozen_and_hashable() -> None:
    recipe = Recipe.from_spec("w4a4-s4/6")
    with pytest.raises(ValueError, match="frozen"):
        recipe.first_last = "8bit"  # type: ignore[misc]
    assert hash(recipe) == hash(Recipe.from_spec("w4a4-s4/6"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "frist_last: same\nrules: [{spec: w8a8}]",
            "recipe: unknown key 'frist_last'; known keys are rules, first_last, fallback; did you mean 'first_last'?",
        ),
        (
            "rules: [{spec: w8a8}, {typ: linear, spec: w8a8}]",
            "rule 2: unknown key 'typ'; known keys are match, type, spec, skip; did you mean 'type'?",
        ),
        ("rules: [{spec: w8a8, zzz: 1}]", "rule 1: unknown key 'zzz'; known keys are match, type, spec, skip"),
        ("rules: [{spec: w8a8}, {match: a, spec: w8a99}]", "rule 2: spec: cannot read"),
        ("rules: [{match: a}]", "rule 1: exactly one of spec and skip: true must be given, not neither"),
        ("rules: [{spec: w8a8, skip: true}]", "rule 1: exactly one of spec and skip: true must be given, not both"),
        ("rules: [{match: 're:(', skip: true}]", "rule 1: match must be a regular expression after 're:', not 're:('"),
        ("rules: [{match: '', skip: true}]", "rule 1: match must be a glob"),
        ("rules: [{type: lineer, skip: true}]", "rule 1: type must be linear, conv1d, conv2d, embedding, matmul or a"),
        ("rules: [{skip: maybe}]", "rule 1: skip must be a valid boolean, not 'maybe'"),
        ("rules: [{spec: 4}]", "rule 1: spec must be "),
        ("rules: [w8a8]", "rule 1: must be a valid dictionary or instance of Rule, not 'w8a8'"),
        ("rules: []", "recipe: rules must hold at least one rule, not none"),
        ("fallback: w8a8", "recipe: the key 'rules' must be given"),
        ("first_last: 9bit\nrules: [{spec: w8a8}]", "recipe: first_last must be 'same', '8bit' or 'float', not '9bit'"),
        ("fallback: w9a9\nrules: [{spec: w8a8}]", "recipe: fallback: cannot read"),
        ("- spec: w8a8", "recipe must be a mapping with the key 'rules', not [{'spec': 'w8a8'}]"),
        ("", "recipe must be a mapping with the key 'rules', not None"),
        ("rules: [{match: *, skip: true}]", "recipe must be YAML:"),
        ("rules: !!python/object/apply:os.getcwd []", "recipe must be YAML:"),
        ("no/such/recipe.yaml", "recipe no/such/recipe.yaml must be a readable file:"),
    ],
)
def test_mistakes_say_what_and_where(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml(text)
    assert str(caught.value).startswith(message)
    assert "pydantic" not in str(caught.value)


def test_a_bad_spec_shows_the_error_of_the_spec() -> None:
    with pytest.raises(SpecError) as spec_error:
        LayerSpec.parse("w8a99")
    with pytest.raises(RecipeError) as caught:
        Recipe.from_yaml("rules: [{spec: w8a99}]")
    assert str(spec_error.value) in str(caught.value)


def test_an_unquoted_star_is_explained() -> None:
    with pytest.raises(RecipeError, match=r'A pattern such as "\*" needs quotes'):
        Recipe.from_yaml("rules:\n  - match: *\n    spec: w8a8")


def test_python_mistakes_are_recipe_errors_too() -> None:
    with pytest.raises(RecipeError, match="rule: unknown key 'pattern'"):
        Rule(pattern="*", skip=True)  # type: ignore[call-arg]
    with pytest.raises(RecipeError, match="rule: exactly one of spec and skip: true must be given, not neither"):
        Rule()
    with pytest.raises(RecipeError, match="rule: spec: cannot read the layer spec 'w1a1'"):
        Rule(spec="w1a1")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="cannot read the layer spec 'w1a1'"):
        Recipe.from_spec("w1a1")


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "", True),
        ("*", "a.b.c", True),
        ("a.*", "a.b.c", True),
        ("a.*", "b.a.c", False),
        ("A.*", "a.b", False),
        ("layer[12].conv", "layer2.conv", True),
        ("re:layer[12]", "layer2.conv", False),
        (r"re:layer[12]\..*", "layer2.conv", True),
    ],
)
def test_patterns(pattern: str, name: str, *, matches: bool) -> None:
    assert Rule(match=pattern, skip=True).matches_name(name) is matches


def test_embeddings_and_matmuls_are_opt_in() -> None:
    plain = Rule(skip=True)
    assert plain.matches_type("linear", "Linear")
    assert plain.matches_type("conv1d", "Conv1d")
    assert not plain.matches_type("embedding", "Embedding")
    assert not plain.matches_type("matmul", "BertSelfAttention")
    assert Rule(type="embedding", skip=True).matches_type("embedding", "Embedding")
    assert Rule(type="matmul", skip=True).matches_type("matmul", "BertSelfAttention")
    assert Rule(type="Conv1D", skip=True).matches_type("linear", "Conv1D")
    assert not Rule(type="conv2d", skip=True).matches_type("linear", "Linear")
