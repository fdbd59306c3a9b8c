"""Scores: each box meets its own two location tokens, each phrase the tokens of its words, and no others."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.grounding import parse
from schemas.results import EntityScores
from worker.generation import Vocabulary
from worker.scoring import Scores, score

VOCABULARY = Vocabulary(
    eos=2, pad=1, phrase=10, end_phrase=11, object=12, end_object=13, delimiter=14, first_patch=1000
)
TAGS = {
    1: "",
    2: "",
    10: "<phrase>",
    11: "</phrase>",
    12: "<object>",
    13: "</object>",
    14: "</delimiter_of_multi_objects/>",
    20: " ",
    21: "<grounding>",
}
WORDS = ["a", "snowman", "fire", "It", "is"]
IDS = {text: token_id for token_id, text in TAGS.items() if text} | {word: 100 + n for n, word in enumerate(WORDS)}


@dataclass
class Tokens:
    token_ids: list[int]
    logprobs: list[float]


def ids_of(words: str) -> list[int]:
    """`"<phrase> snowman </phrase> <object> 44 863 </object>"` as tokens; numbers are cells, `_` is a space."""
    return [1000 + int(word) if word.isdecimal() else 20 if word == "_" else IDS[word] for word in words.split()]


def text_of(ids: list[int]) -> str:
    """The raw text as a tokenizer would decode it."""
    cells = {1000 + cell: f"<patch_index_{cell:04}>" for cell in range(1024)}
    words = {100 + number: f" {word}" for number, word in enumerate(WORDS)}
    return "".join((cells | words | TAGS)[token_id] for token_id in ids)


def scores_of(generated: str, logprobs: list[float] | None = None, *, prompt: str = "") -> list[EntityScores]:
    """The scores of a generation; token n, counted from 0, has the log-probability -n unless told."""
    ids = ids_of(generated)
    tokens = Tokens(ids, logprobs or [-float(place) for place in range(len(ids))])
    return list(score(parse(text_of(ids_of(prompt) + ids)), tokens, VOCABULARY).entities)


def mean(*places: int) -> float:
    """The score of tokens at these places, when each has the log-probability -place."""
    return pytest.approx(math.exp(-sum(places) / len(places)))  # type: ignore[return-value]


def test_box_and_phrase_have_the_geometric_means_of_their_tokens() -> None:
    probabilities = [0.9, 0.5, 0.125, 0.8, 0.7, 0.5, 0.02, 0.6]
    (one,) = scores_of(
        "<phrase> a snowman </phrase> <object> 44 863 </object>", [math.log(share) for share in probabilities]
    )
    assert one.phrase == pytest.approx(math.sqrt(0.5 * 0.125))
    assert one.boxes == (pytest.approx(math.sqrt(0.5 * 0.02)),)
    assert one.boxes[0] ** 2 == pytest.approx(0.5 * 0.02)  # type: ignore[operator]


def test_mean_is_that_of_all_tokens() -> None:
    tokens = Tokens(ids_of("It is a"), [-1.0, -2.0, -6.0])
    assert score(parse("It is a"), tokens, VOCABULARY) == Scores((), -3.0)


def test_nothing_generated_has_no_scores() -> None:
    assert score(parse("It is"), Tokens([], []), VOCABULARY) == Scores((), None)


@pytest.mark.parametrize(
    ("generated", "phrase", "boxes"),
    [
        ("<phrase> a </phrase> <object> 44 863 </object>", (1,), [(4, 5)]),
        ("It <phrase> a fire </phrase> <object> 44 863 </object> is", (2, 3), [(6, 7)]),
        ("<phrase> a </phrase> <object> 1 70 </delimiter_of_multi_objects/> 44 863 </object>", (1,), [(4, 5), (7, 8)]),
        ("<phrase> a </phrase> _ <object> _ 44 863 </object>", (1,), [(6, 7)]),
        # what the model may leave out
        ("<phrase> a fire <object> 44 863 </object>", (1, 2), [(4, 5)]),
        ("<phrase> a </phrase> <object> 44 863", (1,), [(4, 5)]),
        # odd tokens before the first whole box
        ("<phrase> a </phrase> <object> 9 </delimiter_of_multi_objects/> 44 863 </object>", (1,), [(6, 7)]),
        ("<phrase> a </phrase> <object> </delimiter_of_multi_objects/> 44 863 9 </object>", (1,), [(5, 6)]),
        # no phrase
        ("<object> 44 863 </object>", None, [(1, 2)]),
        ("It is <object> 44 863 </object>", None, [(3, 4)]),
        ("<phrase> </phrase> <object> 44 863 </object>", None, [(3, 4)]),
        ("<phrase> _ </phrase> <object> 44 863 </object>", None, [(4, 5)]),
        ("<phrase> a </phrase> is <object> 44 863 </object>", None, [(5, 6)]),
        ("a </phrase> <object> 44 863 </object>", None, [(3, 4)]),
        ("<phrase> a 9 fire </phrase> <object> 44 863 </object>", None, [(6, 7)]),
        ("<phrase> <grounding> a </phrase> <object> 44 863 </object>", None, [(5, 6)]),
        # a phrase that is begun twice has the words of the second time
        ("<phrase> a <phrase> fire </phrase> <object> 44 863 </object>", (3,), [(6, 7)]),
    ],
)
def test_phrase_and_boxes_are_found(
    generated: str, phrase: tuple[int, ...] | None, boxes: list[tuple[int, int]]
) -> None:
    (one,) = scores_of(generated)
    assert one.phrase == (None if phrase is None else mean(*phrase))
    assert list(one.boxes) == [mean(*pair) for pair in boxes]


def test_each_entity_has_its_own_phrase() -> None:
    first, second, third = scores_of(
        "<phrase> a </phrase> <object> 44 863 </object> <object> 9 99 </object> <phrase> a fire </phrase> <object> 1 70"
    )
    assert first == (mean(1), (mean(4, 5),))
    assert second == (None, (mean(8, 9),))
    assert third == (mean(12, 13), (mean(16, 17),))


WHOLE = "<phrase> a fire </phrase> <object> 5 911 </object>"


@pytest.mark.parametrize("given_tokens", range(8))
def test_phrase_that_the_prompt_gave_or_began_has_no_score(given_tokens: int) -> None:
    """Given a prompt that ends somewhere in an entity, when the rest is scored, then only what came whole counts."""
    words = WHOLE.split()
    (one,) = scores_of(" ".join(words[given_tokens:]), prompt=" ".join(words[:given_tokens]))
    assert (one.phrase is not None) == (given_tokens == 0)
    assert (one.boxes[0] is not None) == (given_tokens <= 5)


def test_box_of_the_prompt_has_no_score_and_shifts_no_other() -> None:
    given_one, generated_one = scores_of(
        "is <phrase> a fire </phrase> <object> 5 911 </object>",
        prompt="<grounding> <phrase> It </phrase> <object> 1 70 </object>",
    )
    assert given_one == (None, (None,))
    assert generated_one == (mean(2, 3), (mean(6, 7),))


def test_prompt_that_ends_with_a_phrase_leaves_its_box_to_the_model() -> None:
    (one,) = scores_of("<object> 44 863 </object>", prompt="<grounding> <phrase> a fire </phrase>")
    assert one == (None, (mean(1, 2),))


def test_text_that_is_not_of_these_tokens_gets_no_score() -> None:
    tokens = Tokens(ids_of("<phrase> a </phrase> <object> 1 2 </object>"), [-0.1] * 7)
    said = parse(text_of(ids_of("<phrase> a </phrase> <object> 44 863 </object>")))
    assert score(said, tokens, VOCABULARY).entities == (EntityScores(None, (None,)),)


def test_impossible_token_makes_0_and_a_rounding_error_at_most_1() -> None:
    (never,) = scores_of(WHOLE, [-math.inf] * 8)
    assert never == (0.0, (0.0,))
    (sure,) = scores_of(WHOLE, [1e-7] * 8)
    assert sure == (1.0, (1.0,))


tokens_of_any_kind = st.one_of(
    st.sampled_from([*TAGS, *range(100, 105)]), st.sampled_from([10, 11, 12, 13]), st.integers(1000, 1023)
)
logprob = st.floats(-50, 0) | st.just(-math.inf)


@given(st.lists(st.tuples(tokens_of_any_kind, logprob), max_size=40), st.integers(0, 40))
def test_any_tokens_have_scores_between_0_and_1(tokens: list[tuple[int, float]], given_tokens: int) -> None:
    """Given tokens of which the prompt has the first, when scored, then nothing raises and every score is a mean."""
    ids, logprobs = [token_id for token_id, _ in tokens], [value for _, value in tokens]
    grounding = parse(text_of(ids))
    scores = score(grounding, Tokens(ids[given_tokens:], logprobs[given_tokens:]), VOCABULARY)
    for entity, one in zip(grounding.entities, scores.entities, strict=True):
        assert one.phrase is None or (entity.phrase and 0 <= one.phrase <= 1)
        assert len(one.boxes) == len(entity.boxes)
        assert all(0 <= box <= 1 for box in one.boxes if box is not None)
    if not given_tokens:
        assert all(
            (one.phrase is not None) == bool(e.phrase)
            for e, one in zip(grounding.entities, scores.entities, strict=True)
        )
        assert all(box is not None for one in scores.entities for box in one.boxes)


@given(st.lists(st.integers(0, 2000), max_size=30), st.text(max_size=60), st.integers(0, 30))
def test_any_text_with_any_tokens_has_scores(ids: list[int], words: str, cut: int) -> None:
    raw_text = words[:cut] + text_of(ids_of(WHOLE)) + words[cut:]
    score(parse(raw_text), Tokens(ids, [-1.0] * len(ids)), VOCABULARY)
