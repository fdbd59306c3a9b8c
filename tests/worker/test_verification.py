"""What the model is asked about its own boxes, and what its answers make of them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from schemas.grounding import parse
from schemas.recipes import Recipe
from schemas.results import Annotation
from schemas.verification import ABSENT, ABSENT_DRAWINGS, MIRROR, PHRASES, Manner
from worker.annotation import annotation_of
from worker.generation import Generation, Request
from worker.null_engine import VOCABULARY
from worker.verification import follow_up_of

BRIEF = "<grounding>An image of"
SNOWMAN = "<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object>"
FIRE = "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>"
PIXELS = np.arange(224 * 224 * 3, dtype=np.uint8).reshape(224, 224, 3)


def recipe(verify: Manner, task: str = "brief", prompt: str = BRIEF, absent: Sequence[str] = ABSENT) -> Recipe:
    about = {"model": "m", "revision": "r", "dtype": "float32"}
    return Recipe(task=task, prompt=prompt, verify=verify, absent=tuple(absent), **about)


def said(raw_text: str, logprobs: Sequence[float] = (-0.1,), log_object: float = 0.0, **more: Any) -> Generation:
    """A generation of this text, of which the location tokens alone are told, and a chance of an object at first."""
    cells = [VOCABULARY.first_patch + int(part[:4]) for part in raw_text.split("<patch_index_")[1:]]
    ids = [*cells, VOCABULARY.eos]
    probabilities = [logprobs[number % len(logprobs)] for number in range(len(ids))]
    glances = np.zeros((len(ids), 5), np.float32)
    glances[:, 4] = log_object
    return Generation(ids, probabilities, raw_text, "stop", glances, **more)


def asked(of: Recipe, raw_text: str, prompt: str = BRIEF) -> list[Request]:
    follow_up = follow_up_of(of, prompt, PIXELS)
    return list(follow_up(said(raw_text))) if follow_up else []


def prompts(requests: Sequence[Request]) -> list[tuple[str, str]]:
    return [(request.prompt, request.answer) for request in requests]


def annotated(of: Recipe, raw_text: str, answers: Sequence[Generation | None], prompt: str = BRIEF) -> Annotation:
    return annotation_of(of, prompt, said(raw_text, follow_ups=answers), VOCABULARY, "cpu")


def test_recipe_that_does_not_verify_asks_nothing() -> None:
    assert follow_up_of(recipe(""), BRIEF, PIXELS) is None


def test_each_phrase_is_asked_alone_each_box_by_its_name_and_something_that_is_absent() -> None:
    requests = asked(recipe(PHRASES), f"{BRIEF}{SNOWMAN} by{FIRE}.")
    *own, absent = prompts(requests)
    assert own == [
        ("<grounding><phrase>a snowman</phrase>", ""),
        ("<grounding><phrase>a fire</phrase>", ""),
        ("<grounding><phrase>It</phrase><object><patch_index_0044><patch_index_0863></object> is", "a snowman"),
        ("<grounding><phrase>It</phrase><object><patch_index_0005><patch_index_0911></object> is", "a fire"),
    ]
    assert absent[0] in {f"<grounding><phrase>{phrase}</phrase>" for phrase in ABSENT}
    assert all(request.pixels is PIXELS for request in requests)
    assert [request.max_new_tokens for request in requests if not request.answer] == [3, 3, 3]


def test_mirrored_image_is_one_for_all_phrases_and_its_left_is_right() -> None:
    left = SNOWMAN.replace("a snowman", "the Left dog")
    requests = asked(recipe(MIRROR), f"{BRIEF}{left} and{FIRE}.")
    mirrored = [request for request in requests if request.pixels is not PIXELS]
    assert [request.prompt for request in mirrored] == [
        "<grounding><phrase>the right dog</phrase>",
        "<grounding><phrase>a fire</phrase>",
    ]
    assert mirrored[0].pixels is mirrored[1].pixels
    assert np.array_equal(mirrored[0].pixels, PIXELS[:, ::-1])


def test_phrase_that_the_prompt_gave_alone_is_not_asked_again() -> None:
    prompt = "<grounding><phrase>a snowman</phrase>"
    raw_text = f"<grounding>{SNOWMAN}"
    kinds = prompts(asked(recipe(MIRROR, "phrase", prompt), raw_text, prompt))
    assert kinds[0] == (prompt, "")  # on the mirrored image
    assert [answer for _, answer in kinds] == ["", "a snowman", ""]


def test_box_that_the_prompt_gave_is_not_checked_but_those_of_the_answer_are() -> None:
    prompt = "<grounding><phrase>It</phrase><object><patch_index_0044><patch_index_0863></object> is"
    raw_text = f"<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is by{FIRE}"
    found = prompts(asked(recipe(PHRASES, "region", prompt), raw_text, prompt))
    assert next(one for one in found if "It</phrase>" not in one[0]) == ("<grounding><phrase>a fire</phrase>", "")
    assert [answer for _, answer in found if answer] == ["a fire"]


def test_phrase_with_several_boxes_is_asked_once_for_as_many() -> None:
    dogs = (
        "<phrase> dogs</phrase><object><patch_index_0044><patch_index_0863>"
        "</delimiter_of_multi_objects/><patch_index_0005><patch_index_0911></object>"
    )
    requests = asked(recipe(PHRASES), f"{BRIEF}{dogs}.")
    assert [request.max_new_tokens for request in requests if not request.answer] == [6, 3]
    assert [request.answer for request in requests if request.answer] == ["dogs", "dogs"]


def test_inverted_box_has_no_name_to_be_asked_for() -> None:
    inverted = SNOWMAN.replace("0044", "0863").replace("<patch_index_0863></object>", "<patch_index_0044></object>")
    assert not any(request.answer for request in asked(recipe(PHRASES), f"{BRIEF}{inverted}."))


def test_answer_without_boxes_is_asked_nothing() -> None:
    assert asked(recipe(MIRROR), f"{BRIEF} nothing.") == []


def test_endless_answer_is_asked_so_much_and_no_more() -> None:
    things = "".join(SNOWMAN.replace("a snowman", f"a thing{number}") for number in range(100))
    assert len(asked(recipe(MIRROR), BRIEF + things)) <= 16 + 16 + 32 + 1


@pytest.mark.parametrize("absent", [ABSENT, ABSENT_DRAWINGS])
def test_absent_phrase_is_never_one_that_the_caption_speaks_of(absent: Sequence[str]) -> None:
    told = set(absent[::2])
    for number in range(50):
        caption = f"{BRIEF}{SNOWMAN} number {number} with {' and '.join(sorted(told))}."
        prompt = asked(recipe(PHRASES, absent=absent), caption)[-1].prompt
        assert prompt.removeprefix("<grounding><phrase>").removesuffix("</phrase>") in set(absent) - told


def test_nothing_is_absent_where_the_caption_speaks_of_all() -> None:
    found = asked(recipe(PHRASES, absent=["a harp"]), f"{BRIEF}{SNOWMAN} with the harp.")
    assert [request.answer for request in found] == ["", "a snowman"]


def test_several_of_a_thing_are_not_absent_nor_is_one_whose_name_has_a_hyphen() -> None:
    found = asked(recipe(PHRASES, absent=["a harp", "a T-shirt"]), f"{BRIEF}{SNOWMAN} with two harps and a t-shirt.")
    assert [request.answer for request in found] == ["", "a snowman"]


def test_parts_are_what_the_answers_say() -> None:
    """Alone half of the box; mirrored and back the same; its name with 0.5 a word, the article aside; absent, boxed."""
    half = "<grounding><phrase> a snowman</phrase><object><patch_index_0044><patch_index_0479></object>"
    back = "<grounding><phrase> a snowman</phrase><object><patch_index_0032><patch_index_0851></object>"
    found = annotated(
        recipe(MIRROR),
        f"{BRIEF}{SNOWMAN}.",
        [
            said(half, log_object=math.log(0.75)),
            said(back),
            Generation([7, 8, 9], [-9.0, math.log(0.5), math.log(0.5)], "", "length"),
            Generation([1, 2, 3], [-0.2, math.log(0.25), math.log(0.25)], FIRE, "length", said(FIRE).glances),
        ],
    )
    ((belief,),) = found.beliefs
    assert belief.presence == pytest.approx(0.75, abs=1e-6)
    assert belief.agreement == pytest.approx((479 // 32 - 1) / (863 // 32 - 1), abs=0.01)
    assert belief.mirror_agreement == pytest.approx(1.0)
    assert belief.naming == pytest.approx(0.5)
    assert found.absent_phrase in ABSENT
    assert (found.yes_bias, found.absent_score) == (pytest.approx(1.0), pytest.approx(0.25))
    parts = [math.exp(-0.1), 0.75, belief.agreement, 1.0, 0.5]
    assert belief.evidence == pytest.approx(math.prod(part for part in parts if part) ** 0.2)


def test_check_on_which_the_model_failed_leaves_its_part_open() -> None:
    found = annotated(recipe(PHRASES), f"{BRIEF}{SNOWMAN}.", [None, None, None])
    ((belief,),) = found.beliefs
    assert (belief.presence, belief.agreement, belief.naming) == (None, None, None)
    assert belief.evidence == pytest.approx(math.exp(-0.1))
    assert (found.absent_phrase, found.yes_bias) == (None, None)


def test_phrase_that_is_alone_in_its_prompt_is_present_as_the_model_says_without_any_check() -> None:
    prompt = "<grounding><phrase>a snowman</phrase>"
    generation = said(f"<grounding>{SNOWMAN}", log_object=math.log(0.5))
    found = annotation_of(recipe("", "phrase", prompt), prompt, generation, VOCABULARY, "cpu")
    assert found.beliefs[0][0].presence == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("verify", [PHRASES, MIRROR])
def test_every_answer_finds_its_question_whatever_the_text(verify: Manner) -> None:
    """The questions are worked out a second time when the answers are there, and must be the same."""
    for raw_text in (f"{BRIEF}{SNOWMAN} by{FIRE} and{SNOWMAN}.", f"{BRIEF} nothing", BRIEF + SNOWMAN * 40, ""):
        questions = asked(recipe(verify), raw_text)
        found = annotated(recipe(verify), raw_text, [said(FIRE) for _ in questions])
        assert len(found.beliefs) == len(parse(raw_text).entities)
