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


class Belief(NamedTuple):
    """What there is to believe a box or not, as its columns in the table `boxes`; None where nothing is known.

    Edges are fractions of the image; the rest is in [0, 1]. `doubts` are words of worker/belief.py with commas between.
    """

    expected_x1: float | None = None
    expected_y1: float | None = None
    expected_x2: float | None = None
    expected_y2: float | None = None
    sigma_x1: float | None = None
    sigma_y1: float | None = None
    sigma_x2: float | None = None
    sigma_y2: float | None = None
    presence: float | None = None
    agreement: float | None = None
    mirror_agreement: float | None = None
    naming: float | None = None
    plausibility: float | None = None
    doubts: str | None = None
    evidence: float | None = None


@dataclass(frozen=True, slots=True)
class Annotation:
    """What the model said of a content under a recipe. `scores` and `beliefs` are those of the entities, one by one.

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
    beliefs: Sequence[Sequence[Belief]] = ()
    """Of each box; none at all where nothing is known."""
    absent_phrase: str | None = None
    yes_bias: float | None = None
    absent_score: float | None = None


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
