"""Whether a model still says what it said: two answers to one question, held side by side token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from statistics import fmean
from typing import NamedTuple

from schemas.ledger.canaries import Canary

CUT = 48
"""Characters that are shown before and after the first difference of two texts."""
MANY = 8
"""Tokens whose mean says something: fewer may all be among the uncertain ones."""


class Tolerance(NamedTuple):
    """How far apart the logarithms of a token's probabilities may be, at one token and in the mean of a text's."""

    token: float
    mean: float


FLOAT32 = Tolerance(0.01, 0.01)
"""Convolutions in TF32, which a GPU takes unasked, moved none by more than 0.002 where that was tried on a CPU."""
SIXTEEN_BITS = Tolerance(0.5, 0.1)
"""Also between 16 bits and the float32 of a CPU that has none. bfloat16 moved those of the demo model by 0.06 at most
and 0.003 in the mean, those of the benchmarks' middle-sized random model, which is unsteady, by 0.25 and 0.03."""


@dataclass(frozen=True, slots=True)
class Failed:
    """That the model failed on the picture of that number, why, and what it ran on."""

    number: int
    why: str
    runtime: str


def tolerance_for(dtype: str) -> Tolerance:
    """That of a recipe's dtype."""
    return FLOAT32 if dtype == "float32" else SIXTEEN_BITS


def difference(then: Canary, now: Canary | Failed, tolerance: Tolerance) -> str:
    """How the answers differ, in words for a person; "" where they agree.

    From the first token that differs on, they go on from different texts: only that one must be excused.
    """
    if isinstance(now, Failed):
        return f'it fails with {now.why} ({now.runtime}) and was "{_around(then.raw_text)}" ({then.runtime})'
    place = _first_difference(then.token_ids, now.token_ids)
    lengths = len(then.token_ids), len(now.token_ids)
    if place in lengths:  # one may have been cut sooner than the other, by another version
        words = _other_words(then, now) if lengths[0] == lengths[1] else ""
    elif is_near_tie(then.logprobs[place], now.logprobs[place], tolerance.token):
        words = ""
    else:
        words = _other_words(then, now) or _other_token(then, now, place)
    return words or _moved(then, now, place, tolerance)


def is_near_tie(then: float, now: float, tolerance: float) -> bool:
    """Whether noise explains that one computation took one token and another one another, with these logarithms.

    If no logarithm moved by more than the tolerance, then each token had nearly its own probability in the other
    computation too, where it lost: so they are about equal, and with the other's at the least neither exceeds 1.
    """
    pairs = ((then, now), (now, then))
    return abs(then - now) <= tolerance and all(exp(one) + exp(other - tolerance) <= 1 for one, other in pairs)


def _first_difference(then: Sequence[object], now: Sequence[object]) -> int:
    """The place of the first one that differs; the length of the shorter sequence where none does."""
    pairs = enumerate(zip(then, now, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(then), len(now)))


def _moved(then: Canary, now: Canary, place: int, tolerance: Tolerance) -> str:
    """How the probabilities of the tokens before that place differ by more than they may."""
    moves = [abs(one - other) for one, other in zip(then.logprobs[:place], now.logprobs[:place], strict=True)]
    most = max(range(place), key=moves.__getitem__, default=0)
    if moves and moves[most] > tolerance.token:
        was, is_ = (exp(one.logprobs[most]) for one in (then, now))
        return _of_token(then, now, most, f"has probability {is_:.3g}", f"had {was:.3g}")
    if place >= MANY and (mean := fmean(moves)) > tolerance.mean:
        said = f'the probabilities of "{_around(now.raw_text)}" are off by a factor of {exp(mean):.3g} in the mean'
        return f"{said} ({now.runtime}, before it {then.runtime})"
    return ""


def _other_words(then: Canary, now: Canary) -> str:
    """Both texts around their first difference; "" where they are the same."""
    if then.raw_text == now.raw_text:
        return ""
    at = _first_difference(then.raw_text, now.raw_text)
    return f'"{_around(now.raw_text, at)}" ({now.runtime}) was "{_around(then.raw_text, at)}" ({then.runtime})'


def _other_token(then: Canary, now: Canary, place: int) -> str:
    """The tokens themselves, of which the text shows nothing."""
    return _of_token(then, now, place, f"is {now.token_ids[place]}", f"was {then.token_ids[place]}")


def _of_token(then: Canary, now: Canary, place: int, is_: str, was: str) -> str:
    return f'token {place + 1} of "{_around(now.raw_text)}" {is_} ({now.runtime}) and {was} ({then.runtime})'


def _around(text: str, place: int = 0) -> str:
    """A text, cut to what is around a place."""
    first, last = max(0, place - CUT), place + CUT
    return f"{'…' if first else ''}{text[first:last].strip()}{'…' if last < len(text) else ''}"
