"""An answer that is given is not generated: it gets the probabilities that the model has for it."""

from typing import Any

import pytest

from tests.worker.engine.test_logprobs import teacher_forced
from worker.engine import Engine
from worker.generation import Request

TIMEOUT_S = 60
REGION = "<grounding><phrase>It</phrase><object><patch_index_0044><patch_index_0863></object> is"
ANSWERS = ("a red ring", "ring", "a blue circle and a red ring. </s>", "<pad> a", "<object><patch_index_0007>")


def given(subject: Any, seed: int, answer: str, prompt: str = REGION) -> Request:
    return subject.request(seed, prompt, 5, answer=answer)


def test_given_answers_have_the_probabilities_of_teacher_forcing(subject: Any) -> None:
    """Beside rows that are generated, some of which have the same image."""
    requests = [given(subject, seed, answer) for seed in range(4) for answer in ANSWERS if "<pad>" not in answer]
    others = [subject.request(seed) for seed in range(8)]
    mixed = [one for pair in zip(others * 2, requests, strict=True) for one in pair]
    found = subject.run(mixed, slots=5, sync_every=2)
    subject.check(others * 2, found[::2])
    for request, generation in zip(requests, found[1::2], strict=True):
        whole = subject.kosmos.prompt_ids(f"{request.prompt} {request.answer}")
        assert [*subject.kosmos.prompt_ids(request.prompt), *generation.token_ids] == whole
        expected = teacher_forced(subject, request, generation.token_ids)
        assert generation.logprobs == pytest.approx(expected, abs=1e-4)


def test_pads_in_a_given_answer_take_the_zero_row_as_in_a_prompt(demo: Any) -> None:
    alone, beside = demo.run([given(demo, 0, "<pad> a")] * 2, slots=2)
    assert alone.logprobs == pytest.approx(beside.logprobs, abs=1e-5)
    assert len(alone.token_ids) == 2


def test_text_of_a_given_answer_is_prompt_and_answer(demo: Any) -> None:
    (generation,) = demo.run([given(demo, 0, "a red ring")])
    assert generation.raw_text.removeprefix(" ").endswith("</object> is a red ring")
    assert generation.finish_reason == "length"


def test_given_answer_takes_no_decode_step(demo: Any) -> None:
    with Engine(demo.kosmos, 4, sync_every=1) as engine:
        futures = [engine.submit(given(demo, 0, answer)) for answer in ANSWERS]
        for future in futures:
            future.result(TIMEOUT_S)
        assert engine.figures.images == 1
        assert engine.figures.steps == 0


def test_slot_is_long_enough_for_a_given_answer(demo: Any) -> None:
    """Longer than a slot is at first, and one that has more tokens than the model has positions."""
    long, too_long = given(demo, 0, "ring " * 200), given(demo, 0, "ring " * 500)
    with Engine(demo.kosmos, 2) as engine:
        first, second = engine.submit(long), engine.submit(too_long)
        assert len(first.result(TIMEOUT_S).token_ids) == 200
        assert "positions" in str(second.exception(TIMEOUT_S))
