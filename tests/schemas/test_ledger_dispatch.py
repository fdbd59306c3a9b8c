"""Chunks on their way to the queue, and back when the queue or a worker has lost them."""

import re
import threading
from typing import Any

import pytest
from sqlalchemy import event

from schemas.errors import Code
from schemas.ledger import dispatch, jobs, work
from schemas.ledger.census import take_census
from schemas.ledger.shares import fair_shares
from schemas.results import Later


def states(ledger: Any) -> list[str]:
    return [row["state"] for row in ledger.sql("SELECT state FROM chunks ORDER BY id")]


def test_taking_moves_a_chunk_to_the_queue_under_a_new_fence(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2), chunk_size=1)
    fences = ledger.sql("SELECT fence FROM chunks ORDER BY id")
    departures = ledger.take()
    assert [departure.fence for departure in departures] == [row["fence"] + 1 for row in fences]
    assert [ledger.uris(departure) for departure in departures] == [[item.uri] for item in items(2)]
    assert states(ledger) == ["queued", "queued"]
    assert ledger.take() == []


def test_no_more_is_taken_than_asked_and_chunks_go_in_their_order(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(5), chunk_size=1)
    taken = [ledger.uris(departure)[0] for departure in ledger.take(2) + ledger.take(2) + ledger.take(2)]
    assert taken == [item.uri for item in items(5)]
    assert ledger.take(0) == []


def test_jobs_go_by_priority_then_in_turn(ledger: Any, items: Any) -> None:
    for name, priority in (("old", 0), ("young", 0), ("urgent", 9)):
        job = ledger.open(name, priority=priority)
        ledger.add(job, *items(2, start=10 * job.id), chunk_size=1)
    taken = ledger.take(5)
    ids = [ledger.sql("SELECT job_id FROM chunks WHERE id = :id", id=one.chunk_id)[0]["job_id"] for one in taken]
    urgent, old, young = (jobs.find_job(ledger.database, name).id for name in ("urgent", "old", "young"))
    assert ids == [urgent, urgent, old, young, old]


@pytest.mark.parametrize(
    ("most", "in_hand", "expected"),
    [
        (0, {1: 0}, {1: 0}),
        (5, {}, {}),
        (5, {1: 3}, {1: 5}),
        (5, {1: 0, 2: 0}, {1: 3, 2: 2}),
        (4, {1: 10, 2: 0}, {1: 0, 2: 4}),
        (4, {1: 2, 2: 0, 3: 9}, {1: 1, 2: 3, 3: 0}),
    ],
)
def test_those_with_the_fewest_chunks_in_hand_catch_up(
    most: int, in_hand: dict[int, int], expected: dict[int, int]
) -> None:
    assert fair_shares(most, in_hand) == expected


def test_what_one_job_leaves_of_its_share_goes_to_the_others(ledger: Any, items: Any) -> None:
    for name, count in (("one", 1), ("many", 9), ("two", 2)):
        ledger.job_of(*items(count), name=name, chunk_size=1)
    assert len(ledger.take(10)) == 10


def test_chunks_that_were_put_back_for_later_go_after_the_others(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(3), chunk_size=1)
    claim = ledger.claim(ledger.take(1)[0])
    assert ledger.complete(claim, later=[Later(claim.items, 1, wait_s=0)])
    assert [ledger.uris(one)[0] for one in ledger.take()] == [items(3)[number].uri for number in (1, 2, 0)]


def test_a_chunk_that_a_worker_died_over_goes_alone(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2), chunk_size=1)
    ledger.claim(ledger.take(1)[0], lease_s=-1)
    assert dispatch.reclaim_expired(ledger.database) == 1
    assert [one.alone for one in ledger.take()] == [True, False]


def test_questions_that_are_asked_all_the_time_never_walk_over_the_chunks(ledger: Any, items: Any) -> None:
    """A billion images are some ten million chunks: what is asked twice a second reads a few of them."""
    job = ledger.job_of(*items(40), chunk_size=1)
    ledger.take(3)
    ledger.claims()
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    event.listen(ledger.database.engine, "before_cursor_execute", note)
    dispatch.open_queues(ledger.database)
    dispatch.requeue_stale(ledger.database, 0.0)
    dispatch.requeue_lost(ledger.database, ledger.queue, "redis", 0.0)
    dispatch.reclaim_expired(ledger.database)
    dispatch.make_way(ledger.database, ledger.queue, "redis", 9)
    dispatch.count_queued(ledger.database, ledger.queue, "redis")
    jobs.finish_jobs(ledger.database)
    ledger.take(5)
    take_census(ledger.database)
    jobs.get_job(ledger.database, job.id)
    event.remove(ledger.database.engine, "before_cursor_execute", note)
    walks = {statement: walk for statement, values in asked if (walk := walk_over_chunks(ledger, statement, values))}
    assert len(asked) > 10
    assert walks == {}


def walk_over_chunks(ledger: Any, statement: str, values: Any) -> str:
    """The part of a statement's plan that reads all chunks, or sorts them."""
    if not statement.startswith(("SELECT", "UPDATE", "WITH")):
        return ""
    explain = "EXPLAIN QUERY PLAN " if ledger.database.is_sqlite else "EXPLAIN "
    with ledger.database.write() as connection:
        if not ledger.database.is_sqlite:
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # on so few rows it would be chosen
        plan = [str(row[-1]) for row in connection.exec_driver_sql(explain + statement, values)]
        connection.rollback()
    return "; ".join(
        line
        for line in plan
        if re.search(r"SCAN chunks(?! USING (COVERING )?INDEX ix_chunks_(queued|lease))|Seq Scan on chunks", line)
    )


def test_only_running_jobs_of_the_queue_are_taken(ledger: Any, items: Any) -> None:
    paused, cancelled = ledger.job_of(*items(1), name="paused"), ledger.job_of(*items(1), name="cancelled")
    ledger.job_of(*items(1), name="other", recipes=[ledger.recipe(model="other")])
    mine = ledger.job_of(*items(1), name="mine")
    jobs.pause_job(ledger.database, paused.id, "tea")
    jobs.cancel_job(ledger.database, cancelled.id)
    (taken,) = ledger.take()
    assert ledger.sql("SELECT job_id FROM chunks WHERE id = :id", id=taken.chunk_id) == [{"job_id": mine.id}]


def test_one_job_can_be_dispatched_alone(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1), name="one")
    two = ledger.job_of(*items(1), name="two")
    assert len(ledger.take(job_id=two.id)) == 1
    assert ledger.take(job_id=two.id) == []
    assert len(ledger.take()) == 1


def test_open_queues_are_those_of_running_jobs(ledger: Any) -> None:
    one = ledger.open("one")
    two = ledger.open("two", ledger.recipe(model="other"))
    assert set(dispatch.open_queues(ledger.database)) == {one.queue, two.queue}
    assert dispatch.open_queues(ledger.database, two.id) == [two.queue]
    jobs.pause_job(ledger.database, two.id, "tea")
    assert dispatch.open_queues(ledger.database) == [one.queue]
    assert dispatch.open_queues(ledger.database, two.id) == []


def test_two_dispatchers_at_once_take_each_chunk_once(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(120), chunk_size=1)
    start, taken = threading.Barrier(4), list[int]()

    def dispatch_all() -> None:
        start.wait()
        while some := ledger.take(7):
            assert len(some) <= 7
            taken.extend(departure.chunk_id for departure in some)

    threads = [threading.Thread(target=dispatch_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.extend(departure.chunk_id for departure in ledger.take())  # what a dispatcher passed by while it was held
    assert len(taken) == 120
    assert len(set(taken)) == 120


def test_a_chunk_waits_for_its_retry_time(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2))
    claim = ledger.one_claim()
    later = [Later(claim.items[:1], 1, wait_s=3600), Later(claim.items[1:], 1, wait_s=-1)]
    assert ledger.complete(claim, later=later)
    (ready,) = ledger.take()
    assert ledger.uris(ready) == [claim.items[1].uri]
    ledger.change("UPDATE chunks SET retry_at = retry_at - 3600")
    (waited,) = ledger.take()
    assert ledger.uris(waited) == [claim.items[0].uri]


def test_what_could_not_be_published_goes_back_once(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    (departure,) = ledger.take()
    assert dispatch.put_back(ledger.database, departure.chunk_id, departure.fence)
    assert not dispatch.put_back(ledger.database, departure.chunk_id, departure.fence)
    (again,) = ledger.take()
    assert again.fence > departure.fence
    assert ledger.claim(departure) is None
    assert not dispatch.put_back(ledger.database, departure.chunk_id, departure.fence)
    assert ledger.claim(again) is not None


def test_what_redis_lost_goes_back_after_the_grace(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(3), chunk_size=1)
    running, lost, _ = ledger.take(3)
    ledger.claim(running)
    assert dispatch.requeue_lost(ledger.database, ledger.queue, "redis", grace_s=60) == 0
    assert dispatch.requeue_lost(ledger.database, "another queue", "redis", grace_s=-1) == 0
    assert dispatch.requeue_lost(ledger.database, ledger.queue, "another broker", grace_s=-1) == 0
    assert dispatch.requeue_lost(ledger.database, ledger.queue, "redis", grace_s=-1) == 2
    assert states(ledger) == ["running", "pending", "pending"]
    assert ledger.claim(lost) is None


def test_a_dead_runs_chunks_go_back_at_once_and_nobody_is_blamed(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(2), chunk_size=1)
    other = ledger.job_of(*items(1), name="other")
    ledger.take(1)
    claim = ledger.claims()[0]
    assert dispatch.reclaim_broker(ledger.database, job.id, "re_is") == 0  # no wildcard
    assert dispatch.reclaim_broker(ledger.database, job.id, "red") == 2
    rows = ledger.sql("SELECT state, crashes FROM chunks WHERE job_id = :job", job=job.id)
    assert rows == 2 * [{"state": "pending", "crashes": 0}]
    assert ledger.sql("SELECT state FROM chunks WHERE job_id = :job", job=other.id) == [{"state": "running"}]
    assert not ledger.annotate_all(claim)


def test_an_expired_lease_counts_as_one_crash_and_a_live_one_does_not(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2), chunk_size=1)
    dead, alive = ledger.take()
    claim = ledger.claim(dead, lease_s=-1)
    ledger.claim(alive, lease_s=60)
    assert dispatch.reclaim_expired(ledger.database) == 1
    assert dispatch.reclaim_expired(ledger.database) == 0
    rows = ledger.sql("SELECT state, crashes, worker, lease_until FROM chunks ORDER BY id")
    assert rows[0] == {"state": "pending", "crashes": 1, "worker": None, "lease_until": None}
    assert (rows[1]["state"], rows[1]["crashes"]) == ("running", 0)
    assert not ledger.annotate_all(claim)


def test_leases_of_a_dead_worker_end_at_once(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(2), chunk_size=1)
    dead, alive = ledger.take()
    ledger.claim(dead, worker="dead")
    ledger.claim(alive, worker="alive")
    assert dispatch.reclaim_expired(ledger.database) == 0
    assert dispatch.expire_worker(ledger.database, "dead") == 1
    assert dispatch.reclaim_expired(ledger.database) == 1
    assert states(ledger) == ["pending", "running"]


def test_expired_leases_can_be_reclaimed_of_one_job(ledger: Any, items: Any) -> None:
    one, two = ledger.job_of(*items(1), name="one"), ledger.job_of(*items(1), name="two")
    ledger.claims(lease_s=-1)
    assert dispatch.reclaim_expired(ledger.database, two.id) == 1
    assert ledger.sql("SELECT job_id FROM chunks WHERE state = 'running'") == [{"job_id": one.id}]


def test_a_chunk_with_two_crashes_becomes_one_chunk_for_each_item(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3))
    for _ in range(2):
        ledger.one_claim(lease_s=-1)
        assert dispatch.reclaim_expired(ledger.database) == 1
    assert states(ledger) == ["done", "pending", "pending", "pending"]
    assert {row["crashes"] for row in ledger.sql("SELECT crashes FROM chunks WHERE state = 'pending'")} == {0}
    assert ledger.drain() == ["job"]
    assert ledger.counters(job) == (3, 3, 0, 0, 0)


def test_a_crashed_chunk_that_cannot_be_read_pauses_its_job_and_the_others_go_on(ledger: Any, items: Any) -> None:
    """As one that a newer Kosmograph has written: the dispatcher that must take it apart lives on."""
    job, other = ledger.job_of(*items(1)), ledger.job_of(items(2)[1], name="other")
    for _ in range(2):
        ledger.claims(lease_s=-1)
        ledger.change("UPDATE chunks SET item_list = '{' WHERE job_id = :id AND crashes = 1", id=job.id)
        assert dispatch.reclaim_expired(ledger.database) == 2
    assert ledger.now(job).state == "paused"
    assert "cannot be read" in ledger.now(job).reason
    assert ledger.sql("SELECT state FROM chunks WHERE job_id = :id", id=job.id) == [{"state": "pending"}]
    assert ledger.drain() == ["other"]
    assert ledger.now(other).state == "finished"


def test_an_image_that_crashes_twice_alone_has_failed_and_its_neighbours_have_not(ledger: Any, items: Any) -> None:
    job = ledger.job_of(*items(3), recipes=[ledger.recipe("brief"), ledger.recipe("detailed")])
    deadly = items(3)[1]
    for _ in range(4):
        for claim in ledger.claims(lease_s=-1):
            if deadly not in claim.items:
                assert ledger.annotate_all(claim)
        dispatch.reclaim_expired(ledger.database)
    assert jobs.finish_jobs(ledger.database) == ["job"]
    assert ledger.counters(job) == (3, 4, 0, 2, 0)
    rows = ledger.sql("SELECT uri, code, message FROM failures")
    assert {(row["uri"], row["code"]) for row in rows} == {(deadly.uri, Code.CRASHED_WORKER)}
    assert "2 times" in rows[0]["message"]


def test_a_worker_that_renews_in_time_keeps_its_chunk(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(1))
    claim = ledger.one_claim(lease_s=-1)
    assert work.renew_leases(ledger.database, "w", [claim.chunk_id], 60) == {claim.chunk_id: "running"}
    assert dispatch.reclaim_expired(ledger.database) == 0
    assert ledger.annotate_all(claim)


def test_two_that_reclaim_at_once_count_one_crash(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(20), chunk_size=1)
    ledger.claims(lease_s=-1)
    start = threading.Barrier(3)

    def reclaim() -> None:
        start.wait()
        dispatch.reclaim_expired(ledger.database)

    threads = [threading.Thread(target=reclaim) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(row["state"], row["crashes"]) for row in ledger.sql("SELECT * FROM chunks")} == {("pending", 1)}


def test_two_that_take_a_chunk_apart_at_once_conserve_its_items(ledger: Any, items: Any) -> None:
    ledger.job_of(*items(8))
    ledger.one_claim(lease_s=-1)
    dispatch.reclaim_expired(ledger.database)
    ledger.one_claim(lease_s=-1)
    start = threading.Barrier(3)

    def reclaim() -> None:
        start.wait()
        dispatch.reclaim_expired(ledger.database)

    threads = [threading.Thread(target=reclaim) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(uri for one in ledger.take() for uri in ledger.uris(one)) == [item.uri for item in items(8)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL scans whatever is this small
def test_the_dispatchers_questions_go_by_an_index(ledger: Any, items: Any, statements: list[str]) -> None:
    """Twice a second, whatever the size of the archive."""
    job = ledger.job_of(*items(4), chunk_size=1)
    ledger.annotate_all(ledger.claims()[0])
    statements.clear()
    ledger.take()
    dispatch.reclaim_expired(ledger.database)
    dispatch.requeue_lost(ledger.database, ledger.queue, "redis", 1)
    dispatch.expire_worker(ledger.database, "w")
    jobs.finish_jobs(ledger.database)
    dispatch.reclaim_broker(ledger.database, job.id, "redis")
    with ledger.database.read() as connection:
        for statement in {one for one in statements if not one.startswith(("BEGIN", "PRAGMA"))}:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?"))
            assert "SCAN chunks" not in [row[3] for row in plan], statement
