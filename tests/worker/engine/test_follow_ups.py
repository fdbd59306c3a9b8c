"""What follows from an answer is asked at once, while the image is at hand; the request is done when all of it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from schemas.errors import EngineClosed, PermanentFailure
from tests.worker.engine.test_faults import BLACK, fail_on_black
from worker.engine import Engine
from worker.generation import Generation, Request

TIMEOUT_S = 60
NEXT = ("", "a", "a red ring", "<grounding>", "<pad>")


def followed(subject: Any, seed: int, prompts: Sequence[str] = NEXT, pixels: Any = None, **options: Any) -> Request:
    first = subject.request(seed, **options)
    image = first.pixels if pixels is None else pixels
    return replace(first, follow_up=lambda _: [Request(image, prompt, 9) for prompt in prompts])


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("refill", [0.0, 1.0])
def test_follow_ups_share_the_look_at_their_image(rough: Any, slots: int, refill: float) -> None:
    """Also with one slot, and where others wait."""
    requests = [followed(rough, seed) for seed in range(6)]
    with Engine(rough.kosmos, slots, refill=refill) as engine:
        found = [future.result(TIMEOUT_S) for future in [engine.submit(request) for request in requests]]
        assert engine.figures.images == 6
        assert engine.figures.generations == 6 * (1 + len(NEXT))
        assert (engine.figures.waiting, engine.figures.running) == (0, 0)
    rough.check(requests, found)
    for request, generation in zip(requests, found, strict=True):
        assert request.follow_up
        rough.check(list(request.follow_up(generation)), list(generation.follow_ups))


def test_follow_up_is_told_the_generation(demo: Any) -> None:
    told: list[Generation] = []

    def follow_up(generation: Generation) -> list[Request]:
        told.append(generation)
        return []

    (found,) = demo.run([replace(demo.request(1), follow_up=follow_up)])
    assert told == [found]
    assert found.follow_ups == ()


def test_slot_is_not_kept_when_nothing_follows(rough: Any) -> None:
    requests = [replace(rough.request(seed % 3), follow_up=lambda _: []) for seed in range(9)]
    found = rough.run(requests, slots=2)
    rough.check(requests, found)


def test_follow_up_may_be_about_another_image(rough: Any) -> None:
    mirrored = np.ascontiguousarray(rough.request(0).pixels[:, ::-1])
    request = followed(rough, 0, pixels=mirrored)
    with Engine(rough.kosmos, 3) as engine:
        found = engine.submit(request).result(TIMEOUT_S)
        assert engine.figures.images == 2
    assert request.follow_up
    rough.check(list(request.follow_up(found)), list(found.follow_ups))


def test_follow_ups_may_have_follow_ups(rough: Any) -> None:
    request = replace(rough.request(0), follow_up=lambda _: [followed(rough, 0), rough.request(0, "a")])
    (found,) = rough.run([request], slots=2)
    first, second = found.follow_ups
    assert first is not None
    assert second is not None
    assert len(first.follow_ups) == len(NEXT)
    assert second.follow_ups == ()


def test_follow_up_on_which_the_model_fails_leaves_the_others(rough: Any) -> None:
    first, last = rough.request(0), rough.request(0, "a", 9)
    request = replace(first, follow_up=lambda _: [Request(BLACK, "", 3), last])
    with rough.at_entrance(fail_on_black):
        (found,) = rough.run([request], slots=4)
    failed, fine = found.follow_ups
    assert failed is None
    rough.check([last], [fine])


def test_follow_up_that_raises_fails_its_request_alone(rough: Any) -> None:
    def broken(_: Generation) -> list[Request]:
        raise ZeroDivisionError("no")

    with Engine(rough.kosmos, 2) as engine:
        first = engine.submit(replace(rough.request(0), follow_up=broken))
        second = engine.submit(followed(rough, 0))
        assert isinstance(first.exception(TIMEOUT_S), PermanentFailure)
        assert len(second.result(TIMEOUT_S).follow_ups) == len(NEXT)


@pytest.mark.parametrize("prompts", [["a " * 600], ["", "a " * 600, "a"]])
def test_follow_up_that_the_model_cannot_take_leaves_the_others(rough: Any, prompts: list[str]) -> None:
    """As a phrase that just fits into its own prompt, and no more into that of a check."""
    (found,) = rough.run([followed(rough, 0, prompts)], slots=2)
    assert [answer is None for answer in found.follow_ups] == [len(prompt) > 600 for prompt in prompts]


def test_engine_that_closes_before_the_follow_ups_leaves_nobody_waiting(rough: Any, gate: Any) -> None:
    engine = Engine(rough.kosmos, 2)
    closing: list[Any] = []

    def follow_up(_: Generation) -> list[Request]:
        engine._finish_with(EngineClosed())  # as if `close` came now, in another thread
        return [rough.request(1), rough.request(2)]

    closing.append(engine.submit(replace(rough.request(0), follow_up=follow_up)))
    assert isinstance(closing[0].exception(TIMEOUT_S), EngineClosed)
    engine.close()
