"""Whoever asks, in whatever company: the tokens are those of `generate` on each image alone, with its probabilities."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from worker.engine import SLOT_TOKENS, Engine
from worker.model import load_model
from worker.revision import resolve

TIMEOUT_S = 60
LAYOUTS = [
    {"slots": 1, "sync_every": 1, "refill": 0},
    {"slots": 3, "sync_every": 8, "refill": 0.5},
    {"slots": 8, "sync_every": 3, "refill": 1},
    {"slots": 32, "sync_every": 4},
]


@pytest.fixture(scope="module")
def requests(rough: Any) -> list[Any]:
    return rough.pool(count=80, images=32)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_tokens_are_those_of_generate_on_each_image_alone(rough: Any, requests: list[Any], layout: Any) -> None:
    shuffled = random.Random(str(layout)).sample(requests, len(requests))
    rough.check(shuffled, rough.run(shuffled, **layout))


@pytest.mark.parametrize("layout", LAYOUTS[1:3], ids=str)
def test_demo_model_says_what_it_says_by_generate(demo: Any, layout: Any) -> None:
    requests = demo.pool(count=32, images=16)
    demo.check(requests, demo.run(requests, **layout))


def test_those_requests_are_of_every_kind(rough: Any, requests: list[Any]) -> None:
    """Or the tests above would promise more than they try."""
    pad, answers = rough.kosmos.vocabulary.pad, [rough.expected(request).token_ids for request in requests]
    assert len({len(answer) for answer in answers}) > 15
    assert sum(len(answer) == 1 for answer in answers) > 2
    assert sum(len(answer) == 24 for answer in answers) > 2
    assert sum(pad in answer[:-1] for answer in answers) > 2
    assert len({tuple(answer) for answer in answers}) > 60
    assert len({len(rough.kosmos.prompt_ids(request.prompt)) for request in requests}) > 4


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_mix_in_any_layout_is_exact(rough: Any, requests: list[Any], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.tuples(st.sampled_from(requests), st.integers(1, 24)), min_size=1, max_size=16))
    mix = [replace(request, max_new_tokens=limit) for request, limit in chosen]
    layout = {
        "slots": data.draw(st.integers(1, 9)),
        "sync_every": data.draw(st.integers(1, 30)),
        "refill": data.draw(st.floats(0, 1)),
    }
    rough.check(mix, rough.run(mix, **layout))


@pytest.mark.parametrize("count", [1, 3, 4, 8])
def test_fewer_images_than_slots_and_exact_multiples(rough: Any, count: int) -> None:
    requests = [rough.request(seed) for seed in range(count)]
    rough.check(requests, rough.run(requests, slots=4))


def test_limits_from_one_up(rough: Any) -> None:
    """Rows of one image that are cut at every length, and end where they end."""
    request = max((rough.request(seed) for seed in range(8)), key=lambda one: len(rough.expected(one).token_ids))
    requests = [replace(request, max_new_tokens=limit) for limit in range(1, 25)]
    generations = rough.run(requests, slots=5)
    rough.check(requests, generations)
    whole = rough.expected(request).token_ids
    for limit, generation in enumerate(generations, 1):
        assert len(generation.token_ids) == min(limit, len(whole))
        ended = generation.token_ids[-1] == rough.kosmos.vocabulary.eos
        assert generation.finish_reason == ("stop" if ended else "length")


def test_row_longer_than_the_slots_is_exact_and_so_are_its_neighbours(rough: Any) -> None:
    """It finds others at work, and slots that are too short for it."""
    long = rough.request(3, "a red circle and a blue ring " * 25, 40)
    assert len(rough.kosmos.prompt_ids(long.prompt)) > SLOT_TOKENS
    requests = [*(rough.request(seed) for seed in range(6)), long, *(rough.request(seed) for seed in range(3, 9))]
    rough.check(requests, rough.run(requests, slots=4))


def test_many_threads_get_their_own_answers(rough: Any, requests: list[Any]) -> None:
    with Engine(rough.kosmos, 5) as engine, ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda request: engine.submit(request).result(TIMEOUT_S), requests[:48]))
    rough.check(requests[:48], answers)


def test_requests_that_trickle_in_are_exact(rough: Any, requests: list[Any]) -> None:
    """Each comes when the one before it has ended, while others run: rows of every age stand side by side."""
    with Engine(rough.kosmos, 4, sync_every=1) as engine:
        futures = [engine.submit(request) for request in requests[:6]]
        for index in range(6, 40):
            futures[index - 6].result(TIMEOUT_S)
            futures.append(engine.submit(requests[index]))
        answers = [future.result(TIMEOUT_S) for future in futures]
    rough.check(requests[:40], answers)


def test_raw_text_is_prompt_and_answer_with_their_tags(demo: Any) -> None:
    request = demo.request(0, max_new_tokens=48)
    [generation] = demo.run([request])
    whole = [*demo.kosmos.prompt_ids(request.prompt), *generation.token_ids]
    [text] = demo.processor.batch_decode([whole], skip_special_tokens=True)
    assert generation.raw_text == text.split("</image>")[-1]
    assert generation.raw_text.startswith("<grounding> An image of<phrase>")
    assert (generation.finish_reason, generation.token_ids[-1]) == ("stop", demo.kosmos.vocabulary.eos)


def test_engine_runs_in_bfloat16(demo: Any) -> None:
    kosmos = load_model(resolve("demo", dtype="bfloat16"), "cpu")
    with Engine(kosmos, 2) as engine:
        generations = [engine.submit(demo.request(seed)) for seed in range(3)]
        assert all("<object><patch_index_" in future.result(TIMEOUT_S).raw_text for future in generations)


def test_transformers_own_forward_is_the_same_beside_an_engine(demo: Any) -> None:
    """The engine fuses the weights of attention, in place. Where they lie may decide the last bits of a product."""
    ids = demo.processor(text="", images=None, return_tensors="pt")["input_ids"]
    with Engine(demo.kosmos, 2):
        ours, theirs = (model.text_model(input_ids=ids).logits for model in (demo.kosmos.model, demo.model))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
