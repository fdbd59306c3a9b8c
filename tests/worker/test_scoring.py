"""Scores: each box meets its own two location tokens, and no others."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.grounding import parse
from worker.scoring import Scores, score

FIRST = 1000
WORD = 5


@dataclass
class Tokens:
    token_ids: list[int]
    logprobs: list[float]


def cell(index: int) -> str:
    return f"<patch_index_{index:04}>"


def pair(first: int, second: int) -> str:
    return f"<object>{cell(first)}{cell(second)}</object>"


def generated(*tokens: tuple[int, float]) -> Tokens:
    return Tokens([token_id for token_id, _ in tokens], [logprob for _, logprob in tokens])


def scores_of(raw_text: str, generation: Tokens) -> list[Any]:
    """One score or None for each box of a text, in order."""
    return [one for entity in score(parse(raw_text), generation, FIRST).boxes for one in entity]


def test_box_has_the_joint_probability_of_its_two_tokens() -> None:
    generation = generated((WORD, -3.0), (FIRST + 44, math.log(0.5)), (FIRST + 863, math.log(0.25)), (WORD, -1.0))
    scores = score(parse(f"<phrase>a</phrase>{pair(44, 863)}"), generation, FIRST)
    assert scores.boxes[0][0] == pytest.approx(0.125)
    assert scores.mean_logprob == pytest.approx((math.log(0.125) - 4.0) / 4)


def test_box_of_the_prompt_has_no_score_and_shifts_no_other() -> None:
    raw_text = f"<phrase>It</phrase>{pair(1, 70)} is by<phrase> a fire</phrase>{pair(5, 911)}"
    generation = generated((FIRST + 5, -0.1), (FIRST + 911, -0.2))
    assert scores_of(raw_text, generation) == [None, pytest.approx(math.exp(-0.3))]


def test_box_that_the_prompt_began_and_the_model_ended_has_no_score() -> None:
    generation = generated((FIRST + 70, -0.1), (FIRST + 3, -0.2))
    assert scores_of(f"<object>{cell(1)}{cell(70)}{cell(3)}</object>", generation) == [None]


def test_odd_tokens_between_boxes_do_not_shift_them() -> None:
    raw_text = f"<object>{cell(9)}</object><phrase>a</phrase>{pair(44, 863)}"
    generation = generated((FIRST + 9, -5.0), (FIRST + 44, -0.5), (FIRST + 863, -0.5))
    assert scores_of(raw_text, generation) == [pytest.approx(math.exp(-1))]


def test_text_that_is_not_of_these_tokens_gets_no_score() -> None:
    generation = generated((FIRST + 1, -0.1), (FIRST + 2, -0.2))
    assert scores_of(pair(44, 863), generation) == [None]


def test_nothing_generated_has_no_scores() -> None:
    assert score(parse("a dog"), generated(), FIRST) == Scores((), None)


@given(st.lists(st.tuples(st.integers(0, 1023), st.floats(-50, 0)), max_size=12), st.integers(0, 12))
def test_each_generated_box_gets_its_own_probability_and_each_given_one_none(
    tokens: list[tuple[int, float]], given_tokens: int
) -> None:
    """Given objects of which the prompt ends somewhere, when scored, then from that point on, each has its product."""
    objects = list(zip(tokens[::2], tokens[1::2], strict=False))
    raw_text = "".join(pair(first, second) for (first, _), (second, _) in objects)
    told = [(FIRST + cell, logprob) for both in objects for cell, logprob in both][given_tokens:]
    boxes = scores_of(raw_text, generated(*told))
    for place, (box, ((_, one), (_, other))) in enumerate(zip(boxes, objects, strict=True)):
        assert box == (pytest.approx(math.exp(one + other)) if 2 * place >= given_tokens else None)
