"""Decoding options in a whole engine, side by side with rows that have none."""

from dataclasses import replace
from typing import Any

import pytest

from schemas.grounding import parse

PROMPTS = ("<grounding>An image of", "", "<grounding><phrase>a ring</phrase><object>")


@pytest.fixture(scope="module")
def constrained(rough: Any) -> list[Any]:
    """With n-gram sizes, least lengths, and limits that would cut many an object."""
    return [
        rough.request(
            seed,
            PROMPTS[seed % 3],
            6 + seed % 19,
            constrained=True,
            no_repeat_ngram_size=(0, 0, 2, 3)[seed % 4],
            min_new_tokens=(0, 6)[seed % 2],
        )
        for seed in range(36)
    ]


def test_constrained_rows_have_valid_boxes_only_and_their_neighbours_what_they_have_alone(
    rough: Any, constrained: list[Any]
) -> None:
    free = [replace(request, constrained=False) for request in constrained]
    mixed = [request for pair in zip(constrained, free, strict=True) for request in pair]
    generations = rough.run(mixed, slots=7)
    rough.check(free, generations[1::2])
    boxes, words = [], rough.kosmos.vocabulary
    for generation in generations[::2]:
        entities = parse(generation.raw_text).entities
        found = [box for entity in entities for box in entity.boxes]
        assert all(box.valid for box in found)
        ids = generation.token_ids
        locations = [token for token in ids if words.first_patch <= token < words.first_patch + 1024]
        assert len(locations) == 2 * len(found)
        opened = generation.raw_text.count("<object>")
        assert generation.raw_text.count("</object>") == opened
        boxes += found
    assert len(boxes) > 15
    assert any(
        not box.valid for each in generations[1::2] for entity in parse(each.raw_text).entities for box in entity.boxes
    )


def test_constraint_changes_nothing_where_all_boxes_are_well_formed_anyhow(demo: Any) -> None:
    """The demo model makes no mistakes of that kind in whole captions."""
    requests = [demo.request(seed, max_new_tokens=60) for seed in range(16)]
    demo.check(requests, demo.run([replace(request, constrained=True) for request in requests], slots=5))


def test_constrained_rows_are_the_same_in_any_company(rough: Any, constrained: list[Any]) -> None:
    first = rough.run(constrained, slots=1)
    second = rough.run(constrained[::-1], slots=9, sync_every=7)[::-1]
    assert [one.token_ids for one in first] == [one.token_ids for one in second]


@pytest.mark.parametrize("least", [1, 12, 24])
def test_row_does_not_end_before_its_least_length(rough: Any, least: int) -> None:
    requests = [rough.request(seed, min_new_tokens=least) for seed in range(10)]
    generations = rough.run(requests, slots=5)
    rough.check(requests, generations)
    assert min(len(generation.token_ids) for generation in generations) >= least


def test_ngram_size_beyond_all_lengths_forbids_nothing(rough: Any) -> None:
    requests = [rough.request(seed, no_repeat_ngram_size=1000) for seed in range(2)]
    rough.check(requests, rough.run(requests))
