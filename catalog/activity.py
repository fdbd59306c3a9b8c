"""What goes on now: unfinished jobs, their chunks, who works on them, what failed. Bounded, however much there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from catalog.queries import require_job
from catalog.reader import Answer, Reader
from schemas.errors import Code
from schemas.views import NOW

MOST_JOBS = 50
MOST_CHUNKS = 100_000
"""What is counted of the chunks in each state."""
MOST_FAILURES = 1_000
"""What is counted of a job's failures of one code."""
MOST_RUNNING = 20_000
"""Chunks in work that are looked at: those whose leases end first."""

_JOBS = """
    SELECT j.id, p.job, p.state, p.images, p.recipes, p.annotated, p.reused, p.failed, p.pending, p.images_per_s,
           j.reason, j.priority, j.listed_at IS NOT NULL AS listed, COUNT(*) OVER () AS in_all
    FROM progress p JOIN jobs j ON j.name = p.job
    WHERE {condition} ORDER BY CASE j.state WHEN 'running' THEN 0 WHEN 'paused' THEN 1 ELSE 2 END, j.priority DESC, j.id
    LIMIT {most}"""
# the words of the partial indexes of unfinished chunks and of failures: nothing here walks over what is done
_COUNT = """
    (SELECT COUNT(*) FROM (SELECT 1 FROM chunks c
     WHERE c.job_id {jobs} AND c.state <> 'done' AND c.state = '{state}' LIMIT {most}) counted) AS {state}"""
_WORKERS = """
    SELECT c.worker, j.name AS job, COUNT(*) AS chunks, SUM(c.size) AS images,
           {now} - MIN(c.claimed_at) AS since_s, MIN(c.lease_until) - {now} AS lease_s
    FROM (SELECT worker, job_id, size, claimed_at, lease_until FROM chunks
          WHERE state = 'running' AND worker IS NOT NULL ORDER BY lease_until LIMIT {most}) c
    JOIN jobs j ON j.id = c.job_id
    WHERE c.job_id {jobs}
    GROUP BY c.worker, j.name ORDER BY c.worker, j.name"""
_FAILURES = """
    SELECT j.name AS job, w.code, (SELECT COUNT(*) FROM (SELECT 1 FROM outcomes o {by_index}
           WHERE o.job_id = j.id AND o.code IS NOT NULL AND o.code = w.code AND NOT o.superseded AND NOT o.retrying
           LIMIT {most}) counted) AS failures
    FROM jobs j CROSS JOIN (SELECT value AS code FROM {codes}) w WHERE j.id {jobs}
    ORDER BY job, failures DESC, code"""
_BY_INDEX = {"sqlite": "INDEXED BY ix_outcomes_failed", "postgresql": ""}
"""SQLite would walk over all outcomes of the job, by its primary key."""
_CODES = {"sqlite": "json_each(:codes)", "postgresql": "unnest(CAST(:codes AS text[])) AS value"}


@dataclass(frozen=True)
class Activity:
    """One look: rows by column name.

    `workers` has one for each worker and job: how many chunks and images it has in work, since when the oldest of them,
    and in how many seconds the first of its leases ends, negative where that is over.
    """

    jobs: Sequence[dict[str, Any]]
    jobs_in_all: int
    chunks: dict[str, int]
    workers: Sequence[dict[str, Any]]
    failures: Sequence[dict[str, Any]]


def activity(reader: Reader, job: str | None = None, seen: Sequence[int] = ()) -> Activity:
    """What goes on in the unfinished jobs, or in one; those with the ids `seen` are shown though they have ended."""
    jobs = _jobs(reader, job, seen)
    ids = [row["id"] for row in jobs]
    return Activity(
        jobs,
        jobs[0]["in_all"] if jobs else 0,
        _chunks(reader, ids) if ids else {},
        workers_of(reader, ids).records if ids else [],
        _failures(reader, [row["id"] for row in jobs if row["failed"]]),
    )


def workers_of(reader: Reader, job_ids: Sequence[int]) -> Answer:
    """Who has chunks of these jobs in work, by the ledger's leases: a row for each worker and job."""
    query = _WORKERS.format(now=NOW[reader.dialect], jobs=reader.in_list("jobs"), most=MOST_RUNNING)
    return reader.select(query, {"jobs": list(job_ids)})


def _jobs(reader: Reader, job: str | None, seen: Sequence[int]) -> list[dict[str, Any]]:
    if job is not None:
        condition, values = "j.id = :job", {"job": require_job(reader, job)}
    else:
        condition = f"j.state IN ('running', 'paused') OR j.id {reader.in_list('seen')}"
        values = {"seen": list(seen)}  # type: ignore[dict-item]
    return reader.select(_JOBS.format(condition=condition, most=MOST_JOBS), values).records


def _chunks(reader: Reader, job_ids: Sequence[int]) -> dict[str, int]:
    counts = (
        _COUNT.format(jobs=reader.in_list("jobs"), state=state, most=MOST_CHUNKS)
        for state in ("pending", "queued", "running")
    )
    return reader.select(f"SELECT {', '.join(counts)}", {"jobs": list(job_ids)}).records[0]


def _failures(reader: Reader, job_ids: Sequence[int]) -> Sequence[dict[str, Any]]:
    if not job_ids:
        return []
    codes, by_index = _CODES[reader.dialect], _BY_INDEX[reader.dialect]
    query = _FAILURES.format(codes=codes, by_index=by_index, jobs=reader.in_list("jobs"), most=MOST_FAILURES)
    rows = reader.select(query, {"jobs": list(job_ids), "codes": [str(code) for code in Code]}).records
    return [row for row in rows if row["failures"]]
