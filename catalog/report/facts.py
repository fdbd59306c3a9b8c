"""What a report says of a job, as the database has counted it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.recipes import Recipe


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job as it stands; times are UNIX times."""

    id: int
    name: str
    state: str
    reason: str | None
    sources: Sequence[str]
    recipes: Sequence[Recipe]
    started_at: float
    finished_at: float | None
    wall_s: float
    images: int
    annotated: int
    reused: int
    failed: int
    pending: int
    images_per_s: float


@dataclass(frozen=True, slots=True)
class FailureFacts:
    """How many outcomes of a code there are, with some of their images as URI and message."""

    code: str
    count: int
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Rate:
    """Outcomes by when they were settled: in steps of `width_s` from `origin`, by number, those annotated, reused and
    failed."""

    origin: float
    width_s: int
    bins: Mapping[int, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class CaptionFacts:
    """How many captions have so many words, so many tokens, ended so; and how many have no box."""

    count: int
    words: Mapping[int, int]
    tokens: Mapping[int, int]
    finish_reasons: Mapping[str, int]
    without_box: int


@dataclass(frozen=True, slots=True)
class Named:
    """A phrase or head noun, with the images that have it, and how often it was said."""

    words: str
    images: int
    times: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two phrases of the same images. `pmi`: by how many doublings more often than chance would have it."""

    one: str
    other: str
    images: int
    pmi: float


@dataclass(frozen=True, slots=True)
class BoxFacts:
    """Valid boxes by score, in equal steps from 0 to 1, and by area, up to each of figures.AREAS; others by number."""

    valid: int
    invalid: int
    scores: Sequence[int]
    unscored: int
    areas: Sequence[int]


@dataclass(frozen=True, slots=True)
class Figures:
    """All that is counted for a report. `trust` is of valid boxes, as their scores; `untrusted` have none."""

    job: JobFacts
    annotated_images: int
    failures: Sequence[FailureFacts]
    rate: Rate
    captions: CaptionFacts
    phrases: Sequence[Named]
    heads: Sequence[Named]
    pairs: Sequence[Pair]
    together: int
    boxes: BoxFacts
    phrase_scores: Sequence[int]
    unscored_phrases: int
    trust: Sequence[int]
    untrusted: int
    heat: Sequence[Sequence[int]]
