"""A recipe's id is a promise: what it stands for is never computed twice, and never mistaken for something else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.errors import Code, PermanentFailure, UsageError
from schemas.recipes import ADDED, MAX_NEW_TOKENS, TASKS, Decoding, Recipe, field_of, prompt_for

BRIEF = Recipe(task="brief", prompt="<grounding>An image of", model="demo", revision="r", dtype="float32")


def test_recipe_of_the_first_release_has_its_id_still() -> None:
    assert BRIEF.id == "d5ce0b2a7b3b248a9fdce4525bd193b5"
    changed = {"max_new_tokens": 128, "no_repeat_ngram_size": 3, "preprocessing": "exact-1", "dtype": "bfloat16"}
    assert BRIEF.model_copy(update=changed).id == "bafa0a4ac0619cc9dde72582ac621fb0"


def test_first_release_wrote_all_its_parameters_and_those_added_since_only_show_in_use() -> None:
    first = {"dtype", "max_new_tokens", "model", "no_repeat_ngram_size", "preprocessing", "prompt", "revision", "task"}
    assert json.loads(BRIEF.canonical).keys() == first
    assert first | set(ADDED) == set(Recipe.model_fields)
    used = {"min_new_tokens": 5, "constrained": True, "input": "phrase", "verify": "phrases-1", "absent": ("a yak",)}
    assert json.loads(BRIEF.model_copy(update=used).canonical).keys() == first | set(ADDED)


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


def asking(task: str) -> Recipe:
    return BRIEF.model_copy(update={"task": task, "prompt": TASKS[task], "input": field_of(task)})


def test_prompts_are_those_that_the_model_was_trained_and_evaluated_with() -> None:
    assert prompt_for("brief") == "<grounding>An image of"
    assert prompt_for("detailed") == "<grounding>Describe this image in detail:"
    assert prompt_for("phrase", " a snowman ") == "<grounding><phrase>a snowman</phrase>"
    assert prompt_for("referring", "a snowman next to a fire") == (
        "<grounding><phrase>a snowman next to a fire</phrase>"
    )
    assert prompt_for("region", "0.390625,0.046875,0.984375,0.828125") == (
        "<grounding><phrase>It</phrase><object><patch_index_0044><patch_index_0863></object> is"
    )
    assert prompt_for("question", "What is special about this image?") == (
        "<grounding>Question: What is special about this image? Answer:"
    )
    assert prompt_for("plain_question", "Is it hot?") == "Question: Is it hot? Answer:"
    assert MAX_NEW_TOKENS.keys() == TASKS.keys() | {"custom"}


@pytest.mark.parametrize(
    ("task", "words", "said"),
    [
        ("caption", "", "unknown task 'caption'; tasks are brief, "),
        ("referring", " ", "the task 'referring' needs its expression, as in --expression TEXT"),
        ("plain_question", "", "as in --plain-question TEXT"),
        ("region", "0,0,1", "--region: '0,0,1' is no region; one is X1,Y1,X2,Y2"),
        ("region", "0,0,100,100", "--region: the region 0,0,100,100 must be in fractions of the image"),
    ],
)
def test_prompt_that_cannot_be_is_told_with_its_flag(task: str, words: str, said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        prompt_for(task, words)
    assert said in str(refusal.value)


def test_value_of_an_item_takes_the_place_of_its_field() -> None:
    assert asking("phrase").fill("a {phrase}", (9, 9)) == "<grounding><phrase>a {phrase}</phrase>"
    whole = BRIEF.model_copy(update={"prompt": "{prompt}", "input": "prompt"})
    assert whole.fill("<grounding>Hi", (9, 9)) == "<grounding>Hi"
    assert asking("phrase").fill("2 < 3 > 1, <b>", (9, 9)) == "<grounding><phrase>2 < 3 > 1, <b></phrase>"
    assert BRIEF.model_copy(update={"prompt": "{phrase}"}).fill("", (9, 9)) == "{phrase}"


def test_region_is_in_fractions_or_in_pixels_of_the_upright_image() -> None:
    asked = [asking("region").fill(text, (320, 64)) for text in ("0.25,0.5,0.5,1", "80,32,160,64", " 80.0, 32,160,64")]
    assert asked == ["<grounding><phrase>It</phrase><object><patch_index_0520><patch_index_1007></object> is"] * 3


@pytest.mark.parametrize(
    ("task", "value", "said"),
    [
        ("phrase", " ", "there is no phrase for this image: the cell is empty, or holds no text"),
        ("question", "caf\ufffd", "the question 'caf\ufffd' holds broken characters"),
        ("question", "caf\ud800", "holds broken characters"),
        ("phrase", "a <phrase> of ours", "the phrase 'a <phrase> of ours' holds <phrase>, a tag of the model"),
        ("plain_question", "</s>?", "holds </s>, a tag of the model: leave it out"),
        ("region", "left", "'left' is no region"),
        ("region", "0,0,nan,1", "is no region"),
        ("region", "10,10,10,20", "the region 10,10,10,20 has no area"),
        ("region", "0.5,0,0.25,1", "the region 0.5,0,0.25,1 has no area"),
        ("region", "0,0,101,50", "the region 0,0,101,50 reaches beyond the image, which is 100×50"),
        ("region", "-1,0,50,50", "reaches beyond the image"),
    ],
)
def test_value_that_makes_no_prompt_fails_for_good(task: str, value: str, said: str) -> None:
    with pytest.raises(PermanentFailure) as failure:
        asking(task).fill(value, (100, 50))
    assert failure.value.code == Code.BAD_INPUT
    assert said in failure.value.message


def test_corner_beyond_the_edge_by_a_rounding_is_on_the_edge() -> None:
    assert asking("region").fill("0,0,100.01,50", (100, 50)) == asking("region").fill("0,0,1,1.0000001", (100, 50))


@pytest.mark.parametrize("prompt", ["<grounding>", "{phrase} and {phrase}"])
def test_recipe_with_an_input_holds_its_field_once(prompt: str) -> None:
    with pytest.raises(ValidationError, match=r"must hold \{phrase\} once"):
        Recipe.model_validate(BRIEF.model_dump() | {"prompt": prompt, "input": "phrase"})
