"""Every task of the model, and every check of an answer, is answered in the engine as the model answers it alone."""

from typing import Any

import pytest

from schemas.recipes import TASKS, Recipe
from schemas.verification import ABSENT_DRAWINGS, MIRROR
from tests.worker.engine.test_logprobs import teacher_forced
from worker.flow import request_of

VALUES = {
    "phrase": "a red circle",
    "expression": "the circle left of the ring",
    "region": "0.1,0.2,0.7,0.9",
    "question": "Which shape is red?",
    "plain_question": "How many shapes are there?",
    "prompt": "<grounding>The largest shape is",
}
TEMPLATES = TASKS | {"custom": "{prompt}"}


def recipe(task: str, **more: Any) -> Recipe:
    prompt = TEMPLATES[task]
    field = next((name for name in VALUES if f"{{{name}}}" in prompt), "")
    about = {"model": "m", "revision": "r", "dtype": "float32", "max_new_tokens": 24}
    return Recipe(task=task, prompt=prompt, input=field, **about, **more)


def test_every_task_at_once_is_answered_as_alone(subject: Any) -> None:
    """By the demo model, which has learnt most of them, and by a random one, with one look at each image."""
    requests = []
    for seed in range(3):
        for task in TEMPLATES:
            one = recipe(task)
            prompt = one.fill(VALUES.get(one.input, ""), (224, 224))
            requests.append(request_of(one, prompt, subject.picture(seed)))
    subject.check(requests, subject.run(requests, slots=5))


@pytest.mark.parametrize("slots", [2, 7])
def test_checks_are_answered_as_alone(demo: Any, slots: int) -> None:
    """Those that generate have the tokens of `generate`, names the probabilities of teacher forcing."""
    one = recipe("brief", verify=MIRROR, absent=ABSENT_DRAWINGS)
    requests = [request_of(one, one.prompt, demo.picture(seed)) for seed in range(6)]
    names = 0
    for request, generation in zip(requests, demo.run(requests, slots=slots), strict=True):
        assert request.follow_up
        checks = request.follow_up(generation)
        assert len(checks) == len(generation.follow_ups) > 3
        for check, answer in zip(checks, generation.follow_ups, strict=True):
            if check.answer:
                expected = teacher_forced(demo, check, answer.token_ids)
                assert answer.logprobs == pytest.approx(expected, abs=1e-4)
                names += 1
            else:
                demo.check([check], [answer])
    assert names > 5
