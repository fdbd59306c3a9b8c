"""What goes on now, as the ledger has it."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from catalog.activity import MOST_FAILURES, activity
from catalog.reader import Reader, open_reader
from schemas.database import Database
from schemas.errors import Code, UsageError
from schemas.items import Item
from schemas.ledger import dispatch, jobs, listing, work
from schemas.recipes import Recipe
from tests.catalog.conftest import Picture, Shelve

RECIPE = Recipe(task="brief", prompt="p", model="null", revision="r", dtype="float32")


@pytest.fixture
def reader(database: Database, database_url: str) -> Iterator[Reader]:
    with open_reader(database_url) as one:
        yield one


def make(database: Database, name: str, images: int = 8, claimed_by: str = "") -> jobs.Job:
    """A listed job in chunks of two, of which a worker has the first."""
    job = jobs.open_job(database, name, [RECIPE], listing="{}")
    items = [Item(f"s3://{name}/{number}.jpg", "v") for number in range(images)]
    listing.register(database, job, items, cursor=None, chunk_size=2)
    listing.finish_listing(database, job)
    if claimed_by:
        first, *_ = dispatch.take_pending(database, job.queue, "here", 2, job.id)
        assert work.claim_chunk(database, first.chunk_id, first.fence, worker=claimed_by, lease_s=60)
    return job


def test_workers_are_those_who_hold_leases_with_what_they_have(database: Database, reader: Reader) -> None:
    make(database, "one", claimed_by="gpu-1")
    expired = make(database, "two", claimed_by="gpu-2")
    with database.write() as connection:
        back = "UPDATE chunks SET lease_until = lease_until - 90, claimed_at = claimed_at - 50 WHERE worker = 'gpu-2'"
        connection.execute(text(back))
    found = activity(reader)
    assert [(row["job"], row["listed"]) for row in found.jobs] == [("one", True), ("two", True)]
    assert found.chunks == {"pending": 4, "queued": 2, "running": 2}
    first, second = found.workers
    assert (first["worker"], first["job"], first["chunks"], first["images"]) == ("gpu-1", "one", 1, 2)
    assert 0 <= first["since_s"] < 30 < first["lease_s"] <= 60
    assert (second["worker"], second["lease_s"] < 0, second["since_s"] >= 50) == ("gpu-2", True, True)
    assert [row["worker"] for row in activity(reader, "two").workers] == ["gpu-2"]
    jobs.cancel_job(database, expired.id)
    assert [row["job"] for row in activity(reader).jobs] == ["one"]
    assert [row["state"] for row in activity(reader, None, [expired.id]).jobs] == ["running", "cancelled"]


def test_failures_are_counted_by_code_as_far_as_is_quickly_done(
    database: Database, reader: Reader, shelve: Shelve
) -> None:
    shelve("job", Picture("s3://job/0.jpg", code=Code.TRUNCATED), Picture("s3://job/1.jpg"))
    (failed,) = activity(reader, "job").failures
    assert (failed["job"], failed["code"], failed["failures"]) == ("job", "truncated", 1)
    series = {
        True: "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)",
        False: "WITH n(i) AS (SELECT generate_series(1000, 3000))",
    }[database.is_sqlite]
    key = "CAST(i AS BLOB)" if database.is_sqlite else "decode(lpad(to_hex(i), 32, '0'), 'hex')"
    with database.write() as connection:
        for statement in (
            f"INSERT INTO images (id, key, uri, version) {series} SELECT i, {key}, 's3://b/' || i, 'v' FROM n",
            f"INSERT INTO outcomes (job_id, image_id, recipe_id, input, code, message, settled_at) {series} "
            "SELECT w.job_id, i, w.recipe_id, '', 'timeout', '', 0 FROM n CROSS JOIN job_recipes w",
        ):
            connection.execute(text(statement))
    counts = {row["code"]: row["failures"] for row in activity(reader, "job").failures}
    assert counts == {"timeout": MOST_FAILURES, "truncated": 1}


def test_what_is_done_is_not_walked_over(database: Database, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make(database, "job", claimed_by="gpu")
    with database.write() as connection:
        connection.execute(text("UPDATE jobs SET failed = 1"))
    asked: list[tuple[str, dict[str, Any]]] = []
    select = reader.select

    def listen(query: str, values: dict[str, Any] | None = None) -> Any:
        asked.append((query, values or {}))
        return select(query, values)

    monkeypatch.setattr(reader, "select", listen)
    activity(reader, None, [job.id])
    if reader.dialect == "postgresql":  # which would rather read tables of so few rows
        select("SELECT set_config('enable_seqscan', 'off', false)")
    explain = "EXPLAIN QUERY PLAN" if reader.dialect == "sqlite" else "EXPLAIN"
    plans = ["\n".join(str(row[-1]) for row in select(f"{explain} {query}", values).rows) for query, values in asked]
    _, chunks, workers, failures = plans
    assert chunks.count("ix_chunks_") == 3, chunks
    assert "ix_chunks_lease" in workers, workers
    assert "ix_outcomes_failed" in failures, failures
    for plan in (chunks, workers, failures):
        assert not re.search(r"Seq Scan on (chunks|outcomes)|SCAN chunks(?! USING INDEX ix_chunks_lease)", plan), plan


def test_unknown_job_is_told(reader: Reader) -> None:
    with pytest.raises(UsageError, match="there is no job 'nobody'"):
        activity(reader, "nobody")
