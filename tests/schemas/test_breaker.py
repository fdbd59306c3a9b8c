"""The circuit breaker: source faults in numbers pause the job, and cost no image its outcome."""

from typing import Any

import pytest

from schemas.errors import CONTENT_CODES, SOURCE_FAULTS, Code
from schemas.ledger import jobs
from schemas.results import Failure, Later


def fail(ledger: Any, claim: Any, code: Code, breaker_images: int) -> None:
    failed = [ledger.failed(claim, item, code, "forbidden") for item in claim.items]
    assert ledger.complete(claim, *failed, breaker_images=breaker_images)


@pytest.mark.parametrize("code", sorted(SOURCE_FAULTS))
def test_source_faults_in_numbers_pause_the_job_with_the_reason(ledger: Any, items: Any, code: Code) -> None:
    job = ledger.job_of(*items(4), chunk_size=2)
    first, second = ledger.claims()
    fail(ledger, first, code, 4)
    assert ledger.now(job).state == "running"
    fail(ledger, second, code, 4)
    now = ledger.now(job)
    assert (now.state, now.failed, now.pending) == ("paused", 2, 2)
    assert now.reason == f"4 images in a row could not be read; the last: {second.items[0].uri}: forbidden"


def test_what_was_held_back_is_done_after_resume_without_blame(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2))
    fail(ledger, ledger.one_claim(), Code.ACCESS_DENIED, 2)
    assert ledger.take() == []
    jobs.resume_job(ledger.database, job.id)
    again = ledger.one_claim()
    assert (again.items, again.tries, again.crashes) == (items(2), 0, 0)
    assert ledger.annotate_all(again)
    assert ledger.counters(job) == (2, 2, 0, 0, 0)


def test_resume_without_mending_pauses_again_after_as_many(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(4), chunk_size=2)
    for claim in ledger.claims():
        fail(ledger, claim, Code.ACCESS_DENIED, 4)
    jobs.resume_job(ledger.database, job.id)
    fail(ledger, ledger.one_claim(), Code.ACCESS_DENIED, 4)
    assert ledger.now(job).state == "running"


def test_one_image_that_is_read_ends_the_row(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(5), chunk_size=2)
    first, second, third = ledger.claims()
    fail(ledger, first, Code.NOT_FOUND, 3)
    missing, there = second.items
    settled = ledger.failed(second, missing, Code.NOT_FOUND), ledger.annotated(second, there)
    assert ledger.complete(second, *settled, breaker_images=3)
    fail(ledger, third, Code.NOT_FOUND, 3)
    assert ledger.now(job).state == "running"
    assert ledger.counters(job) == (5, 1, 0, 4, 0)


@pytest.mark.parametrize("code", sorted(set(Code) - SOURCE_FAULTS))
def test_content_codes_never_trip_it(ledger: Any, items: Any, code: Code) -> None:
    job = ledger.job_of(*items(5))
    fail(ledger, ledger.one_claim(), code, 1)
    assert (ledger.now(job).state, ledger.now(job).failed) == ("running", 5)


@pytest.mark.parametrize("code", sorted(CONTENT_CODES))
def test_what_is_read_and_no_picture_ends_the_row(ledger: Any, items: Any, code: Code) -> None:
    job = ledger.job_of(*items(3), chunk_size=1)
    first, second, third = ledger.claims()
    fail(ledger, first, Code.NOT_FOUND, 2)
    fail(ledger, second, code, 2)
    fail(ledger, third, Code.NOT_FOUND, 2)
    assert ledger.now(job).state == "running"


@pytest.mark.parametrize("code", sorted(set(Code) - SOURCE_FAULTS - CONTENT_CODES))
def test_what_says_nothing_of_the_source_leaves_the_count_as_it_is(ledger: Any, items: Any, code: Code) -> None:
    """A worker that dies again and again on an unreachable store hid the store's trouble."""
    job = ledger.job_of(*items(3), chunk_size=1)
    first, second, third = ledger.claims()
    fail(ledger, first, Code.NOT_FOUND, 2)
    fail(ledger, second, code, 2)
    assert ledger.now(job).state == "running"
    fail(ledger, third, Code.NOT_FOUND, 2)
    assert ledger.now(job).state == "paused"


def test_model_that_fails_on_an_image_that_was_read_ends_the_row(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3), chunk_size=1)
    first, second, third = ledger.claims()
    fail(ledger, first, Code.NOT_FOUND, 2)
    (item,) = second.items
    failure = dict.fromkeys(second.recipes, Failure(Code.MODEL_ERROR, "no numbers"))
    assert ledger.complete(second, ledger.mixed(item, failure), breaker_images=2)
    fail(ledger, third, Code.NOT_FOUND, 2)
    assert ledger.now(job).state == "running"


def test_faults_that_will_be_tried_again_count_as_well(ledger: Any, items: Any) -> None:
    """An unreachable store fails no image for long: without them it would never pause."""
    job = ledger.job_of(*items(2))
    claim = ledger.one_claim()
    later = Later(claim.items, tries=1, wait_s=-1, code=Code.STORAGE_UNAVAILABLE)
    assert ledger.complete(claim, later=[later], breaker_images=2)
    now = ledger.now(job)
    assert (now.state, now.pending) == ("paused", 2)
    assert now.reason == "2 images in a row could not be read: storage_unavailable"


def test_image_that_is_tried_again_is_no_other_image(ledger: Any, items: Any) -> None:
    """A few of them alone at the end of a job are not a hundred in a row."""
    job = ledger.job_of(*items(2))
    for tries in range(1, 4):
        claim = ledger.one_claim()
        later = Later(claim.items, tries=tries, wait_s=-1, code=Code.STORAGE_UNAVAILABLE)
        assert ledger.complete(claim, later=[later], breaker_images=3)
    assert ledger.now(job).state == "running"


def test_a_drained_chunk_says_nothing_of_the_source(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(4), chunk_size=2)
    first, second = ledger.claims()
    fail(ledger, first, Code.NOT_FOUND, 3)
    assert ledger.complete(second, later=[Later(second.items, tries=0)], breaker_images=3)
    fail(ledger, ledger.one_claim(), Code.NOT_FOUND, 3)
    assert ledger.now(job).state == "paused"


def test_the_same_command_again_goes_on_like_resume(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    fail(ledger, ledger.one_claim(), Code.NOT_FOUND, 1)
    assert ledger.now(job).state == "paused"
    assert ledger.open().state == "running"
    assert ledger.annotate_all(ledger.one_claim())


def test_a_cancelled_job_stays_cancelled(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    claim = ledger.one_claim()
    jobs.cancel_job(ledger.database, job.id)
    fail(ledger, claim, Code.NOT_FOUND, 1)
    assert (ledger.now(job).state, ledger.now(job).reason) == ("cancelled", None)


def test_a_reason_may_hold_what_postgresql_cannot(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1))
    claim = ledger.one_claim()
    failed = ledger.failed(claim, claim.items[0], Code.NOT_FOUND, "no \0 such \udcff file")
    assert ledger.complete(claim, failed, breaker_images=1)
    assert ledger.now(job).reason.endswith("no \ufffd such \ufffd file")
