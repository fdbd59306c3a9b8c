"""The choice of a token: each option does to its own rows what it says, and nothing to their neighbours."""

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from transformers import MinNewTokensLengthLogitsProcessor, NoRepeatNGramLogitsProcessor

from worker.decoding import OBJECT_TOKENS, Rows, Rules, choose
from worker.generation import Vocabulary

WORDS = Vocabulary(eos=2, pad=1, phrase=3, end_phrase=4, object=5, end_object=6, delimiter=7, first_patch=10)
SIZE = WORDS.first_patch + 1024 + 3
"""Of the vocabulary: some words come after the location tokens."""
LENGTH = 40
OBJECT, END, DELIMITER, PATCH = WORDS.object, WORDS.end_object, WORDS.delimiter, WORDS.first_patch


def rows_of(
    histories: list[list[int]], *, end: Any = LENGTH, min_end: Any = 0, ngram: Any = 0, constrained: Any = False
) -> Rows:
    """Rows with these tokens, and whatever a row before them left behind theirs."""
    count = len(histories)
    ids = torch.randint(0, SIZE, (count, LENGTH), generator=torch.Generator().manual_seed(0))
    for ids_of_row, history in zip(ids, histories, strict=True):
        ids_of_row[: len(history)] = torch.tensor(history)
    options = (
        torch.tensor(value if isinstance(value, list) else [value] * count)
        for value in (end, min_end, ngram, constrained)
    )
    return Rows(ids, torch.tensor([len(history) for history in histories]), *options)


def random_logits(seed: int, count: int) -> Tensor:
    return torch.randn(count, SIZE, generator=torch.Generator().manual_seed(seed)) * 3


def best(tokens: list[int], count: int = 1) -> Tensor:
    """Logits [count, SIZE] that like these tokens best, in this order, and words better than locations."""
    logits = torch.zeros(count, SIZE)
    logits[:, PATCH : PATCH + 1024] = -1
    logits[:, tokens] = torch.arange(len(tokens), 0, -1, dtype=torch.float32)
    return logits


def chosen(logits: Tensor, rows: Rows) -> list[int]:
    sizes = tuple(sorted(set(rows.no_repeat_ngram_size.tolist()) - {0}))
    return choose(logits, rows, Rules(sizes, bool(rows.min_end.any()), bool(rows.constrained.any())), WORDS)[0].tolist()


# ---- as transformers does it

histories = st.lists(st.integers(0, 4), min_size=2, max_size=LENGTH - 1)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(histories, st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_ngrams_and_least_lengths_are_forbidden_as_transformers_does(rows: Any, seed: int) -> None:
    """Few different tokens, so that n-grams do come again; several sizes in one batch."""
    past, sizes, least = (list(column) for column in zip(*rows, strict=True))
    logits = random_logits(seed, len(rows))
    logits[:, :5] += 12  # all of the tokens that the histories are made of come before all others
    found = chosen(logits, rows_of(past, ngram=sizes, min_end=[2 + count for count in least]))
    for row, (history, size, count) in enumerate(rows):
        ids, scores = torch.tensor([history]), logits[row : row + 1]
        if size:
            scores = NoRepeatNGramLogitsProcessor(size)(ids, scores)
        scores = MinNewTokensLengthLogitsProcessor(2, count, WORDS.eos)(ids, scores)
        assert found[row] == scores.argmax().item()


def test_ngram_that_the_row_before_left_in_the_slot_is_no_ngram() -> None:
    rows = rows_of([[8, 9, 8]], ngram=2)
    rows.ids[0, 3:6] = torch.tensor([0, 8, 0])
    assert chosen(best([0, 9]), rows) == [0]
    assert chosen(best([9, 0]), rows) == [0]


def test_ngram_longer_than_all_there_is_forbids_nothing() -> None:
    assert chosen(best([9]), rows_of([[9, 9]], ngram=LENGTH)) == [9]


def test_ngram_longer_than_a_slot_forbids_nothing() -> None:
    assert chosen(best([9]), rows_of([[9, 9]], ngram=LENGTH + 2)) == [9]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999))
def test_probability_is_the_models_own_before_anything_is_forbidden(seed: int) -> None:
    logits = random_logits(seed, 3)
    rows = rows_of([[8, 9, 8]] * 3, ngram=[0, 1, 2], min_end=9, constrained=[False, True, False])
    tokens, logprobs, _ = choose(logits.clone(), rows, Rules((1, 2), True, True), WORDS)
    expected = logits.log_softmax(-1)[torch.arange(3), tokens]
    assert logprobs.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    past=st.lists(st.sampled_from([OBJECT, END, DELIMITER, PATCH, PATCH + 99, 8]), min_size=2, max_size=6),
)
def test_row_without_options_is_not_touched_by_its_neighbours(seed: int, past: list[int]) -> None:
    logits = random_logits(seed, 4)
    rows = rows_of([past] * 4, ngram=[0, 1, 2, 0], min_end=[0, 0, 0, LENGTH], constrained=[False, True, True, True])
    assert chosen(logits, rows)[0] == logits[0].argmax()


# ---- well-formed boxes


def cells(tokens: list[int]) -> list[int | None]:
    return [token - PATCH if PATCH <= token < PATCH + 1024 else None for token in tokens]


def check_well_formed(tokens: list[int]) -> None:
    """`<object>`, pairs with delimiters between them, `</object>`, whole; none of these anywhere else."""
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        assert token not in (END, DELIMITER)
        assert cells([token]) == [None]
        while token in (OBJECT, DELIMITER):
            first, second = cells([rest.pop(0), rest.pop(0)])
            assert first is not None
            assert second is not None
            assert second % 32 >= first % 32
            assert second // 32 >= first // 32
            token = rest.pop(0)
            assert token in (END, DELIMITER)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    limits=st.lists(st.integers(1, 24), min_size=1, max_size=8),
    ngram=st.lists(st.integers(0, 3), min_size=8, max_size=8),
    least=st.integers(0, 30),
)
def test_whatever_the_model_would_say_boxes_are_well_formed_and_whole(
    seed: int, limits: Any, ngram: Any, least: int
) -> None:
    """A simulated decode over random logits that like objects, locations and the end. Odd rows are not constrained."""
    generator = torch.Generator().manual_seed(seed)
    count, limits = 2 * len(limits), [limit for limit in limits for _ in range(2)]
    past = [[8, 9] for _ in limits]
    free = [[8, 9] for _ in limits]
    for _ in range(max(limits)):
        logits = torch.randn(count, SIZE, generator=generator) * 3
        logits[:, [OBJECT, END, DELIMITER, WORDS.eos]] += 6
        options = {"end": [2 + limit for limit in limits], "ngram": (ngram * 2)[:count], "min_end": least}
        found = chosen(logits, rows_of(past, constrained=[row % 2 == 0 for row in range(count)], **options))
        alone = chosen(logits, rows_of(free, **options))
        for row in range(count):
            if len(past[row]) < 2 + limits[row] and past[row][-1] != WORDS.eos:
                past[row].append(found[row])
            if len(free[row]) < 2 + limits[row] and free[row][-1] != WORDS.eos:
                free[row].append(alone[row])
    for row in range(0, count, 2):
        check_well_formed(past[row][2:])
    assert past[1::2] == free[1::2]


@pytest.mark.parametrize("left", range(1, 8))
def test_object_begins_only_where_the_limit_leaves_room_for_all_of_it(left: int) -> None:
    rows = rows_of([[8, 9]], end=2 + left, constrained=True)
    assert chosen(best([OBJECT, 8]), rows) == [OBJECT if left >= OBJECT_TOKENS else 8]


@pytest.mark.parametrize("left", range(1, 8))
def test_another_box_begins_only_where_the_limit_leaves_room_for_all_of_it(left: int) -> None:
    rows = rows_of([[OBJECT, PATCH, PATCH]], end=3 + left, constrained=True)
    assert chosen(best([DELIMITER, END]), rows) == [DELIMITER if left >= OBJECT_TOKENS else END]


@pytest.mark.parametrize(
    ("first", "liked", "taken"),
    [
        (33, [32, 1, 33], 33),
        (33, [0, 34], 34),
        (33, [64, 65], 65),
        (1023, [0, 991, 1022], 1023),
        (0, [31], 31),
        (31, [32, 63], 63),
    ],
)
def test_lower_right_corner_is_neither_left_of_nor_above_the_upper_left_one(first: int, liked: Any, taken: int) -> None:
    logits = best([8, *(PATCH + cell for cell in liked)])
    logits[0, PATCH + taken] = max(logits[0, PATCH + taken], 0.5)
    assert chosen(logits, rows_of([[OBJECT, PATCH + first]], constrained=True)) == [PATCH + taken]


@pytest.mark.parametrize("forced", ["ngram", "min_end"])
def test_inside_an_object_only_the_constraint_holds(forced: str) -> None:
    """A location, or the end of an object, that came before must not be forbidden: there would be no way out."""
    past = [OBJECT, PATCH, PATCH, END, OBJECT, PATCH, PATCH]
    rows = rows_of([past], constrained=True, **{forced: 1 if forced == "ngram" else LENGTH})
    assert chosen(best([8, END]), rows) == [END]


def test_nothing_but_a_location_comes_after_the_opening_tag() -> None:
    everything_else = [token for token in range(SIZE) if not PATCH <= token < PATCH + 1024]
    for past in ([8, OBJECT], [OBJECT, PATCH], [PATCH, PATCH, DELIMITER]):
        [token] = chosen(best(everything_else), rows_of([past], constrained=True))
        assert PATCH <= token < PATCH + 1024
