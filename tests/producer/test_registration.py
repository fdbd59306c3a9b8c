"""From sources to chunks, on both databases; the listing is cut off wherever it may be."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from producer import registration
from producer.registration import Totals, register_sources
from producer.sources import Filters, Item, Listed, Skip
from producer.sources.manifest import ManifestSource
from schemas.database import Database
from schemas.errors import Code, SourceError
from schemas.items import unpack_items
from schemas.ledger import dispatch, jobs, listing, settlement, work
from schemas.recipes import Recipe
from schemas.results import Completion, Failure, Settled

RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")
SKIP = next(iter(Skip))


@dataclass
class Names:
    """A source of what is given: names of images, and None for one that is passed over. It may break off."""

    names: Sequence[str | None]
    spec: str = "names"
    breaks_at: int | None = None

    def list(self, after: str | None = None) -> Iterator[Listed]:
        for number in range(int(after) + 1 if after else 0, len(self.names)):
            if number == self.breaks_at:
                raise SourceError("the place is gone; look for it")
            name = self.names[number]
            yield Listed(str(number), item=Item(name, "v")) if name else Listed(str(number), skip=SKIP)


class Killed(BaseException):
    """As kill -9: nothing after it runs."""


def open_job(database: Database, name: str = "job", words: str = "{}") -> jobs.Job:
    return jobs.open_job(database, name, [RECIPE], listing=words)


def listed_uris(database: Database, job: jobs.Job) -> list[str]:
    query = text("SELECT item_list FROM chunks WHERE job_id = :job ORDER BY id")
    with database.read() as connection:
        packed = connection.execute(query, {"job": job.id}).scalars().all()
    return [item.uri for one in packed for item in unpack_items(one)]


def names(prefix: str, count: int) -> list[str | None]:
    return [f"s3://{prefix}/{number:03}" for number in range(count)]


def test_every_item_of_every_source_is_in_one_chunk_in_order(database: Database) -> None:
    job, sources = open_job(database), [Names(names("a", 7)), Names(names("b", 5))]
    totals = register_sources(database, job, sources, chunk_size=3)
    assert totals == Totals(new=12)
    assert listed_uris(database, job) == names("a", 7) + names("b", 5)
    now = jobs.get_job(database, job.id)
    assert (now.images, now.listings, now.cursor) == (12, 1, None)
    assert now.listed_at is not None


def test_what_is_passed_over_is_counted_by_kind_and_in_the_job(database: Database) -> None:
    job = open_job(database)
    totals = register_sources(database, job, [Names([None, "s3://a/1", None])], chunk_size=2)
    assert totals.skipped == {SKIP: 2}
    assert jobs.get_job(database, job.id).skipped == 2


@pytest.mark.parametrize(("limit", "taken"), [(1, 1), (3, 3), (4, 4), (9, 5)])
def test_limit_takes_the_first_images_over_all_sources(database: Database, limit: int, taken: int) -> None:
    job, sources = open_job(database), [Names(["s3://a/1", None, "s3://a/2"]), Names(names("b", 3))]
    register_sources(database, job, sources, chunk_size=2, limit=limit)
    assert listed_uris(database, job) == (["s3://a/1", "s3://a/2", *names("b", 3)])[:taken]


def test_first_batch_is_one_chunk_so_that_work_begins_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    register = listing.register
    monkeypatch.setattr(
        listing, "register", lambda d, j, items, **o: sizes.append(len(items)) or register(d, j, items, **o)
    )
    register_sources(database, open_job(database), [Names(names("a", 3000))], chunk_size=4)
    assert sizes == [4, 1024, 1024, 948]


def test_slow_source_is_registered_as_it_comes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "MOST_SECONDS", 0.0)
    seen: list[int] = []
    register_sources(
        database,
        open_job(database),
        [Names(names("a", 5))],
        chunk_size=64,
        progress=lambda totals: seen.append(totals.new),
    )
    assert seen == [1, 2, 3, 4, 5]


def test_stop_keeps_what_is_registered_and_the_listing_goes_on_behind_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "MOST_SECONDS", 0.0)
    job, sources, told = open_job(database), [Names(names("a", 9))], list[Totals]()
    register_sources(database, job, sources, chunk_size=1, stopped=lambda: len(told) == 2, progress=told.append)
    assert listed_uris(database, job) == names("a", 2)
    assert jobs.get_job(database, job.id).listed_at is None
    register_sources(database, open_job(database), sources, chunk_size=1)
    assert listed_uris(database, job) == names("a", 9)


def test_source_that_breaks_off_leaves_its_cursor(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "MOST_SECONDS", 0.0)
    job = open_job(database)
    with pytest.raises(SourceError):
        register_sources(database, job, [Names(names("a", 9), breaks_at=4)], chunk_size=2)
    register_sources(database, open_job(database), [Names(names("a", 9))], chunk_size=2)
    assert listed_uris(database, job) == names("a", 9)


listings = st.lists(st.lists(st.sampled_from(["image", "other"]), max_size=6), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds=listings, kills=st.lists(st.integers(0, 6), max_size=4), limit=st.none() | st.integers(1, 12))
def test_listing_that_is_killed_anywhere_ends_as_one_that_is_not(
    database: Database, kinds: list[list[str]], kills: list[int], limit: int | None
) -> None:
    """The kill comes before or after the so-and-so-manyth commit of a run; each run goes on where the last one was."""
    sources = [
        Names([f"s3://{at}/{n}" if kind == "image" else None for n, kind in enumerate(one)])
        for at, one in enumerate(kinds)
    ]
    name = f"job {id(kinds)}-{id(kills)}-{len(jobs_of(database))}"
    expected = [item for source in sources for item in source.names if item][:limit]
    for kill in [*kills, None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registration, "MOST_ITEMS", 2)
            patch.setattr(listing, "register", dying(listing.register, kill))
            job = open_job(database, name)
            try:
                register_sources(database, job, sources, chunk_size=2, limit=limit)
            except Killed:
                continue
    assert listed_uris(database, job) == expected
    assert jobs.get_job(database, job.id).images == len(expected)


def dying(register: Any, kill: int | None) -> Any:
    calls = [0]

    def call(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if kill is not None and calls[0] * 2 - 1 == kill:
            raise Killed
        done = register(*arguments, **options)
        if kill is not None and calls[0] * 2 == kill:
            raise Killed
        return done

    return call


def jobs_of(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(text("SELECT id FROM jobs")))


def test_database_that_is_away_for_a_moment_does_not_end_the_listing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, calls = listing.register, []

    def away_first(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OperationalError("", {}, Exception("the connection is lost"))
        return register(*arguments, **options)

    monkeypatch.setattr(listing, "register", away_first)
    job = open_job(database)
    register_sources(database, job, [Names(names("a", 3))], chunk_size=2)
    assert listed_uris(database, job) == names("a", 3)


def test_listing_again_adds_what_is_new_and_leaves_alone_what_waits(database: Database) -> None:
    job = open_job(database)
    register_sources(database, job, [Names(names("a", 3))], chunk_size=2)
    totals = register_sources(database, open_job(database), [Names(names("a", 5))], chunk_size=2)
    assert (totals.new, totals.known) == (2, 3)
    assert sorted(listed_uris(database, job)) == names("a", 5)
    assert jobs.get_job(database, job.id).images == 5


def test_listing_again_leaves_alone_what_has_failed(database: Database) -> None:
    job = open_job(database)
    register_sources(database, job, [Names(names("a", 1))], chunk_size=2)
    (departure,) = dispatch.take_pending(database, RECIPE.queue, "here", 1)
    claim = work.claim_chunk(database, departure.chunk_id, departure.fence, worker="w", lease_s=60)
    assert claim
    failed = dict.fromkeys(claim.recipes, Failure(Code.TRUNCATED, "half of it"))
    settled = [Settled(item, "v", None, failed) for item in claim.items]
    assert settlement.complete(database, claim, Completion(settled), breaker_images=100)
    totals = register_sources(database, open_job(database), [Names(names("a", 2))], chunk_size=2)
    assert (totals.new, totals.known) == (1, 1)


def test_listing_that_is_cut_off_within_a_row_goes_on_with_its_next_item(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    rows = [{"uri": f"s3://b/{name}", "what": [f"{name}{number}" for number in range(5)]} for name in "ab"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    phrase = RECIPE.model_copy(update={"prompt": "{phrase}", "input": "phrase"})
    told = list[Totals]()

    def list_some(stopped: Callable[[], bool]) -> None:
        source = ManifestSource(path, f"@{path}", Filters(), columns={"phrase": ["what"]})
        job = jobs.open_job(database, "job", [phrase], listing="{}")
        register_sources(database, job, [source], chunk_size=3, stopped=stopped, progress=told.append)

    list_some(lambda: len(told) == 1)
    assert json.loads(jobs.find_job(database, "job").cursor or "") == [0, "1.3", 3]
    list_some(lambda: False)
    with database.read() as connection:
        packed = connection.execute(text("SELECT item_list FROM chunks ORDER BY id")).scalars().all()
    brought = [(item.uri, json.loads(item.input)["phrase"]) for one in packed for item in unpack_items(one)]
    assert brought == [(f"s3://b/{name}", f"{name}{number}") for name in "ab" for number in range(5)]
