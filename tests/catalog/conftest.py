"""A catalog with pictures in it, as a job leaves it."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from catalog.reader import Reader, open_reader
from catalog.records import Record, every_record
from catalog.search import Search
from schemas.caption_search import index_captions
from schemas.database import Database
from schemas.errors import Code
from schemas.grounding import Box, Entity, Grounding
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, settlement, work
from schemas.recipes import Recipe
from schemas.results import Annotation, Completion, Content, EntityScores, Failure, Settled

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """A phrase with the corners of its boxes, all of one score."""

    phrase: str
    boxes: Sequence[Corners] = ((0.25, 0.25, 0.75, 0.75),)
    score: float | None = 0.5
    valid: bool = True


@dataclass(frozen=True)
class Picture:
    """An image whose caption names these things; with a code, one that has failed. data: its bytes, if it has any."""

    uri: str
    things: Sequence[Thing] = ()
    caption: str = ""
    size: tuple[int, int] = (640, 480)
    code: Code | None = None
    content: str = field(default="")
    data: bytes = b""
    version: str = "v"
    format: str = "JPEG"

    @property
    def words(self) -> str:
        return self.caption or "An image of " + " and ".join(thing.phrase for thing in self.things)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data or (self.content or self.uri).encode()).hexdigest()


Shelve = Callable[..., jobs.Job]


@pytest.fixture
def shelve(database: Database) -> Shelve:
    """Makes a finished job of pictures: `shelve("job", Picture(…), …, task="brief", model="null")`.

    With several tasks, a recipe for each; all say the same of a picture.
    """

    def make(name: str, *pictures: Picture, task: str | Sequence[str] = "brief", model: str = "null") -> jobs.Job:
        tasks = [task] if isinstance(task, str) else task
        recipes = [
            Recipe(task=one, prompt=f"<grounding>{one}", model=model, revision="r", dtype="float32") for one in tasks
        ]
        job = jobs.open_job(database, name, recipes, listing="{}")
        items = [Item(picture.uri, picture.version) for picture in pictures]
        listing.register(database, job, items, cursor=None, chunk_size=len(items))
        listing.finish_listing(database, job)
        for departure in dispatch.take_pending(database, job.queue, "here", 1, job.id):
            claim = work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=60)
            assert claim
            by_uri = {picture.uri: picture for picture in pictures}
            settled = [settle(item, by_uri[item.uri], claim.recipes) for item in claim.items]
            assert settlement.complete(database, claim, Completion(settled), breaker_images=1000)
        jobs.finish_jobs(database)
        index_captions(database)
        return job

    return make


def settle(item: Item, picture: Picture, recipe_ids: Iterable[int]) -> Settled:
    if picture.code:
        return Settled(
            item, picture.version, None, dict.fromkeys(recipe_ids, Failure(picture.code, f"{picture.code} it is"))
        )
    content = Content(picture.sha256, *picture.size, picture.format, 99)
    return Settled(item, picture.version, content, dict.fromkeys(recipe_ids, annotation_of(picture)))


def annotation_of(picture: Picture) -> Annotation:
    entities, scores, at = [], [], 0
    for thing in picture.things:
        start = picture.words.find(thing.phrase, at)
        start = at if start < 0 else start
        at = start + len(thing.phrase)
        boxes = tuple(Box(*corners, 0, 0, -2, thing.valid) for corners in thing.boxes)
        entities.append(Entity(thing.phrase, start, at, boxes))
        scores.append(EntityScores(thing.score, [thing.score for _ in boxes]))
    grounding = Grounding(picture.words, tuple(entities))
    return Annotation(f"<grounding>{picture.words}", grounding, scores, "stop", 7, -0.25, "cpu")


def all_records(reader: Reader, search: Search, at_once: int = 1_000) -> list[Record]:
    """The records of all that a search finds."""
    return [record for records in every_record(reader, search, at_once=at_once) for record in records]


@pytest.fixture
def reader(database_url: str) -> Iterator[Reader]:
    with open_reader(database_url) as place:
        yield place
