"""The engine without a model: what it says is what a real one could have said."""

import numpy as np
import pytest

from schemas.grounding import parse
from schemas.verification import MIRROR, PHRASES, Manner
from tests.worker.test_verification import recipe
from worker.annotation import annotation_of
from worker.flow import request_of
from worker.generation import Request
from worker.null_engine import NullEngine

PIXELS = np.zeros((224, 224, 3), np.uint8)


def test_null_engine_answers_at_once_with_a_grounded_snowman() -> None:
    with NullEngine() as engine:
        generation = engine.submit(Request(PIXELS, "anything", 64)).result(0)
        assert (engine.figures.generations, engine.figures.images, engine.figures.waiting) == (1, 1, 0)
        words = engine.vocabulary
    cells = [token - words.first_patch for token in generation.token_ids if token >= words.first_patch]
    assert cells == [44, 863]
    assert generation.token_ids[-1] == words.eos
    assert len(generation.logprobs) == len(generation.token_ids)
    assert generation.finish_reason == "stop"
    [entity] = parse(generation.raw_text).entities
    assert (entity.phrase, entity.start, entity.end) == ("a snowman", 12, 21)
    [box] = entity.boxes
    assert (box.x1, box.y1, box.x2, box.y2) == pytest.approx((0.390625, 0.046875, 0.984375, 0.828125))


@pytest.mark.parametrize("verify", [PHRASES, MIRROR])
def test_null_engine_leaves_all_checks_open(verify: Manner) -> None:
    of = recipe(verify)
    with NullEngine() as engine:
        generation = engine.submit(request_of(of, of.prompt, PIXELS)).result(0)
        ((belief,),) = annotation_of(of, of.prompt, generation, engine.vocabulary, "none").beliefs
    assert (belief.presence, belief.agreement, belief.mirror_agreement, belief.naming) == (None,) * 4
    assert belief.evidence == pytest.approx(np.exp(-0.25))
