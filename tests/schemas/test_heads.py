"""What a phrase is about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.heads import forms_of, head_of, singular


@pytest.mark.parametrize(
    ("phrase", "head"),
    [
        ("dog", "dog"),
        ("The brown dogs", "dog"),
        ("two small brown dogs on the beach", "dog"),
        ("man wearing a hat", "man"),
        ("a group of people", "person"),
        ("a couple of young men in the street", "man"),
        ("a pair of glasses", "glass"),
        ("a glass of wine", "glass"),
        ("women's shoes", "shoe"),
        ("living room", "room"),
        ("buses", "bus"),
        ("cookies", "cookie"),
        ("berries", "berry"),
        ("benches", "bench"),
        ("an ice-cream, half eaten", "eaten"),
        ("the grass", "grass"),
        ("on top", "top"),
        ("… 3 ½", "½"),
        ("", ""),
        ("!?", ""),
    ],
)
def test_head_is_the_noun_in_the_singular(phrase: str, head: str) -> None:
    assert head_of(phrase) == head


@given(st.text(max_size=80))
def test_any_text_has_a_head_that_is_its_own(phrase: str) -> None:
    """What is typed goes through the same rules as what is stored."""
    assert head_of(phrase) == head_of(phrase.lower())
    assert len(head_of(phrase)) <= len(phrase.lower()) + 1


@pytest.mark.parametrize("word", ["person", "dog", "box", "berry", "fireman", "leaf", "bus", "glass", "s"])
def test_forms_are_the_words_that_come_to_the_same(word: str) -> None:
    assert word in forms_of(word)
    assert {singular(form) for form in forms_of(word)} == {word}


@pytest.mark.parametrize("plural", ["people", "dogs", "boxes", "berries", "firemen", "leaves", "buses", "glasses"])
def test_a_plural_is_a_form_of_its_singular(plural: str) -> None:
    assert plural in forms_of(singular(plural))
