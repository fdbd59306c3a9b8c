"""When two answers of a model are the same, and what is said where they are not."""

from math import log
from typing import Any

import pytest

from schemas.ledger.canaries import Canary
from worker.drift import CUT, FLOAT32, MANY, SIXTEEN_BITS, Failed, Tolerance, difference, is_near_tie, tolerance_for

RED = "<grounding> An image of<phrase> a red ring</phrase><object><patch_index_0264><patch_index_0727></object>."
BLUE = RED.replace("red", "blue")
BOTH = pytest.mark.parametrize("tolerance", [FLOAT32, SIXTEEN_BITS], ids=["float32", "16 bits"])


def said(*tokens: tuple[int, float], text: str = RED, runtime: str = "cpu float32") -> Canary:
    """An answer of these tokens with their probabilities."""
    return Canary(2, [token for token, _ in tokens], [log(p) for _, p in tokens], text, runtime)


def now(*tokens: tuple[int, float], **others: Any) -> Canary:
    return said(*tokens, **({"runtime": "cuda bfloat16"} | others))


@BOTH
def test_same_answer_is_no_drift(tolerance: Tolerance) -> None:
    assert difference(said((7, 0.9), (8, 0.1), (2, 1.0)), now((7, 0.9), (8, 0.1), (2, 1.0)), tolerance) == ""


def test_16_bits_may_move_a_probability_that_float32_may_not() -> None:
    then, here = said((7, 0.50), (2, 1.0)), now((7, 0.54), (2, 1.0))
    assert difference(then, here, SIXTEEN_BITS) == ""
    found = difference(then, here, FLOAT32)
    assert found == f'token 1 of "{RED[:CUT]}…" has probability 0.54 (cuda bfloat16) and had 0.5 (cpu float32)'


def test_probability_that_is_another_altogether_is_a_drift_in_16_bits_too() -> None:
    found = difference(said((7, 0.9), (8, 0.8), (2, 1.0)), now((7, 0.9), (8, 0.4), (2, 1.0)), SIXTEEN_BITS)
    assert found.startswith("token 2 of ")
    assert "has probability 0.4 (cuda bfloat16) and had 0.8 (cpu float32)" in found


def test_many_probabilities_that_are_each_a_little_off_are_a_drift() -> None:
    """Given tokens that are all off by a fifth, then a few of them may be chance, and many are not."""
    few, many = ([(7, p)] * (MANY - 1) for p in (0.5, 0.6)), ([(7, p)] * MANY for p in (0.5, 0.6))
    one, other = few
    assert difference(said(*one), now(*other), SIXTEEN_BITS) == ""
    one, other = many
    found = difference(said(*one), now(*other), SIXTEEN_BITS)
    assert "are off by a factor of 1.2 in the mean (cuda bfloat16, before it cpu float32)" in found


@BOTH
def test_near_tie_is_no_drift_and_what_follows_is_not_compared(tolerance: Tolerance) -> None:
    then = said((7, 1.0), (8, 0.12), (10, 1.0), (2, 1.0))
    here = now((7, 1.0), (9, 0.1205), (11, 0.1), (12, 0.2), (2, 1.0), text=BLUE)
    assert difference(then, here, tolerance) == ""


@BOTH
@pytest.mark.parametrize("probabilities", [(0.95, 0.95), (0.7, 0.7), (0.1, 0.9), (0.4, 0.2)])
def test_another_token_that_is_no_near_tie_is_a_drift(tolerance: Tolerance, probabilities: tuple[float, float]) -> None:
    before, after = probabilities
    found = difference(said((7, 1.0), (8, before)), now((7, 1.0), (9, after), text=BLUE), tolerance)
    place = RED.index("red")
    assert found == (f'"{BLUE[: place + CUT]}…" (cuda bfloat16) was "{RED[: place + CUT]}…" (cpu float32)')


def test_drift_in_the_words_is_told_before_one_in_the_probabilities() -> None:
    found = difference(said((7, 1.0), (8, 0.9)), now((7, 0.2), (9, 0.9), text=BLUE), FLOAT32)
    assert "blue ring" in found


def test_probability_before_a_near_tie_still_counts() -> None:
    found = difference(said((7, 1.0), (8, 0.3)), now((7, 0.5), (9, 0.3), text=BLUE), SIXTEEN_BITS)
    assert found.startswith("token 1 of ")


@pytest.mark.parametrize(
    ("then", "now", "tolerance", "is_tie"),
    [
        (0.5, 0.5, FLOAT32, True),  # two tokens share all there is
        (0.503, 0.503, FLOAT32, False),  # neither leaves room for the other
        (0.12, 0.13, FLOAT32, False),
        (0.12, 0.13, SIXTEEN_BITS, True),
        (0.62, 0.62, SIXTEEN_BITS, True),  # the other may have had 0.38
        (0.63, 0.63, SIXTEEN_BITS, False),
        (0.75, 0.5, SIXTEEN_BITS, False),
    ],
)
def test_near_tie_is_what_the_tolerance_explains(then: float, now: float, tolerance: Tolerance, is_tie: bool) -> None:
    for one, other in ((then, now), (now, then)):
        assert is_near_tie(log(one), log(other), tolerance.token) is is_tie


def test_failure_where_there_was_an_answer_is_a_drift() -> None:
    found = difference(
        said((7, 0.9), (2, 1.0)), Failed(2, "model_error: no numbers (NaN)", "cuda float16"), SIXTEEN_BITS
    )
    assert found.startswith('it fails with model_error: no numbers (NaN) (cuda float16) and was "<grounding> An image')


def test_other_words_of_the_same_tokens_are_a_drift() -> None:
    """As of another tokenizer."""
    assert "blue ring" in difference(said((7, 0.9), (2, 1.0)), now((7, 0.9), (2, 1.0), text=BLUE), FLOAT32)


def test_other_tokens_of_the_same_words_are_told_by_their_numbers() -> None:
    found = difference(said((7, 1.0), (1, 0.9)), now((7, 1.0), (2, 0.9)), FLOAT32)
    assert found == f'token 2 of "{RED[:CUT]}…" is 2 (cuda bfloat16) and was 1 (cpu float32)'


def test_answer_that_is_cut_sooner_is_no_drift() -> None:
    assert difference(said((7, 1.0), (8, 0.9), (2, 1.0)), now((7, 1.0), (8, 0.9), text=RED[:60]), FLOAT32) == ""


def test_long_texts_are_cut_around_their_first_difference() -> None:
    long, other = (f"{'on and ' * 100}a {colour} ring{' and so on' * 100}" for colour in ("red", "blue"))
    found = difference(said((8, 0.9), text=long), now((9, 0.9), text=other), FLOAT32)
    assert len(found) < 250
    assert "a blue ring" in found
    assert "a red ring" in found
    assert found.count("…") == 4


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", FLOAT32), ("bfloat16", SIXTEEN_BITS), ("float16", SIXTEEN_BITS)]
)
def test_tolerance_goes_by_the_recipes_dtype(dtype: str, tolerance: Tolerance) -> None:
    assert tolerance_for(dtype) == tolerance
