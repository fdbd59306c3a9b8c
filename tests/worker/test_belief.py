"""How far to believe a box: what is implausible about it, where its edges may lie, and all of it in one number."""

import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from schemas.results import Belief
from tests.worker.test_verification import BRIEF, FIRE, PIXELS, SNOWMAN, recipe
from worker.annotation import annotation_of
from worker.belief import FLOORS, evidence
from worker.generation import Generation, Request
from worker.null_engine import VOCABULARY, NullEngine

PLAIN = recipe("")


def box(first: int, second: int, phrase: str = "a dog") -> str:
    return f"<phrase> {phrase}</phrase><object><patch_index_{first:04d}><patch_index_{second:04d}></object>"


def beliefs(raw_text: str, prompt: str = BRIEF, glances: Any = None) -> list[Belief]:
    """Those of all boxes, in their order, of a text whose location tokens were generated but for the prompt's."""
    cells = [int(part[:4]) for part in raw_text.split("<patch_index_")[1:]][prompt.count("<patch_index_") :]
    ids = [VOCABULARY.first_patch + cell for cell in cells] + [VOCABULARY.eos]
    seen = np.zeros((len(ids), 5), np.float32) if glances is None else np.array(glances, np.float32)
    generation = Generation(ids, [math.log(0.5)] * len(ids), raw_text, "stop", seen)
    found = annotation_of(PLAIN, prompt, generation, VOCABULARY, "cpu")
    return [belief for some in found.beliefs for belief in some]


def test_plain_box_has_no_doubts_and_its_score_for_evidence() -> None:
    (belief,) = beliefs(BRIEF + SNOWMAN)
    assert (belief.doubts, belief.plausibility) == (None, 1.0)
    assert belief.evidence == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("raw_text", "doubts"),
    [
        (box(863, 44), ["inverted"]),
        (box(0, 1023), ["full_frame"]),
        (box(33, 990), [None]),
        (box(44, 863) + box(44, 863, "a cat"), ["repeated", "repeated"]),
        (box(44, 863) + box(44, 863), ["repeated", "repeated"]),
        (box(44, 863) + box(45, 863, "a cat"), [None, None]),
        ("".join(box(number, number + 100) for number in range(12)), ["many_alike"] * 12),
        ("".join(box(number, number + 100) for number in range(11)), [None] * 11),
        (box(0, 1023) * 2, ["full_frame,repeated"] * 2),
    ],
)
def test_what_is_implausible_is_named(raw_text: str, doubts: list[str | None]) -> None:
    found = beliefs(BRIEF + raw_text)
    assert [belief.doubts for belief in found] == doubts
    assert all((belief.plausibility == 1.0) is (belief.doubts is None) for belief in found)


def test_inverted_box_has_no_evidence_at_all() -> None:
    (belief,) = beliefs(BRIEF + box(863, 44))
    assert (belief.plausibility, belief.evidence) == (0.0, 0.0)


def test_box_that_the_prompt_gave_is_neither_believed_nor_doubted() -> None:
    prompt = "<grounding><phrase>It</phrase><object><patch_index_0044><patch_index_0863></object> is"
    given, own = beliefs(f"<grounding><phrase> It</phrase>{SNOWMAN[SNOWMAN.index('<object>') :]} is{FIRE}", prompt)
    assert given == Belief()
    assert own.evidence == pytest.approx(0.5)


def test_edges_are_expected_where_the_distribution_has_its_mean_and_unsure_by_its_entropy() -> None:
    """Cell centres; a normal distribution of the same entropy has that standard deviation."""
    spread = math.log(math.sqrt(2 * math.pi * math.e) * 2)  # of two cells
    (belief,) = beliefs(
        BRIEF + box(44, 863), glances=[[12.25, 1.0, spread, 0.0, 0], [31.0, 26.5, 0.0, spread, 0], [0] * 5]
    )
    assert (belief.expected_x1, belief.expected_y1) == pytest.approx((12.75 / 32, 1.5 / 32))
    assert (belief.expected_x2, belief.expected_y2) == pytest.approx((31.5 / 32, 27 / 32))
    sure = 1 / math.sqrt(2 * math.pi * math.e) / 32
    sigmas = (belief.sigma_x1, belief.sigma_y1, belief.sigma_x2, belief.sigma_y2)
    assert sigmas == pytest.approx((2 / 32, sure, sure, 2 / 32), rel=1e-5)


def test_box_within_one_row_is_expected_with_its_height_where_the_model_is_sure() -> None:
    """Its chosen edges are the outer ones of its cells; cell centres would leave nothing between them."""
    (belief,) = beliefs(BRIEF + box(33, 40), glances=[[1.25, 1.0, 0, 0, 0], [8.0, 1.0, 0, 0, 0], [0] * 5])
    assert (belief.expected_x1, belief.expected_x2) == pytest.approx((1.25 / 32, 9 / 32))
    assert (belief.expected_y1, belief.expected_y2) == pytest.approx((1 / 32, 2 / 32))


def test_edge_without_a_mean_is_left_open() -> None:
    """As when an option forces a cell that the model gave no chance at all."""
    glances = [[math.nan, math.nan, 1.0, 1.0, 0], [31.0, 26.5, 1.0, 1.0, 0], [0] * 5]
    (belief,) = beliefs(BRIEF + box(44, 863), glances=glances)
    assert (belief.expected_x1, belief.expected_y1) == (None, None)
    assert belief.expected_x2 == pytest.approx(31.5 / 32)
    assert belief.sigma_x1 is not None


def test_engine_without_distributions_leaves_the_edges_open() -> None:
    engine = NullEngine()
    generation = engine.submit(Request(PIXELS, BRIEF, 64)).result()
    ((belief,),) = annotation_of(PLAIN, BRIEF, generation, engine.vocabulary, "none").beliefs
    assert (belief.expected_x1, belief.sigma_y2) == (None, None)
    assert belief.evidence == pytest.approx(math.exp(-0.25))


part = st.none() | st.floats(0, 1)


@given(st.fixed_dictionaries(dict.fromkeys(FLOORS, part)), st.floats(0, 1))
def test_evidence_is_a_number_from_nought_to_one_and_rises_with_each_part(
    parts: dict[str, float | None], plausibility: float
) -> None:
    found = evidence(parts, plausibility)
    if all(value is None for value in parts.values()):
        assert found is None
        return
    assert found is not None
    assert 0 <= found <= plausibility + 1e-12
    for name, value in parts.items():
        if value is not None:
            more = evidence(parts | {name: 1.0}, plausibility)
            assert more is not None
            assert more >= found - 1e-12
