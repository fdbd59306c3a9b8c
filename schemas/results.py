"""What a worker hands to the ledger: contents, annotations, failures, and the items that must come again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.errors import Code
from schemas.grounding import Grounding
from schemas.items import Item


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an image: their hash, their upright size in pixels, their format and number."""

    sha256: str
    width: int
    height: int
    format: str
    size: int


class EntityScores(NamedTuple):
    """How sure the model was of an entity's phrase, and of each of its boxes (see worker/scoring.py)."""

    phrase: float | None
    boxes: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Annotation:
    """What the model said of a content under a recipe. `scores` are those of the entities, one by one.

    `prompt` is what it was asked, where that is not the recipe's own: an item brought a part of it.
    """

    raw_text: str
    grounding: Grounding
    scores: Sequence[EntityScores]
    finish_reason: str
    tokens: int
    mean_logprob: float | None
    runtime: str
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Reuse:
    """An annotation that was there already."""

    annotation_id: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no annotation."""

    code: Code
    message: str


Result = Annotation | Reuse | Failure


@dataclass(frozen=True, slots=True)
class Settled:
    """An item with its result for each recipe (by row id), the version that was read, and what was read."""

    item: Item
    version: str
    content: Content | None
    results: Mapping[int, Result]


@dataclass(frozen=True, slots=True)
class Later:
    """Items that go into a chunk of their own: what a stop left over, or what may succeed after `wait_s` seconds."""

    items: Sequence[Item]
    tries: int
    wait_s: float = 0.0
    code: Code | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole chunk, accounted for: each of its items is in `settled` or in one of `later`."""

    settled: Sequence[Settled] = ()
    later: Sequence[Later] = field(default=())
