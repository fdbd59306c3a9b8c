"""Outcomes: one for each image, recipe and job. How they are written, replaced and counted.

Whoever writes outcomes of a job has its row locked (`lock_job`). Each mention of an image in a listing brings exactly
one count for each recipe: at every moment `images × recipes` is the sum of the counters and of what waits in chunks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, bindparam, delete, select, update

from schemas.ledger.bulk import VALUES, insert_into, insert_rows, plain, rows_where
from schemas.tables import images, jobs, outcomes, unix_now

Counts = Counter[Literal["images", "annotated", "reused", "failed"]]
"""What a transaction adds to the counters of its job."""


class Outcome(NamedTuple):
    """What became of an image under a recipe: an annotation, made or reused, or a failure with its code."""

    image_id: int
    recipe_id: int
    annotation_id: int | None = None
    reused: bool = False
    code: str | None = None
    message: str | None = None
    tries: int = 1

    @property
    def key(self) -> tuple[int, int]:
        return self.image_id, self.recipe_id

    @property
    def kind(self) -> Literal["annotated", "reused", "failed"]:
        """The counter of the job that it belongs to."""
        if self.code is not None:
            return "failed"
        return "reused" if self.reused else "annotated"


class Version(NamedTuple):
    """An image as a row: one version of a URI."""

    id: int
    key: bytes
    uri: str


_COLUMNS = [outcomes.c[name] for name in Outcome._fields]
_OF_JOB = (outcomes.c.job_id == bindparam("job"), outcomes.c.image_id.in_(VALUES))
VERSIONS = select(images.c.id, images.c.key, images.c.uri).where(images.c.uri.in_(VALUES))
SHOWN = select(*_COLUMNS, outcomes.c.retrying).where(*_OF_JOB, outcomes.c.superseded.is_(False))
STANDING = select(*_COLUMNS).where(*_OF_JOB, outcomes.c.retrying.is_(False), outcomes.c.superseded.is_(False))


def versions_of(connection: Connection, uris: Iterable[str]) -> list[Version]:
    """All images of these URIs. With the job locked, nobody else adds one of them to the job."""
    return [Version(*row) for row in rows_where(connection, VERSIONS, dict.fromkeys(map(plain, uris)))]


def write_outcomes(connection: Connection, job_id: int, new: Sequence[Outcome], versions: Sequence[Version]) -> Counts:
    """Write outcomes, and say by how much the job's counters change: by one for each of `new`.

    One that stands stays, unless it is a failure and an annotation has come; what comes second counts as reused. One
    that `retry` has put back is replaced. `versions` are all those of the URIs of `new`: a job shows one version of a
    URI, the latest it read, and the others are superseded.
    """
    if not new:
        return Counts()
    counts = Counts()
    standing = _standing(connection, job_id, {outcome.image_id for outcome in new})
    written: dict[tuple[int, int], Outcome] = {}
    for outcome in new:
        before = written.get(outcome.key) or standing.get(outcome.key)
        if before is None:
            counts[outcome.kind] += 1
        else:
            counts["reused"] += 1
            if before.code is None or outcome.code is not None:
                continue
            counts[before.kind] -= 1
            counts[outcome.kind] += 1
        written[outcome.key] = outcome
    _upsert(connection, job_id, [written[key] for key in sorted(written)])
    counts.update(_supersede(connection, job_id, new, versions))
    return counts


def add_to_job(connection: Connection, job_id: int, counts: Mapping[Any, int]) -> None:
    """Raise the job's counters."""
    changes = {name: jobs.c[name] + value for name, value in counts.items() if value}
    if changes:
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(changes))


def _standing(connection: Connection, job_id: int, image_ids: set[int]) -> dict[tuple[int, int], Outcome]:
    """The outcomes that count: not those that wait for a retry, and not those of an older version."""
    rows = rows_where(connection, STANDING, sorted(image_ids), job=job_id)
    return {(row[0], row[1]): Outcome(*row) for row in rows}


@cache
def _insert_or_replace(dialect: str) -> Any:
    insert = insert_into(dialect, outcomes).values(settled_at=unix_now())
    replaced = (*Outcome._fields[2:], "retrying", "superseded", "settled_at")
    return insert.on_conflict_do_update(
        index_elements=["job_id", "image_id", "recipe_id", "input"],
        set_={name: insert.excluded[name] for name in replaced},
    )


def _upsert(connection: Connection, job_id: int, rows: Sequence[Outcome]) -> None:
    same = {"job_id": job_id, "input": "", "retrying": False, "superseded": False}
    insert_rows(connection, _insert_or_replace(connection.dialect.name), [same | row._asdict() for row in rows])


def _supersede(connection: Connection, job_id: int, new: Sequence[Outcome], versions: Sequence[Version]) -> Counts:
    """Take the outcomes of other versions of these URIs out of the job's view.

    What stood counts as reused from now on, as every earlier mention of a URI does. What waited for a retry was out of
    the counters already: its chunk will bring its count.
    """
    uris = {version.id: version.uri for version in versions}
    many = {uri for uri, times in Counter(uris.values()).items() if times > 1}
    if not many:
        return Counts()
    latest = {(uris[outcome.image_id], outcome.recipe_id): outcome.image_id for outcome in new}
    rows = rows_where(connection, SHOWN, [id_ for id_, uri in uris.items() if uri in many], job=job_id)
    older = [row for row in rows if latest.get((uris[row.image_id], row.recipe_id), row.image_id) != row.image_id]
    this = (
        outcomes.c.job_id == job_id,
        outcomes.c.image_id == bindparam("image"),
        outcomes.c.recipe_id == bindparam("recipe"),
    )
    _each(connection, delete(outcomes).where(*this), [row for row in older if row.retrying])
    gone = [row for row in older if not row.retrying]
    _each(connection, update(outcomes).where(*this).values(superseded=True), gone)
    counts = Counts({"reused": len(gone)})
    for row in gone:
        counts[Outcome(*row[:-1]).kind] -= 1
    return counts


def _each(connection: Connection, statement: Any, rows: Sequence[Any]) -> None:
    if rows:
        connection.execute(statement, [{"image": row.image_id, "recipe": row.recipe_id} for row in rows])
