"""Builders for the ledger's tests: short words for jobs, chunks and results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, text

from schemas.database import Database
from schemas.errors import Code
from schemas.grounding import Box, Entity, Grounding
from schemas.items import Item, unpack_items
from schemas.ledger import dispatch, jobs, listing, settlement, work
from schemas.ledger.bulk import plain
from schemas.recipes import Recipe
from schemas.results import Annotation, Completion, Content, EntityScores, Failure, Later, Result, Settled

GROUNDING = Grounding("An image of a cat", (Entity("a cat", 12, 17, (Box(0.25, 0.5, 0.75, 1.0, 0, 1023, -2, True),)),))


class Ledger:
    """A database with the ledger's calls in few words. The worker is `w`, the broker is `redis`, leases are long."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @staticmethod
    def recipe(task: str = "brief", model: str = "null") -> Recipe:
        return Recipe(task=task, prompt=f"<grounding>{task}", model=model, revision="r", dtype="float32")

    @property
    def queue(self) -> str:
        return self.recipe().queue

    def open(self, name: str = "job", *recipes: Recipe, listing: str = "{}", **options: Any) -> jobs.Job:
        return jobs.open_job(self.database, name, recipes or [self.recipe()], listing=listing, **options)

    def add(
        self, job: jobs.Job, *items: Item, chunk_size: int = 64, end: bool = True, **options: Any
    ) -> listing.Registered:
        """One batch of a listing and, with `end`, its end."""
        registered = listing.register(self.database, job, items, cursor="here", chunk_size=chunk_size, **options)
        if end:
            listing.finish_listing(self.database, job)
        return registered

    def job_of(self, *items: Item, name: str = "job", recipes: Sequence[Recipe] = (), **options: Any) -> jobs.Job:
        """A job with these items listed."""
        job = self.open(name, *recipes)
        self.add(job, *items, **options)
        return self.now(job)

    def now(self, job: jobs.Job) -> jobs.Job:
        return jobs.get_job(self.database, job.id)

    def counters(self, job: jobs.Job) -> tuple[int, int, int, int, int]:
        """images, annotated, reused, failed, pending."""
        now = self.now(job)
        return now.images, now.annotated, now.reused, now.failed, now.pending

    def take(self, most: int = 1000, job_id: int | None = None) -> list[dispatch.Departure]:
        return dispatch.take_pending(self.database, self.queue, "redis", most, job_id)

    def uris(self, departure: dispatch.Departure) -> list[str]:
        """Those of the chunk that is on its way."""
        (row,) = self.sql("SELECT item_list FROM chunks WHERE id = :id", id=departure.chunk_id)
        uris = [item.uri for item in unpack_items(row["item_list"])]
        assert len(uris) == departure.images
        return uris

    def claim(self, departure: dispatch.Departure, *, worker: str = "w", lease_s: float = 60) -> work.Claim | None:
        return work.claim_chunk(self.database, departure.chunk_id, departure.fence, worker=worker, lease_s=lease_s)

    def claims(self, *, worker: str = "w", lease_s: float = 60) -> list[work.Claim]:
        """Whatever can be taken now, claimed."""
        claims = (self.claim(departure, worker=worker, lease_s=lease_s) for departure in self.take())
        return [claim for claim in claims if claim is not None]

    def one_claim(self, **options: Any) -> work.Claim:
        (claim,) = self.claims(**options)
        return claim

    def complete(
        self, claim: work.Claim, *settled: Settled, later: Sequence[Later] = (), breaker_images: int = 1000
    ) -> settlement.Settlement | None:
        completion = Completion(settled, later)
        return settlement.complete(self.database, claim, completion, breaker_images=breaker_images)

    def annotate_all(self, claim: work.Claim, *, breaker_images: int = 1000) -> settlement.Settlement | None:
        """The chunk completed, each item annotated as bytes of its own."""
        return self.complete(
            claim, *(self.annotated(claim, item) for item in claim.items), breaker_images=breaker_images
        )

    def drain(self) -> list[str]:
        """Everything that can be taken is annotated; the names of the jobs that finished."""
        while claims := self.claims():
            for claim in claims:
                assert self.annotate_all(claim)
        return jobs.finish_jobs(self.database)

    @staticmethod
    def content(sha256: str) -> Content:
        return Content(sha256, 640, 480, "JPEG", 1000)

    @staticmethod
    def annotation(words: str = "An image of a cat") -> Annotation:
        grounding = Grounding(words, GROUNDING.entities)
        return Annotation(f"<grounding>{words}", grounding, [EntityScores(0.75, [0.5])], "stop", 7, -0.25, "cpu")

    def annotated(
        self, claim: work.Claim, item: Item, *, sha256: str | None = None, version: str | None = None
    ) -> Settled:
        read = item.version or "1" if version is None else version
        content = self.content(sha256 or plain(f"{item.uri}#{read}"))
        return Settled(item, read, content, {recipe: self.annotation() for recipe in claim.recipes})

    @staticmethod
    def failed(claim: work.Claim, item: Item, code: Code = Code.TRUNCATED, message: str = "it ends early") -> Settled:
        return Settled(item, item.version, None, dict.fromkeys(claim.recipes, Failure(code, message)))

    def mixed(self, item: Item, results: Mapping[int, Result], *, sha256: str | None = None) -> Settled:
        """An item whose recipes went differently."""
        return Settled(item, item.version, self.content(sha256 or f"{item.uri}#{item.version}"), results)

    def sql(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """The rows of a SELECT."""
        with self.database.read() as connection:
            return [dict(row) for row in connection.execute(text(statement), values).mappings()]

    def change(self, statement: str, **values: Any) -> None:
        with self.database.write() as connection:
            connection.execute(text(statement), values)


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)


@pytest.fixture
def make_ledger() -> Callable[[Database], Ledger]:
    return Ledger


@pytest.fixture
def items() -> Callable[..., list[Item]]:
    """`items(3)`: three images in a folder, each in its version 1."""

    def make(number: int, *, start: int = 0, version: str = "1") -> list[Item]:
        return [Item(f"file:///photos/{at:04}.jpg", version, 1000) for at in range(start, start + number)]

    return make


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """The SQL that was sent, as it goes."""
    from sqlalchemy import event

    sent: list[str] = []

    def note(_: Connection, __: Any, statement: str, *rest: Any) -> None:
        sent.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    yield sent
    event.remove(database.engine, "before_cursor_execute", note)
