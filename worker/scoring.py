"""How sure the model was: the probabilities that it gave its own location tokens and words."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from schemas.grounding import CELLS, Box, Grounding


class Generated(Protocol):
    """What the model generated after the prompt, token by token."""

    @property
    def token_ids(self) -> Sequence[int]: ...

    @property
    def logprobs(self) -> Sequence[float]: ...


class Scores(NamedTuple):
    """A probability for each box of each entity; the mean log-probability of a token, None where there is none."""

    boxes: tuple[tuple[float | None, ...], ...]
    mean_logprob: float | None


def score(grounding: Grounding, generation: Generated, first_patch_id: int) -> Scores:
    """The joint probability of each box's two location tokens; None for a box that the prompt gave.

    Location tokens have the ids from `first_patch_id` on. They meet the boxes from the end (see `Box.token`).
    """
    located = [
        (token_id - first_patch_id, logprob)
        for token_id, logprob in zip(generation.token_ids, generation.logprobs, strict=True)
        if 0 <= token_id - first_patch_id < CELLS
    ]
    boxes = tuple(tuple(_probability(box, located) for box in entity.boxes) for entity in grounding.entities)
    count = len(generation.logprobs)
    return Scores(boxes, math.fsum(generation.logprobs) / count if count else None)


def _probability(box: Box, located: list[tuple[int, float]]) -> float | None:
    """None unless both cells of the box were generated, where the box says."""
    at = len(located) + box.token
    pair = located[at : at + 2] if at >= 0 else []
    if [cell for cell, _ in pair] != [box.first, box.second]:
        return None
    return math.exp(math.fsum(logprob for _, logprob in pair))
