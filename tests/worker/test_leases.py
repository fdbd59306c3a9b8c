"""The leases of a worker, on both databases."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from schemas.database import Database
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing
from schemas.ledger.work import Claim, claim_chunk
from schemas.recipes import Recipe
from worker import leases as module
from worker.leases import Leases

RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")


@pytest.fixture
def claims(database: Database) -> list[Claim]:
    """Two running chunks of `w`, whose leases end in a minute."""
    job = jobs.open_job(database, "job", [RECIPE], listing="{}")
    listing.register(database, job, [Item("s3://b/1"), Item("s3://b/2")], cursor=None, chunk_size=1)
    departures = dispatch.take_pending(database, job.queue, "here", 9)
    claimed = [claim_chunk(database, one.chunk_id, one.fence, worker="w", lease_s=60) for one in departures]
    return [claim for claim in claimed if claim]


@pytest.fixture
def leases(database: Database) -> Iterator[Leases]:
    """By its thread renewed so seldom that the tests do it."""
    made = Leases(database, "w", lease_s=1000)
    yield made
    made.close()


def ends(database: Database) -> list[float]:
    with database.read() as connection:
        return list(connection.execute(text("SELECT lease_until FROM chunks ORDER BY id")).scalars())


def test_only_what_is_held_is_renewed(database: Database, claims: list[Claim], leases: Leases) -> None:
    before = ends(database)
    with leases.hold(claims[0]) as held:
        leases.renew()
    renewed, other = ends(database)
    assert renewed > before[0] + 500
    assert other == before[1]
    assert not held.stop.is_set()
    leases.renew()
    assert ends(database) == [renewed, other]


@pytest.mark.parametrize("how", [lambda d, id_: jobs.pause_job(d, id_, "by hand"), jobs.cancel_job])
def test_pause_and_cancel_reach_a_running_chunk_with_the_renewal(
    database: Database, claims: list[Claim], leases: Leases, how: Callable[..., bool]
) -> None:
    with leases.hold(claims[0]) as held:
        how(database, claims[0].job_id)
        leases.renew()
    assert held.stop.is_set()
    assert not held.lost


def test_chunk_that_was_taken_away_is_told(database: Database, claims: list[Claim], leases: Leases) -> None:
    with leases.hold(claims[0]) as held, leases.hold(claims[1]) as kept:
        with database.write() as connection:
            connection.execute(text("UPDATE chunks SET lease_until = 1 WHERE id = :id"), {"id": claims[0].chunk_id})
        dispatch.reclaim_expired(database)
        leases.renew()
    assert held.lost
    assert held.stop.is_set()
    assert not kept.stop.is_set()


def test_same_chunk_held_again_outlives_the_end_of_the_first_hold(
    database: Database, claims: list[Claim], leases: Leases
) -> None:
    before = ends(database)
    first = leases.hold(claims[0])
    first.__enter__()
    with leases.hold(claims[0]):
        first.__exit__(None, None, None)
        leases.renew()
    assert ends(database)[0] > before[0] + 500


def test_renewal_goes_on_after_the_database_was_away(
    database: Database, claims: list[Claim], monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., Any]
) -> None:
    monkeypatch.setattr(module, "MOST_INTERVAL_S", 0.01)
    renew, calls = module.renew_leases, list[int]()

    def away_first(*arguments: Any) -> dict[int, str]:
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("", {}, Exception("the connection is lost"))
        return renew(*arguments)

    monkeypatch.setattr(module, "renew_leases", away_first)
    before, leases = ends(database), Leases(database, "w", lease_s=1000)
    with leases.hold(claims[0]):
        wait_for(lambda: ends(database)[0] > before[0] + 500)
    leases.close()
