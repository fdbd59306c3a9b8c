"""A worker's claim on a chunk: once, under its fence, for as long as its lease is renewed."""

import time
from typing import Any

import pytest

from schemas.ledger import dispatch, jobs, retries, work


def test_a_claim_brings_the_items_and_the_recipes(ledger: Any, items: Any) -> None:
    recipes = [ledger.recipe("brief"), ledger.recipe("detailed")]
    job = ledger.job_of(*items(2), recipes=recipes)
    claim = ledger.one_claim()
    assert (claim.job_id, claim.items, claim.tries, claim.crashes) == (job.id, items(2), 0, 0)
    assert list(claim.recipes.values()) == recipes


def test_a_doubled_message_is_claimed_once(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    (message,) = ledger.take()
    claims = [ledger.claim(message, worker=worker) for worker in ("a", "b", "a", "b", "a")]
    assert [claim is not None for claim in claims] == [True, False, False, False, False]


def test_a_late_message_changes_nothing(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    (late,) = ledger.take()
    dispatch.requeue_lost(ledger.database, ledger.queue, "redis", grace_s=-1)
    assert ledger.claim(late) is None
    (fresh,) = ledger.take()
    assert ledger.claim(late) is None
    claim = ledger.claim(fresh)
    assert claim is not None
    assert ledger.claim(late) is None
    assert ledger.annotate_all(claim)
    assert ledger.claim(late) is None
    assert ledger.claim(fresh) is None


def test_a_message_for_no_chunk_is_refused(ledger: Any) -> None:
    assert ledger.claim(dispatch.Departure(12345, 1, 1)) is None


@pytest.mark.parametrize("stop", ["pause", "cancel"])
def test_a_message_that_arrives_while_its_job_does_not_run_leaves_the_chunk_pending(
    ledger: Any, items: Any, stop: str
) -> None:
    """Were it left queued, nobody would send it again: its message is used up."""
    job = ledger.job_of(*items(1))
    (message,) = ledger.take()
    state = "paused" if stop == "pause" else "cancelled"
    ledger.change("UPDATE jobs SET state = :state", state=state)  # as if between taking and publishing
    assert ledger.claim(message) is None
    assert ledger.sql("SELECT state FROM chunks") == [{"state": "pending"}]
    ledger.open()
    assert ledger.annotate_all(ledger.one_claim())
    assert ledger.counters(job) == (1, 1, 0, 0, 0)


def test_a_chunk_that_cannot_be_read_pauses_its_job_and_blames_nobody(ledger: Any, items: Any) -> None:
    """As one whose recipe is of a newer Kosmograph than this worker: claimed, it would be sent again without end."""
    job = ledger.job_of(*items(1))
    ledger.change("UPDATE recipes SET spec = '{}'")
    assert ledger.claims() == []
    assert ledger.now(job).state == "paused"
    assert "cannot be read" in ledger.now(job).reason
    assert ledger.sql("SELECT state, crashes FROM chunks") == [{"state": "pending", "crashes": 0}]


def test_a_lease_is_kept_by_the_databases_clock(ledger: Any, items: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is wrong by a year neither loses its leases nor keeps them for ever."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 365 * 86400)
    ledger.job_of(*items(1))
    ledger.one_claim(lease_s=40)
    (row,) = ledger.sql("SELECT lease_until FROM chunks")
    assert 0 < row["lease_until"] - real() < 60


def test_renewing_names_the_state_of_each_job_whose_chunk_is_still_ours(ledger: Any, items: Any) -> None:
    one = ledger.job_of(*items(1), name="one")
    ledger.job_of(*items(1), name="two")
    first, second = ledger.claims(worker="a")
    jobs.pause_job(ledger.database, one.id, "tea")
    ids = [first.chunk_id, second.chunk_id]
    renewed = work.renew_leases(ledger.database, "a", ids, 60)
    assert renewed == {first.chunk_id: "paused", second.chunk_id: "running"}
    assert work.renew_leases(ledger.database, "b", ids, 60) == {}
    ledger.annotate_all(second)
    assert work.renew_leases(ledger.database, "a", ids, 60) == {first.chunk_id: "paused"}
    assert work.renew_leases(ledger.database, "a", [], 60) == {}


def test_renewing_extends_the_lease(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    claim = ledger.one_claim(lease_s=5)
    (before,) = ledger.sql("SELECT lease_until FROM chunks")
    work.renew_leases(ledger.database, "w", [claim.chunk_id], 500)
    (after,) = ledger.sql("SELECT lease_until FROM chunks")
    assert 490 < after["lease_until"] - before["lease_until"] < 520


def test_a_released_chunk_is_pending_and_nobody_is_blamed(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    claim = ledger.one_claim()
    assert work.release_chunk(ledger.database, claim)
    assert not work.release_chunk(ledger.database, claim)
    again = ledger.one_claim()
    assert (again.crashes, again.tries, again.items) == (0, 0, claim.items)
    assert not work.release_chunk(ledger.database, claim)


def test_a_chunk_of_a_retry_wants_the_recipes_that_failed_alone(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(1), recipes=[ledger.recipe("brief"), ledger.recipe("detailed")])
    claim = ledger.one_claim()
    first, second = claim.recipes
    (item,) = claim.items
    failure = ledger.failed(claim, item).results[second]
    ledger.complete(claim, ledger.mixed(item, {first: ledger.annotation(), second: failure}))
    retries.retry_failed(ledger.database, job)
    assert list(ledger.one_claim().recipes) == [second]


def test_annotations_are_found_by_content_and_recipe(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    claim = ledger.one_claim()
    ledger.complete(claim, ledger.annotated(claim, claim.items[0], sha256="abc"))
    (recipe,) = claim.recipes
    ((key, _),) = work.find_annotations(ledger.database, ["abc", "def"], [recipe, recipe + 1]).items()
    assert key == ("abc", recipe, "")
    assert work.find_annotations(ledger.database, [], [recipe]) == {}
    assert work.find_annotations(ledger.database, ["abc"], []) == {}
    many = [f"{number:064}" for number in range(5000)] + ["abc"]
    assert list(work.find_annotations(ledger.database, many, [recipe])) == [("abc", recipe, "")]


def test_a_claim_whose_answer_was_lost_is_ours_when_asked_for_again(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2))
    (departure,) = ledger.take()

    def claim(worker: str, again: bool) -> Any:
        place = (ledger.database, departure.chunk_id, departure.fence)
        return work.claim_chunk(*place, worker=worker, lease_s=60, again=again)

    first = claim("one", False)
    assert first is not None
    assert claim("one", False) is None
    assert claim("two", True) is None
    assert claim("one", True) == first
    assert ledger.annotate_all(first)
    assert claim("one", True) is None
