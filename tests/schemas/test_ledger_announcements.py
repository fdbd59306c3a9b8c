"""Announcements: every end and pause is told, by one of many, and again only where its teller has died."""

import threading
from typing import Any

import pytest

from schemas.database import Database
from schemas.ledger import jobs
from schemas.ledger.announcements import TELLING, claim_announcement, note_told, owe_again
from schemas.ledger.jobs import News
from schemas.ledger.retries import retry_failed


def told(database: Database, job_id: int | None = None) -> list[tuple[str, str]]:
    """What is owed now, told: the jobs and their states."""
    one = claim_announcement(database, job_id)
    if one is None:
        return []
    assert note_told(database, one)
    return [(one.job, one.state), *told(database, job_id)]


def test_a_finished_job_is_told_with_what_came_of_it(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(3), name="night")
    assert claim_announcement(ledger.database) is None
    claim = ledger.one_claim()
    first, *others = claim.items
    ledger.complete(claim, ledger.failed(claim, first), *(ledger.annotated(claim, item) for item in others))
    assert jobs.finish_jobs(ledger.database) == ["night"]
    one = claim_announcement(ledger.database)
    assert one is not None
    assert (one.job, one.state, one.reason, one.images, one.annotated, one.reused, one.failed, one.pending) == (
        *("night", "finished", None),
        *(3, 2, 0, 1, 0),
    )
    assert one.failures == {"truncated": 1}
    assert one.finished_at
    assert one.finished_at >= one.started_at
    assert one.images_per_s > 0
    assert one.news == News(settled=3, failed=1)
    assert note_told(ledger.database, one)
    ledger.add(ledger.open("night"))
    assert jobs.finish_jobs(ledger.database) == ["night"]
    again = claim_announcement(ledger.database)
    assert again is not None
    assert (again.annotated, again.failed, again.news) == (2, 1, News(settled=0, failed=0))


def test_every_way_to_an_end_or_a_pause_is_told_and_a_job_that_goes_on_is_told_again(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(4), chunk_size=2, name="night")
    assert jobs.pause_job(ledger.database, job.id, "by hand")
    assert told(ledger.database) == [("night", "paused")]
    assert jobs.resume_job(ledger.database, job.id)
    assert told(ledger.database) == []
    assert jobs.pause_job(ledger.database, job.id, "by hand")
    assert told(ledger.database) == [("night", "paused")]
    jobs.resume_job(ledger.database, job.id)
    first, _second = ledger.claims()
    assert ledger.complete(first, *(ledger.failed(first, item, "not_found") for item in first.items), breaker_images=2)
    assert told(ledger.database) == [("night", "paused")]  # by the breaker
    assert jobs.cancel_job(ledger.database, job.id)
    assert told(ledger.database) == [("night", "cancelled")]
    job = ledger.open("night")
    ledger.add(job)
    ledger.change("UPDATE chunks SET state = 'pending', worker = NULL, lease_until = NULL WHERE state = 'running'")
    assert told(ledger.database) == []
    ledger.drain()
    assert told(ledger.database) == [("night", "finished")]
    ledger.change("UPDATE outcomes SET annotation_id = NULL, code = 'timeout', message = ''")
    assert retry_failed(ledger.database, job)
    assert told(ledger.database) == []
    ledger.drain()
    assert told(ledger.database) == [("night", "finished")]


def test_a_pause_that_is_over_before_anybody_was_told_is_not_told(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    jobs.pause_job(ledger.database, job.id, "by hand")
    jobs.resume_job(ledger.database, job.id)
    assert told(ledger.database) == []


def test_one_of_many_dispatchers_tells(ledger: Any, items: Any) -> None:
    for number in range(3):
        ledger.job_of(*items(1, start=number), name=f"night {number}")
    ledger.drain()
    start, claimed = threading.Barrier(6), list[Any]()

    def dispatcher() -> None:
        start.wait()
        while one := claim_announcement(ledger.database):
            claimed.append(one)

    threads = [threading.Thread(target=dispatcher) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.job for one in claimed) == ["night 0", "night 1", "night 2"]


def test_who_serves_one_job_tells_of_that_one(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="theirs")
    ours = ledger.job_of(*items(1, start=1), name="ours")
    ledger.drain()
    assert told(ledger.database, ours.id) == [("ours", "finished")]
    assert told(ledger.database) == [("theirs", "finished")]


def test_jobs_that_ended_before_there_were_announcements_are_not_told(ledger: Any, items: Any) -> None:
    """Of a thousand old ones and one that runs while the database is upgraded, only the end of that one is told."""
    job = ledger.job_of(*items(1), name="running")
    old = "'old ' || n, queue, 'finished', '{}', recipes, created_at, started_at, started_at"
    ledger.change(
        "INSERT INTO jobs (name, queue, state, listing, recipes, created_at, started_at, finished_at) WITH RECURSIVE "
        f"numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000) SELECT {old} FROM jobs, numbers"
    )
    assert told(ledger.database) == []
    ledger.drain()
    assert told(ledger.database) == [("running", "finished")]
    assert ledger.now(job).state == "finished"


def test_what_ended_long_before_anybody_wanted_to_be_told_is_no_news_but_a_pause_is(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="long ago")
    paused = ledger.job_of(*items(1, start=1), name="paused")
    jobs.pause_job(ledger.database, paused.id, "by hand")
    ledger.drain()
    ledger.change("UPDATE jobs SET started_at = started_at - 90000, finished_at = finished_at - 90000")
    assert told(ledger.database) == [("paused", "paused")]


def test_what_a_dead_dispatcher_had_begun_to_tell_is_told_by_another(ledger: Any, items: Any) -> None:
    """At least once: whether the dead one had told it, nobody knows."""
    ledger.job_of(*items(1))
    ledger.drain()
    dead = claim_announcement(ledger.database)
    assert dead is not None
    assert claim_announcement(ledger.database) is None
    long_ago = f"{TELLING}1000, {dead.claim.rpartition(' ')[2]}"
    ledger.change("UPDATE jobs SET announced = :then", then=long_ago)
    other = claim_announcement(ledger.database)
    assert other is not None
    assert not note_told(ledger.database, dead)
    assert note_told(ledger.database, other)
    assert told(ledger.database) == []


def test_what_could_not_be_told_in_time_is_owed_at_once(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    ledger.drain()
    one = claim_announcement(ledger.database)
    assert one is not None
    assert owe_again(ledger.database, one)
    assert told(ledger.database) == [("job", "finished")]


def test_an_end_that_comes_while_a_pause_is_told_is_told_after_it(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    jobs.pause_job(ledger.database, job.id, "by hand")
    pause = claim_announcement(ledger.database)
    assert pause is not None
    jobs.cancel_job(ledger.database, job.id)
    assert not note_told(ledger.database, pause)
    assert told(ledger.database) == [("job", "cancelled")]


def test_a_round_in_which_nothing_is_owed_is_one_statement(ledger: Any, items: Any, statements: list[str]) -> None:
    ledger.job_of(*items(1))
    statements.clear()
    assert claim_announcement(ledger.database) is None
    assert [one for one in statements if not one.startswith("BEGIN")] == statements[-1:]


@pytest.mark.parametrize("state", ["running", "paused"])
def test_only_what_has_ended_or_pauses_is_claimed(ledger: Any, items: Any, state: str) -> None:
    """A mark that an older state has left on a job which runs again."""
    job = ledger.job_of(*items(1))
    ledger.change("UPDATE jobs SET announced = 'owed', state = :state WHERE id = :id", state=state, id=job.id)
    assert [name for name, _ in told(ledger.database)] == (["job"] if state == "paused" else [])
