"""Jobs: opened, refused, paused, cancelled, finished."""

import threading
from typing import Any

import pytest

from schemas.database import Database
from schemas.errors import Code, UsageError
from schemas.ledger import jobs, listing, retries


def test_a_job_begins_running_with_nothing_settled(ledger: Any) -> None:
    job = ledger.open("night", ledger.recipe("brief"), ledger.recipe("detailed"), listing='["/photos"]', priority=3)
    assert (job.name, job.state, job.recipes, job.listing, job.priority) == ("night", "running", 2, '["/photos"]', 3)
    assert (job.images, job.settled, job.pending, job.listed_at, job.cursor) == (0, 0, 0, None, None)
    assert job.queue == ledger.queue


def test_recipes_keep_the_order_in_which_they_were_given(ledger: Any) -> None:
    wanted = [ledger.recipe("detailed"), ledger.recipe("brief")]
    job = ledger.open("night", *wanted)
    with ledger.database.read() as connection:
        assert list(jobs.recipes_of(connection, job.id).values()) == wanted


def test_a_recipe_that_is_given_twice_is_one_recipe(ledger: Any) -> None:
    assert ledger.open("night", ledger.recipe(), ledger.recipe()).recipes == 1


def test_two_jobs_share_the_row_of_a_recipe(ledger: Any) -> None:
    ledger.open("one")
    ledger.open("two")
    assert ledger.sql("SELECT COUNT(*) AS n FROM recipes") == [{"n": 1}]


def test_the_same_name_with_other_recipes_is_refused_with_a_hint(ledger: Any) -> None:
    ledger.open("night", ledger.recipe("brief"))
    with pytest.raises(UsageError, match=r"the job 'night' exists with other recipes: brief \(null\).*--job"):
        ledger.open("night", ledger.recipe("detailed"))
    assert ledger.now(ledger.open("night", ledger.recipe("brief"))).recipes == 1


def test_a_refused_opening_leaves_nothing_behind(ledger: Any) -> None:
    ledger.open("night", ledger.recipe("brief"))
    with pytest.raises(UsageError):
        ledger.open("night", ledger.recipe("detailed"))
    assert ledger.sql("SELECT task FROM recipes") == [{"task": "brief"}]


def test_two_that_open_the_same_new_job_at_once_get_one_job(ledger: Any) -> None:
    ids: list[int] = []
    start = threading.Barrier(4)

    def open_it() -> None:
        start.wait()
        ids.append(ledger.open("night").id)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4
    assert len(set(ids)) == 1


def test_a_job_is_found_by_its_name(ledger: Any) -> None:
    job = ledger.open("night")
    assert jobs.find_job(ledger.database, "night") == job


def test_a_name_that_is_not_there_is_answered_with_those_that_are(ledger: Any) -> None:
    with pytest.raises(UsageError, match="there are none yet"):
        jobs.find_job(ledger.database, "nihgt")
    ledger.open("night")
    with pytest.raises(UsageError, match="there is no job 'nihgt'; the latest are night"):
        jobs.find_job(ledger.database, "nihgt")


def test_a_listing_that_was_cut_off_keeps_its_cursor_for_the_same_words_only(ledger: Any, items: Any) -> None:
    job = ledger.open(listing="all")
    ledger.add(job, *items(2), end=False)
    assert ledger.open(listing="all").cursor == "here"
    other = ledger.open(listing="all but hidden ones")
    assert (other.cursor, other.listing, other.listings) == (None, "all but hidden ones", 1)


def test_a_job_that_was_listed_to_the_end_is_listed_from_the_start(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2))
    assert (job.listings, job.cursor) == (1, None)
    again = ledger.open()
    assert (again.cursor, again.listed_at, again.listings, again.skipped) == (None, None, 1, 0)


@pytest.mark.parametrize("state", ["finished", "cancelled", "paused"])
def test_the_same_command_reopens_a_job_in_any_state(ledger: Any, items: Any, state: str) -> None:
    job = ledger.job_of(*items(1))
    {
        "finished": ledger.drain,
        "cancelled": lambda: jobs.cancel_job(ledger.database, job.id),
        "paused": lambda: jobs.pause_job(ledger.database, job.id, "no reason"),
    }[state]()
    assert ledger.now(job).state == state
    again = ledger.open()
    assert (again.id, again.state, again.reason) == (job.id, "running", None)


def test_priority_and_strictness_are_those_of_the_latest_command(ledger: Any) -> None:
    ledger.open(priority=1, strict=True)
    job = ledger.open(priority=5)
    assert (job.priority, job.strict) == (5, False)


def test_priority_that_was_changed_meanwhile_stays_when_the_command_is_given_again(ledger: Any) -> None:
    job = ledger.open()
    assert job.priority == 0
    jobs.set_priority(ledger.database, job.id, 7)
    assert ledger.open().priority == 7


def test_pause_says_why_and_takes_back_what_is_queued(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2), chunk_size=1)
    departures = ledger.take()
    assert jobs.pause_job(ledger.database, job.id, "the bucket is gone")
    paused = ledger.now(job)
    assert (paused.state, paused.reason) == ("paused", "the bucket is gone")
    assert [ledger.claim(departure) for departure in departures] == [None, None]
    assert ledger.take() == []


def test_pause_works_once_and_resume_undoes_it(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2), chunk_size=1)
    assert not jobs.resume_job(ledger.database, job.id)
    assert jobs.pause_job(ledger.database, job.id, "why not")
    assert not jobs.pause_job(ledger.database, job.id, "again")
    assert ledger.now(job).reason == "why not"
    assert jobs.resume_job(ledger.database, job.id)
    assert (ledger.now(job).state, ledger.now(job).reason) == ("running", None)
    assert len(ledger.take()) == 2


def test_what_runs_while_a_job_is_paused_or_cancelled_still_commits(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2), chunk_size=1)
    first, second = ledger.claims()
    jobs.pause_job(ledger.database, job.id, "tea")
    assert ledger.annotate_all(first)
    jobs.cancel_job(ledger.database, job.id)
    assert ledger.annotate_all(second)
    assert ledger.counters(job) == (2, 2, 0, 0, 0)


def test_cancel_leaves_what_is_pending_unsettled(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3), chunk_size=1)
    assert ledger.annotate_all(ledger.claims()[0])
    assert jobs.cancel_job(ledger.database, job.id)
    assert not jobs.cancel_job(ledger.database, job.id)
    assert not jobs.pause_job(ledger.database, job.id, "too late")
    assert not jobs.resume_job(ledger.database, job.id)
    assert ledger.counters(job) == (3, 1, 0, 0, 2)
    assert ledger.take() == []


def test_a_job_finishes_when_it_is_listed_and_every_chunk_is_done(ledger: Any, items: Any) -> None:
    job = ledger.open()
    ledger.add(job, *items(1), end=False)
    ledger.annotate_all(ledger.one_claim())
    assert jobs.finish_jobs(ledger.database) == []
    listing.finish_listing(ledger.database, job)
    assert jobs.finish_jobs(ledger.database) == ["job"]
    assert jobs.finish_jobs(ledger.database) == []
    assert ledger.now(job).state == "finished"


def test_finishing_can_be_asked_of_one_job(ledger: Any) -> None:
    one, two = ledger.job_of(name="one"), ledger.job_of(name="two")
    assert jobs.finish_jobs(ledger.database, two.id) == ["two"]
    assert ledger.now(one).state == "running"


def test_a_paused_job_does_not_finish(ledger: Any) -> None:
    job = ledger.job_of()
    jobs.pause_job(ledger.database, job.id, "tea")
    assert jobs.finish_jobs(ledger.database) == []


def test_retry_and_finish_at_once_never_strand_a_chunk(ledger: Any, items: Any) -> None:
    """A finished job with a pending chunk would never be dispatched."""
    job = ledger.job_of(*items(1))
    for _ in range(20):
        claim = ledger.one_claim()
        assert ledger.complete(claim, ledger.failed(claim, claim.items[0], Code.TIMEOUT))
        threads = [
            threading.Thread(target=jobs.finish_jobs, args=(ledger.database,)),
            threading.Thread(target=retries.retry_failed, args=(ledger.database, job)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.now(job).state == "running"
        assert jobs.finish_jobs(ledger.database) == []


def test_a_hostile_reason_is_stored_in_words_that_every_database_takes(ledger: Any) -> None:
    job = ledger.open()
    assert jobs.pause_job(ledger.database, job.id, "bad\0 name \udcff é")
    assert ledger.now(job).reason == "bad\ufffd name \ufffd é"


def test_a_name_that_no_database_takes_is_refused(database: Database, ledger: Any) -> None:
    with pytest.raises(UsageError, match="job's name"):
        ledger.open("caf\udce9")
    with pytest.raises(UsageError, match="there is no job"):
        jobs.find_job(database, "caf\udce9")
