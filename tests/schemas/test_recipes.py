"""A recipe's id is a promise: what it stands for is never computed twice, and never mistaken for something else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.recipes import ADDED, Decoding, Recipe

BRIEF = Recipe(task="brief", prompt="<grounding>An image of", model="demo", revision="r", dtype="float32")


def test_recipe_of_the_first_release_has_its_id_still() -> None:
    assert BRIEF.id == "d5ce0b2a7b3b248a9fdce4525bd193b5"
    changed = {"max_new_tokens": 128, "no_repeat_ngram_size": 3, "preprocessing": "exact-1", "dtype": "bfloat16"}
    assert BRIEF.model_copy(update=changed).id == "bafa0a4ac0619cc9dde72582ac621fb0"


def test_first_release_wrote_all_its_parameters_and_those_added_since_only_show_in_use() -> None:
    first = {"dtype", "max_new_tokens", "model", "no_repeat_ngram_size", "preprocessing", "prompt", "revision", "task"}
    assert json.loads(BRIEF.canonical).keys() == first
    assert first | set(ADDED) == set(Recipe.model_fields)
    used = BRIEF.model_copy(update={"min_new_tokens": 5, "constrained": True})
    assert json.loads(used.canonical).keys() == first | set(ADDED)


decodings = st.builds(
    Decoding,
    max_new_tokens=st.integers(100, 1800),
    no_repeat_ngram_size=st.integers(0, 9),
    min_new_tokens=st.integers(0, 100),
    constrained=st.booleans(),
)


@given(decodings, decodings)
def test_recipe_comes_back_from_its_json_and_other_decoding_is_another_recipe(one: Decoding, other: Decoding) -> None:
    recipes = [BRIEF.model_copy(update=decoding.model_dump()) for decoding in (one, other)]
    assert [Recipe.from_json(recipe.canonical) for recipe in recipes] == recipes
    assert (recipes[0].id == recipes[1].id) == (one == other)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": 1801},
        {"min_new_tokens": -1},
        {"no_repeat_ngram_size": -1},
        {"max_new_tokens": 5, "min_new_tokens": 6},
    ],
)
def test_decoding_that_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Decoding.model_validate(wrong)
