"""`retry`: failures into new chunks, and their outcomes replaced when these settle."""

from typing import Any

import pytest

from schemas.errors import Code
from schemas.items import Item
from schemas.ledger import jobs, listing, retries
from schemas.results import Failure


def failing_job(ledger: Any, some: list[Item], *codes: Code) -> jobs.Job:
    """A finished job whose images failed, one with each code."""
    job = ledger.job_of(*some)
    claim = ledger.one_claim()
    ledger.complete(claim, *(ledger.failed(claim, item, code) for item, code in zip(some, codes, strict=True)))
    jobs.finish_jobs(ledger.database)
    return job


def retry(ledger: Any, job: jobs.Job, **options: Any) -> int:
    return retries.retry_failed(ledger.database, job, **options)


def test_retry_puts_failures_back_to_work_and_reopens_the_job(ledger: Any, items: Any) -> None:
    job = failing_job(ledger, items(2), Code.TRUNCATED, Code.NOT_FOUND)
    assert retry(ledger, job) == 2
    now = ledger.now(job)
    assert (now.state, now.failed, now.pending) == ("running", 0, 2)
    assert ledger.sql("SELECT * FROM failures") == []
    assert ledger.drain() == ["job"]
    assert ledger.counters(job) == (2, 2, 0, 0, 0)
    assert ledger.sql("SELECT COUNT(*) AS n FROM outcomes") == [{"n": 2}]


def test_retry_of_one_code_leaves_the_others(ledger: Any, items: Any) -> None:
    job = failing_job(ledger, items(3), Code.TRUNCATED, Code.NOT_FOUND, Code.NOT_FOUND)
    assert retry(ledger, job, code=Code.NOT_FOUND) == 2
    assert ledger.sql("SELECT code FROM failures") == [{"code": "truncated"}]
    ledger.drain()
    assert ledger.counters(job) == (3, 2, 0, 1, 0)


def test_retry_without_failures_changes_nothing(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    ledger.drain()
    assert retry(ledger, job) == 0
    assert ledger.now(job).state == "finished"


def test_a_retry_begins_with_the_breaker_at_nought(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3))
    claim = ledger.one_claim()
    ledger.complete(claim, *(ledger.failed(claim, item, Code.NOT_FOUND) for item in claim.items), breaker_images=4)
    jobs.finish_jobs(ledger.database)
    retry(ledger, job)
    claim = ledger.one_claim()
    ledger.complete(claim, *(ledger.failed(claim, item, Code.NOT_FOUND) for item in claim.items), breaker_images=4)
    assert (ledger.now(job).state, ledger.now(job).failed) == ("running", 3)


def test_a_retry_that_fails_again_is_one_failure_with_the_new_reason(ledger: Any, items: Any) -> None:
    job = failing_job(ledger, items(1), Code.TIMEOUT)
    retry(ledger, job)
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.failed(claim, claim.items[0], Code.NOT_FOUND, "gone"))
    assert ledger.sql("SELECT code, message FROM failures") == [{"code": "not_found", "message": "gone"}]
    assert ledger.counters(job) == (1, 0, 0, 1, 0)


def test_retry_twice_before_it_settles_makes_no_second_chunk(ledger: Any, items: Any) -> None:
    job = failing_job(ledger, items(2), Code.TIMEOUT, Code.TIMEOUT)
    assert retry(ledger, job) == 2
    assert retry(ledger, job) == 0
    assert len(ledger.take()) == 1


def test_only_the_recipes_that_failed_are_done_again(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2), recipes=[ledger.recipe("brief"), ledger.recipe("detailed")])
    claim = ledger.one_claim()
    brief, detailed = claim.recipes
    half, none = claim.items
    broken = Failure(Code.MODEL_ERROR, "no tokens")
    ledger.complete(
        claim, ledger.mixed(half, {brief: ledger.annotation(), detailed: broken}), ledger.failed(claim, none)
    )
    assert ledger.counters(job) == (2, 1, 0, 3, 0)
    assert retry(ledger, job) == 3
    claims = {claim.items[0].uri: list(claim.recipes) for claim in ledger.claims()}
    assert claims == {half.uri: [detailed], none.uri: [brief, detailed]}


def test_a_retry_that_reads_a_newer_version_replaces_the_failure(ledger: Any) -> None:
    job = failing_job(ledger, [Item("s3://b/a", "1")], Code.TRUNCATED)
    retry(ledger, job)
    claim = ledger.one_claim()
    assert ledger.complete(claim, ledger.annotated(claim, claim.items[0], version="2"))
    assert ledger.sql("SELECT sha256 FROM captions") == [{"sha256": "s3://b/a#2"}]
    assert ledger.sql("SELECT * FROM failures") == []
    assert ledger.counters(job) == (1, 1, 0, 0, 0)


def test_counters_close_when_a_newer_version_is_listed_during_a_retry(ledger: Any) -> None:
    job = ledger.job_of(Item("s3://b/a", "1"), recipes=[ledger.recipe("brief"), ledger.recipe("detailed")])
    claim = ledger.one_claim()
    brief, detailed = claim.recipes
    broken = Failure(Code.MODEL_ERROR, "no tokens")
    ledger.complete(claim, ledger.mixed(claim.items[0], {brief: ledger.annotation(), detailed: broken}))
    retry(ledger, job)
    again = ledger.open("job", ledger.recipe("brief"), ledger.recipe("detailed"))
    ledger.add(again, Item("s3://b/a", "2"))
    of_retry, of_listing = ledger.claims()
    assert ledger.complete(of_listing, ledger.annotated(of_listing, of_listing.items[0]))
    assert ledger.complete(of_retry, ledger.annotated(of_retry, of_retry.items[0], version="2"))
    assert ledger.counters(job) == (2, 2, 2, 0, 0)
    assert len(ledger.sql("SELECT * FROM captions")) == 2


def test_a_second_listing_leaves_alone_what_is_being_retried(ledger: Any, items: Any) -> None:
    job = failing_job(ledger, items(1), Code.TRUNCATED)
    retry(ledger, job)
    again = ledger.open()
    waiting = listing.waiting_items(ledger.database, again)
    assert ledger.add(again, *items(1), waiting=waiting).known == 1


def test_a_paused_job_stays_paused_and_a_cancelled_one_runs_again(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2), chunk_size=1)
    first, second = ledger.claims()
    ledger.complete(first, ledger.failed(first, first.items[0]))
    jobs.pause_job(ledger.database, job.id, "tea")
    assert retry(ledger, job) == 1
    assert ledger.now(job).state == "paused"
    ledger.complete(second, ledger.failed(second, second.items[0]))
    jobs.cancel_job(ledger.database, job.id)
    assert retry(ledger, job) == 1
    assert ledger.now(job).state == "running"


def test_failures_that_were_superseded_are_not_retried(ledger: Any) -> None:
    job = failing_job(ledger, [Item("s3://b/a", "1")], Code.TRUNCATED)
    ledger.add(ledger.open(), Item("s3://b/a", "2"))
    ledger.drain()
    assert retry(ledger, job) == 0
    assert ledger.counters(job) == (2, 1, 1, 0, 0)


def test_many_failures_go_back_in_several_transactions_each_once(
    ledger: Any, items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MOST_AT_ONCE", 7)
    codes = [Code.TRUNCATED, Code.NOT_FOUND, Code.INTERNAL] * 10
    job = failing_job(ledger, items(30), *codes)
    assert retry(ledger, job, chunk_size=4) == 30
    uris = [uri for departure in ledger.take() for uri in ledger.uris(departure)]
    assert sorted(uris) == [item.uri for item in items(30)]


def test_the_rate_of_a_job_counts_from_its_retry(ledger: Any, items: Any) -> None:
    job = failing_job(ledger, items(2), Code.TIMEOUT, Code.TIMEOUT)
    retry(ledger, job)
    assert ledger.sql("SELECT images_per_s FROM progress") == [{"images_per_s": 0}]
    ledger.drain()
    assert ledger.sql("SELECT images_per_s FROM progress")[0]["images_per_s"] > 0


def test_retry_of_a_running_job_never_shows_a_negative_rate(ledger: Any, items: Any) -> None:
    failing_job(ledger, items(2), Code.TIMEOUT, Code.TIMEOUT)
    job = ledger.open()
    retry(ledger, job)
    assert ledger.sql("SELECT images_per_s FROM progress") == [{"images_per_s": 0}]
