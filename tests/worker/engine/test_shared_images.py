"""Several prompts for one image: the vision tower looks at it once."""

from typing import Any

import numpy as np
import pytest

from worker.engine import Engine

TIMEOUT_S = 60
PROMPTS = ["", "<grounding>An image of", "a", "a red ring", "<grounding>", "<pad>"]


@pytest.mark.parametrize("slots", [1, 2, 4, 6, 9])
def test_prompts_of_one_image_share_its_vision_pass(rough: Any, slots: int) -> None:
    """Also where there are more of them than slots."""
    requests = [rough.request(seed, prompt) for seed in range(4) for prompt in PROMPTS]
    with Engine(rough.kosmos, slots) as engine:
        generations = [future.result(TIMEOUT_S) for future in [engine.submit(request) for request in requests]]
        assert engine.figures.images == 4
    rough.check(requests, generations)


def test_prompt_that_comes_while_another_of_its_image_runs_is_a_copy(rough: Any, gate: Any) -> None:
    first = rough.request(0, min_new_tokens=20)
    later = [rough.request(0, prompt) for prompt in PROMPTS]
    with rough.at_entrance(gate), Engine(rough.kosmos, 8, sync_every=1) as engine:
        futures = [engine.submit(first)]
        assert gate.entered.wait(TIMEOUT_S)
        futures += [engine.submit(request) for request in later]
        gate.opened.set()
        generations = [future.result(TIMEOUT_S) for future in futures]
        assert engine.figures.images == 1
    rough.check([first, *later], generations)


def test_prompts_of_many_images_in_turn_share_them_while_slots_last(rough: Any) -> None:
    """By prompt and not by image: each image comes back after all others."""
    requests = [rough.request(seed, prompt) for prompt in PROMPTS for seed in range(5)]
    with Engine(rough.kosmos, 5, sync_every=1, refill=0) as engine:
        generations = [future.result(TIMEOUT_S) for future in [engine.submit(request) for request in requests]]
        assert 5 <= engine.figures.images < 30
    rough.check(requests, generations)


def test_equal_images_in_other_arrays_are_other_images(rough: Any) -> None:
    """And an array that takes the place of one that is gone is not taken for it."""
    with Engine(rough.kosmos, 2) as engine:
        for seed in range(6):
            request = rough.request(seed)
            twin = type(request)(np.array(request.pixels), request.prompt, request.max_new_tokens)
            assert engine.submit(twin).result(TIMEOUT_S).token_ids == rough.expected(request).token_ids
            del twin
        assert engine.figures.images == 6


def test_figures_count_what_was_done(rough: Any) -> None:
    requests = [rough.request(seed % 5, max_new_tokens=9) for seed in range(10)]
    with Engine(rough.kosmos, 3, sync_every=2) as engine:
        generations = [future.result(TIMEOUT_S) for future in [engine.submit(request) for request in requests]]
        figures = engine.figures
    assert figures.generations == 10
    assert figures.tokens == sum(len(generation.token_ids) for generation in generations)
    assert figures.steps % 2 == 0
    assert figures.steps >= max(len(generation.token_ids) for generation in generations) - 1
    assert (figures.waiting, figures.running, figures.slots) == (0, 0, 3)
    assert figures.busy_s > 0
