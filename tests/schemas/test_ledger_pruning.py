"""Pruning: old jobs go whole, what others share stays, and nobody who works meanwhile loses anything."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from catalog.reader import open_reader
from catalog.search import Search, find_page
from schemas.caption_search import index_captions
from schemas.database import Database
from schemas.errors import Code, SetupError
from schemas.items import Item
from schemas.ledger import jobs, listing, pruning, retries, settlement, work
from schemas.results import Later, Reuse

DAY = 86_400
TABLES = ("jobs", "job_recipes", "chunks", "outcomes", "annotations", "entities", "boxes", "images", "contents")


def rows(ledger: Any) -> dict[str, int]:
    return {table: ledger.sql(f"SELECT COUNT(*) AS n FROM {table}")[0]["n"] for table in TABLES}


def done(ledger: Any, name: str, *items: Item, days_ago: float = 0.0) -> jobs.Job:
    """A finished job of these images."""
    job = ledger.job_of(*items, name=name, chunk_size=2)
    ledger.drain()
    ledger.change(
        "UPDATE jobs SET started_at = started_at - :s, finished_at = finished_at - :s WHERE id = :id",
        s=days_ago * DAY,
        id=job.id,
    )
    return job


def marked(database: Database, **wanted: Any) -> list[str]:
    return [one.name for one in pruning.ended_jobs(database, **wanted) if pruning.mark(database, one)]


def removed(steps: Iterator[tuple[str, int]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for table, count in steps:
        counts[table] += count
    return dict(counts)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows make many transactions."""
    for name in ("UNDONE", "CHUNKS"):
        monkeypatch.setattr(pruning, name, getattr(pruning, name).limit(2))
    monkeypatch.setattr(pruning, "OUTCOMES", pruning.OUTCOMES.offset(2))
    for name, value in {"AT_ONCE": 2, "SHARED_AT_ONCE": 2, "CANDIDATES": 3}.items():
        monkeypatch.setattr(pruning, name, value)


def test_old_jobs_go_with_their_outcomes_and_chunks_and_annotations_stay(ledger: Any, items: Any) -> None:
    done(ledger, "old", *items(7), days_ago=100)
    done(ledger, "older", *items(3), days_ago=200)
    new = done(ledger, "new", *items(5, start=5), days_ago=1)
    before = rows(ledger)
    assert marked(ledger.database, older_s=90 * DAY) == ["older", "old"]
    went = removed(pruning.remove_marked(ledger.database))
    assert went == {"chunks": 4, "outcomes": 10, "jobs": 2}
    assert rows(ledger) == before | {"jobs": 1, "job_recipes": 1, "chunks": before["chunks"] - 4, "outcomes": 5}
    assert ledger.counters(new) == (5, 3, 2, 0, 0)
    assert ledger.add(ledger.open("again"), *items(7)).reused == 7


def test_jobs_that_run_or_pause_stay_whatever_their_age(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="running")
    jobs.pause_job(ledger.database, ledger.job_of(*items(1), name="paused").id, "by hand")
    jobs.cancel_job(ledger.database, ledger.job_of(*items(1), name="cancelled").id)
    every = {"older_s": -1.0, "names": ["running", "paused"]}
    assert [one.name for one in pruning.ended_jobs(ledger.database, **every)] == ["cancelled"]


def test_a_job_that_was_reopened_since_it_was_looked_at_stays(ledger: Any, items: Any) -> None:
    done(ledger, "night", *items(2))
    (seen,) = pruning.ended_jobs(ledger.database, older_s=-1.0)
    job = ledger.open("night")
    assert not pruning.mark(ledger.database, seen)
    ledger.add(job)
    ledger.drain()  # it has ended, and anew
    assert not pruning.mark(ledger.database, seen)


def test_a_job_that_is_half_gone_counts_nothing_and_takes_nothing_until_the_next_pruning_ends_it(
    ledger: Any, items: Any
) -> None:
    """Given a pruning that was killed after its first transactions."""
    job = done(ledger, "night", *items(9))
    jobs.finish_jobs(ledger.database)
    assert marked(ledger.database, names=["night"]) == ["night"]
    steps = pruning.remove_marked(ledger.database)
    while next(steps)[0] != "outcomes":
        pass
    steps.close()
    assert 0 < rows(ledger)["outcomes"] < 9
    assert ledger.counters(job) == (0, 0, 0, 0, 0)
    (progress,) = ledger.sql("SELECT state, images, annotated, pending FROM progress")
    assert progress == {"state": "cancelled", "images": 0, "annotated": 0, "pending": 0}
    with pytest.raises(SetupError, match="being pruned"):
        ledger.open("night")
    with pytest.raises(SetupError, match="being pruned"):
        retries.retry_failed(ledger.database, ledger.now(job))
    assert not jobs.resume_job(ledger.database, job.id)
    assert [one.is_marked for one in pruning.ended_jobs(ledger.database, older_s=10 * DAY)] == [True]
    assert removed(pruning.remove_marked(ledger.database))["jobs"] == 1
    assert rows(ledger)["outcomes"] == 0
    assert ledger.add(ledger.open("night"), *items(9)).reused == 9


def test_a_worker_that_still_has_a_chunk_of_a_job_that_goes_settles_nothing(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2))
    claim = ledger.one_claim()
    jobs.cancel_job(ledger.database, job.id)
    marked(ledger.database, names=["job"])
    removed(pruning.remove_marked(ledger.database))
    assert not ledger.annotate_all(claim)
    assert not any(rows(ledger).values())


def test_annotations_that_no_job_has_go_with_their_boxes_images_and_contents(ledger: Any, items: Any) -> None:
    done(ledger, "old", *items(5))
    new = done(ledger, "new", *items(2, start=4))
    old_ids = [one.id for one in pruning.ended_jobs(ledger.database, names=["old"])]
    assert pruning.count_unused(ledger.database, []) == 0
    assert pruning.count_unused(ledger.database, old_ids) == 4
    marked(ledger.database, names=["old"])
    removed(pruning.remove_marked(ledger.database))
    assert removed(pruning.remove_unused(ledger.database)) == {"annotations": 4, "images": 4, "contents": 4}
    left = dict.fromkeys(TABLES, 2) | {"jobs": 1, "job_recipes": 1, "chunks": 1}
    assert rows(ledger) == left
    assert ledger.counters(new) == (2, 1, 1, 0, 0)
    assert len(ledger.sql("SELECT 1 FROM groundings")) == 2


def test_captions_are_found_after_pruning_as_before(ledger: Any, items: Any) -> None:
    """Also those that come under the numbers of those that went; on SQLite some were not in the index yet."""

    def found(word: str) -> int:
        reader = open_reader(ledger.database.url.render_as_string(hide_password=False))
        with reader:
            return len(find_page(reader, Search(text=word), limit=50).hits)

    done(ledger, "old", *items(3))
    index_captions(ledger.database)
    done(ledger, "older", *items(3, start=3))
    marked(ledger.database, names=["old", "older"])
    removed(pruning.remove_marked(ledger.database))
    removed(pruning.remove_unused(ledger.database))
    done(ledger, "new", *items(2, start=7))
    index_captions(ledger.database)
    assert found("cat") == 2
    if ledger.database.is_sqlite:
        ledger.change("INSERT INTO caption_search (caption_search, rank) VALUES ('integrity-check', 1)")


# -- races


def test_a_dispatcher_that_finds_a_job_complete_lives_on_where_it_has_gone_since(
    ledger: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ledger.open("night")
    ledger.add(job)
    finish = jobs._finish

    def too_late(*arguments: Any) -> str | None:
        jobs.cancel_job(ledger.database, job.id)
        marked(ledger.database, names=["night"])
        removed(pruning.remove_marked(ledger.database))
        return finish(*arguments)

    monkeypatch.setattr(jobs, "_finish", too_late)
    assert jobs.finish_jobs(ledger.database) == []
    assert not rows(ledger)["jobs"]


def test_a_worker_that_found_an_annotation_before_it_was_pruned_makes_it_again(ledger: Any, items: Any) -> None:
    done(ledger, "old", *items(1))
    job = ledger.job_of(Item("s3://b/copy", "1"), name="new")
    claim = ledger.one_claim()
    (sha256,) = (row["sha256"] for row in ledger.sql("SELECT sha256 FROM contents"))
    found = work.find_annotations(ledger.database, [sha256], claim.recipes)
    marked(ledger.database, names=["old"])
    removed(pruning.remove_marked(ledger.database))
    assert removed(pruning.remove_unused(ledger.database))["annotations"] == 1
    results = {recipe: Reuse(id_) for (_, recipe, _), id_ in found.items()}
    assert ledger.complete(claim, ledger.mixed(claim.items[0], results, sha256=sha256))
    assert ledger.counters(job) == (1, 0, 0, 0, 1)
    ledger.drain()
    assert ledger.counters(job) == (1, 1, 0, 0, 0)


def test_pruning_beside_a_night_that_reuses_what_goes_loses_nothing(ledger: Any, items: Any) -> None:
    """Workers complete and a listing registers, both with annotations that nothing refers to at that moment."""
    some = items(40)
    done(ledger, "old", *some[:20])
    marked(ledger.database, names=["old"])
    removed(pruning.remove_marked(ledger.database))
    stop, errors = threading.Event(), list[BaseException]()

    def prune() -> None:
        try:
            while not stop.is_set():
                removed(pruning.remove_unused(ledger.database))
        except BaseException as error:
            errors.append(error)

    pruner = threading.Thread(target=prune)
    pruner.start()
    try:
        names = []
        for night in range(6):
            names.append(f"night {night}")
            job = ledger.open(names[-1])
            for at in range(0, 40, 8):
                listing.register(ledger.database, job, some[at : at + 8], cursor=None, chunk_size=4)
            listing.finish_listing(ledger.database, job)
            while not (ended := ledger.drain()):
                pass
            assert ended == [names[-1]]
            assert ledger.counters(job)[::4] == (40, 0)
            marked(ledger.database, names=[names[-1]])
            removed(pruning.remove_marked(ledger.database))
    finally:
        stop.set()
        pruner.join()
    assert not errors
    assert not rows(ledger)["outcomes"]


def test_nobody_refers_to_what_goes_while_it_goes(ledger: Any, items: Any, wait_for: Any) -> None:
    """On PostgreSQL, where writers are many: a listing waits for a pruning that has looked, and then finds it gone."""
    if ledger.database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    done(ledger, "old", *items(1))
    ledger.change("DELETE FROM outcomes")
    job = ledger.open("new")
    answers: list[Any] = []
    with ledger.database.write() as connection:
        pruning._alone(connection)
        lister = threading.Thread(target=lambda: answers.append(ledger.add(job, *items(1))))
        lister.start()
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'chunks'::regclass"
        wait_for(lambda: ledger.sql(waiting))
        connection.exec_driver_sql("DELETE FROM boxes; DELETE FROM entities; DELETE FROM annotations")
    lister.join()
    assert (answers[0].new, answers[0].reused) == (1, 0)
    ledger.drain()
    assert ledger.counters(job) == (1, 1, 0, 0, 0)


def test_a_chunk_that_is_drained_while_its_job_goes_leaves_nothing_behind(
    ledger: Any, items: Any, wait_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a worker that is about to commit the rest of a chunk as a new one, when the pruning waits for that."""
    if ledger.database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    job = ledger.job_of(*items(2))
    claim = ledger.one_claim()
    jobs.cancel_job(ledger.database, job.id)
    marked(ledger.database, names=["job"])
    added, commit, add = threading.Event(), threading.Event(), settlement._add_children

    def add_and_wait(*arguments: Any) -> None:
        add(*arguments)
        added.set()
        commit.wait()

    monkeypatch.setattr(settlement, "_add_children", add_and_wait)
    later = [Later(claim.items, tries=0)]
    with ThreadPoolExecutor() as threads:
        drained = threads.submit(ledger.complete, claim, later=later)
        added.wait()
        went = threads.submit(lambda: removed(pruning.remove_marked(ledger.database)))
        try:
            wait_for(lambda: ledger.sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
        finally:
            commit.set()
        assert drained.result() is not None
        assert went.result() == {"chunks": 2, "outcomes": 0, "jobs": 1}
    assert not any(rows(ledger).values())


def test_failed_images_of_a_pruned_job_are_tried_again(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0], Code.EMPTY_FILE))
    jobs.finish_jobs(ledger.database)
    assert ledger.counters(job) == (1, 0, 0, 1, 0)
    marked(ledger.database, names=["job"])
    removed(pruning.remove_marked(ledger.database))
    assert ledger.add(ledger.open("job"), *items(1)).new == 1


def test_what_sqlite_has_free_is_given_back_also_while_others_look(
    ledger: Any, items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(ledger, "old", *items(200))
    marked(ledger.database, names=["old"])
    removed(pruning.remove_marked(ledger.database))
    removed(pruning.remove_unused(ledger.database))
    free = pruning.reclaimable_bytes(ledger.database)
    assert (free is not None) == ledger.database.is_sqlite
    if free is not None:
        assert free > 0
        monkeypatch.setattr(pruning, "BUSY_TIMEOUT_S", 0.0)
        with ledger.database.write(), pytest.raises(SetupError, match="locked; --vacuum can do it another time"):
            pruning.vacuum(ledger.database)
        pruning.vacuum(ledger.database)
        assert ledger.database.path.with_name("kosmograph.db-wal").stat().st_size == 0
        assert pruning.reclaimable_bytes(ledger.database) == 0
