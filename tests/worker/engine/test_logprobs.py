"""Every token has the model's own probability, at the place that transformers gives it."""

import math
from typing import Any

import pytest
import torch

from worker.engine import Engine

TIMEOUT_S = 60


def teacher_forced(subject: Any, request: Any, token_ids: list[int]) -> list[float]:
    """The log-probabilities of these tokens, from one pass of transformers' model over all of them."""
    found = distributions(subject, request, token_ids)
    logprobs: list[float] = found.gather(1, torch.tensor(token_ids)[:, None])[:, 0].tolist()
    return logprobs


def distributions(subject: Any, request: Any, token_ids: list[int]) -> torch.Tensor:
    """[tokens, vocabulary]: the logarithms of what the model expected where it got these tokens."""
    prompt_ids = subject.kosmos.prompt_ids(request.prompt)
    ids = torch.tensor([[*prompt_ids, *token_ids]])
    places = torch.zeros_like(ids)
    places[:, 2:66] = 1
    images = subject.processor.image_processor([request.pixels], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        logits = subject.model(pixel_values=images, input_ids=ids, image_embeds_position_mask=places).logits
    expected: torch.Tensor = logits[0, len(prompt_ids) - 1 : -1].log_softmax(-1)
    return expected


def test_logprobs_are_those_of_teacher_forcing(subject: Any) -> None:
    """Before any option forbids a token: the options of some rows here forbid many."""
    requests = [
        subject.request(seed, no_repeat_ngram_size=seed % 3, min_new_tokens=seed % 4 * 5, constrained=seed % 5 == 0)
        for seed in range(20)
    ]
    compared = 0
    for request, generation in zip(requests, subject.run(requests, slots=6), strict=True):
        assert len(generation.logprobs) == len(generation.token_ids)
        if subject.kosmos.vocabulary.pad not in generation.token_ids[:-1]:  # one pass counts pads otherwise
            expected = teacher_forced(subject, request, generation.token_ids)
            assert generation.logprobs == pytest.approx(expected, abs=1e-4)
            compared += 1
    assert compared > 10


def test_glances_are_those_of_the_location_distribution(subject: Any) -> None:
    """By the definition, cell by cell: means and entropies along both sides, and the chance of an object."""
    words, compared = subject.kosmos.vocabulary, 0
    requests = [subject.request(seed) for seed in range(6)]
    for request, generation in zip(requests, subject.run(requests, slots=4), strict=True):
        assert generation.glances.shape == (len(generation.token_ids), 5)
        if words.pad in generation.token_ids[:-1]:
            continue
        expected = distributions(subject, request, generation.token_ids)
        cells = expected[:, words.first_patch : words.first_patch + 1024].softmax(-1).double()
        for token, found, cell, logprobs in zip(generation.token_ids, generation.glances, cells, expected, strict=True):
            grid = [[float(cell[row * 32 + column]) for column in range(32)] for row in range(32)]
            rows, columns = [sum(row) for row in grid], [sum(column) for column in zip(*grid, strict=True)]
            entropies = [-sum(share * math.log(share) for share in side if share) for side in (columns, rows)]
            assert found[2:].tolist() == pytest.approx([*entropies, float(logprobs[words.object])], abs=2e-3)
            row, column = divmod(token - words.first_patch, 32)
            near = [(r, c) for r in range(32) for c in range(32) if abs(r - row) <= 2 and abs(c - column) <= 2]
            if not 0 <= token - words.first_patch < 1024:
                continue
            total = sum(grid[r][c] for r, c in near)
            means = [sum(grid[r][c] * at for r, c in near for at in [(c, r)[side]]) / total for side in (0, 1)]
            assert found[:2].tolist() == pytest.approx(means, abs=2e-3)
            compared += 1
    assert compared > 10


def test_generated_pads_take_the_zero_row_and_shift_nobody(rough: Any) -> None:
    """As `generate` has it, where a teacher-forced pass would shift all that follow."""
    pad = rough.kosmos.vocabulary.pad
    requests = [rough.request(seed, min_new_tokens=20) for seed in range(60, 78)]
    with_pads = [request for request in requests if pad in rough.expected(request).token_ids[:-3]]
    assert len(with_pads) > 2
    generations = rough.run(with_pads, slots=4)
    rough.check(with_pads, generations)
    for request, generation in zip(with_pads, generations, strict=True):
        assert generation.logprobs != pytest.approx(teacher_forced(rough, request, generation.token_ids), abs=1e-4)


@pytest.mark.parametrize("prompt", ["<pad>", "a <pad> b", "<pad><pad> end", "<grounding>An image of<pad>"])
def test_pads_in_a_prompt_take_the_zero_row_and_are_not_counted(subject: Any, prompt: str) -> None:
    requests = [subject.request(seed, words) for seed in range(3) for words in (prompt, prompt + " ring", "")]
    subject.check(requests, subject.run(requests, slots=4))


def test_positions_reach_to_the_last_one_that_the_model_has(demo: Any) -> None:
    """512 tokens, the last of them generated at the last position, with a short neighbour at its side."""
    room = demo.kosmos.max_positions - len(demo.kosmos.prompt_ids(demo.request(0).prompt))
    requests = [demo.request(1), demo.request(0, max_new_tokens=room, min_new_tokens=room), demo.request(2)]
    generations = demo.run(requests, slots=2)
    demo.check(requests, generations)
    assert len(generations[1].token_ids) == room == 441
    assert generations[1].logprobs == pytest.approx(
        teacher_forced(demo, requests[1], generations[1].token_ids), abs=1e-4
    )


def test_prompt_may_take_all_positions_but_one(rough: Any) -> None:
    room = rough.kosmos.max_positions - 1 - len(rough.kosmos.prompt_ids("a"))
    request = next(
        request
        for count in range(room + 1)
        for request in [rough.request(0, "a" + " a" * count, 1)]
        if len(rough.kosmos.prompt_ids(request.prompt)) == 511
    )
    with Engine(rough.kosmos, 2) as engine:
        generation = engine.submit(request).result(TIMEOUT_S)
    rough.check([request], [generation])
