"""The census: what there is to do and who does it, counted at a cost that is bounded."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.ledger import census, jobs
from schemas.ledger.census import Unfinished, take_census
from schemas.results import Later


def test_empty_ledger_has_nothing_to_count(ledger: Any) -> None:
    found = take_census(ledger.database)
    assert found.chunks == {"pending": 0, "queued": 0, "running": 0}
    assert found.jobs == {"running": 0, "paused": 0, "finished": 0, "cancelled": 0}
    assert (found.unfinished, found.oldest_lease_s, found.workers) == ([], 0.0, 0)


def test_chunks_are_those_of_jobs_that_run(ledger: Any, items: Callable[..., Any]) -> None:
    ledger.job_of(*items(7), name="runs", chunk_size=1)
    first, second, *_ = ledger.take(most=4)
    ledger.claim(first)
    ledger.claim(second, worker="other")
    paused = ledger.job_of(*items(5, start=10), name="paused", chunk_size=1)
    jobs.pause_job(ledger.database, paused.id, "a person said so")
    found = take_census(ledger.database)
    assert found.chunks == {"pending": 3, "queued": 2, "running": 2}
    assert found.jobs == {"running": 1, "paused": 1, "finished": 0, "cancelled": 0}
    assert found.workers == 2


def test_no_more_chunks_are_counted_than_the_limit(
    ledger: Any, items: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.job_of(*items(7), chunk_size=1)
    monkeypatch.setattr(census, "MOST_CHUNKS", 5)
    monkeypatch.setitem(census.CHUNKS, "pending", census._of_running_jobs(census.PENDING))
    assert take_census(ledger.database).chunks["pending"] == 5


def test_oldest_lease_is_the_one_that_was_claimed_first(ledger: Any, items: Callable[..., Any]) -> None:
    ledger.job_of(*items(2), chunk_size=1)
    ledger.claims()
    ledger.change("UPDATE chunks SET claimed_at = claimed_at - 1000, lease_until = lease_until + 9 WHERE id = 2")
    assert 1000 <= take_census(ledger.database).oldest_lease_s < 1100


def test_unfinished_jobs_are_told_the_newest_first_with_their_outcomes(ledger: Any, items: Callable[..., Any]) -> None:
    ledger.job_of(*items(3), name="first")
    claim = ledger.one_claim()
    bad, good, rest = claim.items
    ledger.complete(claim, ledger.failed(claim, bad), ledger.annotated(claim, good), later=[Later([rest], 0)])
    second = ledger.job_of(*items(1, start=9), name="second")
    jobs.pause_job(ledger.database, second.id, "a person said so")
    assert take_census(ledger.database).unfinished == [
        Unfinished("second", "paused", "a person said so", 0, 0, 0, 1),
        Unfinished("first", "running", None, 1, 0, 1, 1),
    ]
    ledger.drain()
    assert [job.name for job in take_census(ledger.database).unfinished] == ["second"]
