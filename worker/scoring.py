"""How sure the model was: the probabilities that it gave its own location tokens and words.

A score is a geometric mean of probabilities, in [0, 1]: what a token had on average, so that phrases of any length
compare. They are the model's own, before any decoding option forbids anything.

- A **box** has that of its two location tokens. Its square is the probability of the pair, out of 1,024 × 1,024.
- A **phrase** has that of the tokens of its words, which lie between `<phrase>` and `</phrase>`.

Neither is a chance of being right. There is none, but None, for what the model did not generate whole: where the prompt
gave a corner of the box, the phrase, the beginning of its words, or its opening tag alone.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from schemas.grounding import CELLS, Box, Entity, Grounding
from schemas.results import EntityScores
from worker.generation import Vocabulary


class Generated(Protocol):
    """What the model generated after the prompt, token by token."""

    @property
    def token_ids(self) -> Sequence[int]: ...

    @property
    def logprobs(self) -> Sequence[float]: ...


class Scores(NamedTuple):
    """The scores of each entity; the mean log-probability of all tokens, None where there are none."""

    entities: tuple[EntityScores, ...]
    mean_logprob: float | None


def score(grounding: Grounding, generation: Generated, vocabulary: Vocabulary) -> Scores:
    """A score for each box and each phrase, where there is one. Never raises, whatever the tokens are."""
    scorer = _Scorer(generation, vocabulary)
    return Scores(tuple(map(scorer.entity, grounding.entities)), _mean(generation.logprobs))


class _Scorer:
    """Finds boxes and phrases in the tokens of one generation."""

    def __init__(self, generation: Generated, vocabulary: Vocabulary) -> None:
        self._ids, self._logprobs, self._tags = generation.token_ids, generation.logprobs, vocabulary
        self._located = [place for place, token_id in enumerate(self._ids) if self._is_cell(token_id)]

    def entity(self, entity: Entity) -> EntityScores:
        return EntityScores(self._phrase(entity), tuple(map(self._box, entity.boxes)))

    def _box(self, box: Box) -> float | None:
        pair = self._cells(box)
        return None if pair is None else _probability([self._logprobs[place] for place in pair])

    def _phrase(self, entity: Entity) -> float | None:
        """Of the words before the entity's first box. That a phrase is right before it, the parser has seen."""
        pair = self._cells(entity.boxes[0]) if entity.phrase and entity.boxes else None
        if pair is None:
            return None
        words = self._words(pair[0])
        return _probability(self._logprobs[words.start : words.stop]) if words else None

    def _cells(self, box: Box) -> tuple[int, int] | None:
        """The places of a box's location tokens, counted from the end (see `Box.token`); None unless both are there."""
        at = len(self._located) + box.token
        pair = self._located[at : at + 2] if at >= 0 else []
        if [self._ids[place] - self._tags.first_patch for place in pair] != [box.first, box.second]:
            return None
        return pair[0], pair[1]

    def _words(self, first_cell: int) -> range:
        """The places of the words of the object with this location token; empty where its tags are not as they should.

        Backwards from the token: `<object>`; `</phrase>`, which the model may leave out; `<phrase>`. Other location
        tokens and delimiters may come before the first whole box of an object, but none between words and `<object>`.
        """
        tags = self._tags_before(first_cell)
        inside = {self._tags.delimiter, None}
        opened = next((place for place, tag in tags if tag not in inside), -1)
        end, tag = next(tags, (-1, None))
        begin = end
        if tag == self._tags.end_phrase:
            begin, tag = next(tags, (-1, None))
        else:
            end = opened
        if opened < 0 or self._ids[opened] != self._tags.object or tag != self._tags.phrase:
            return range(0)
        return range(begin + 1, end)

    def _tags_before(self, place: int) -> Iterator[tuple[int, int | None]]:
        """Place and id of each tag before a place, backwards; None for the id of a location token."""
        tags = self._tags
        known = {tags.phrase, tags.end_phrase, tags.object, tags.end_object, tags.delimiter}
        for before in range(place - 1, -1, -1):
            token_id = self._ids[before]
            if self._is_cell(token_id):
                yield before, None
            elif token_id in known:
                yield before, token_id

    def _is_cell(self, token_id: int) -> bool:
        return 0 <= token_id - self._tags.first_patch < CELLS


def _probability(logprobs: Sequence[float]) -> float | None:
    """The geometric mean of the probabilities. A logarithm that rounding took above 0 counts as 0."""
    mean = _mean(logprobs)
    return None if mean is None else math.exp(min(mean, 0.0))


def _mean(logprobs: Sequence[float]) -> float | None:
    return math.fsum(logprobs) / len(logprobs) if logprobs else None
