"""Outcomes: one for each image, recipe, input and job. How they are written, replaced and counted.

Whoever writes outcomes of a job inserts them (`insert_outcomes`), and then locks its row (`lock_job`) to judge what was
there before (`write_outcomes`): the lock is short, and who holds it waits for nobody's row. Each mention of an image in
a listing brings exactly one count for each recipe: at every moment `images × recipes` is the sum of the counters and of
what waits in chunks.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, bindparam, delete, select, update

from schemas.ledger.bulk import OTHERS, VALUES, Rows, rows_where, run
from schemas.ledger.known import Key
from schemas.ledger.states import STANDS
from schemas.tables import images, jobs, outcomes, unix_now

Counts = Counter[Literal["images", "annotated", "reused", "failed"]]
"""What a transaction adds to the counters of its job."""
COUNTERS = ("images", "annotated", "reused", "failed", "settled_before")


class Outcome(NamedTuple):
    """What became of an image under a recipe: an annotation, made or reused, or a failure with its code.

    `input` is the hash of what the item brought to the recipe.
    """

    image_id: int
    recipe_id: int
    input: str = ""
    annotation_id: int | None = None
    reused: bool = False
    code: str | None = None
    message: str | None = None
    tries: int = 1

    @property
    def key(self) -> Key:
        return self.image_id, self.recipe_id, self.input

    @property
    def kind(self) -> Literal["annotated", "reused", "failed"]:
        """The counter of the job that it belongs to."""
        if self.code is not None:
            return "failed"
        return "reused" if self.reused else "annotated"


_COLUMNS = [outcomes.c[name] for name in Outcome._fields]
_JOB = outcomes.c.job_id == bindparam("job")
_OF_JOB = (_JOB, outcomes.c.image_id.in_(VALUES))
THIS = (
    _JOB,
    outcomes.c.image_id == bindparam("image"),
    outcomes.c.recipe_id == bindparam("recipe"),
    outcomes.c.input == bindparam("brought"),
)
OTHER_VERSIONS = select(images.c.id, images.c.uri).where(images.c.uri.in_(VALUES), images.c.id.not_in(OTHERS))
SHOWN = select(*_COLUMNS, outcomes.c.retrying).where(*_OF_JOB, outcomes.c.superseded.is_(False))
_KEY = ("image_id", "recipe_id", "input")
PRESENT = select(*(outcomes.c[name] for name in _KEY)).where(*_OF_JOB)
STANDING = select(*_COLUMNS).where(*_OF_JOB, STANDS)
COUNT = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values({name: jobs.c[name] + bindparam(f"{name}_more") for name in COUNTERS})
)


def _replace(insert: Any) -> Any:
    replaced = (*Outcome._fields[len(_KEY) :], "retrying", "superseded", "settled_at")
    return insert.on_conflict_do_update(
        index_elements=["job_id", *_KEY],
        set_={name: insert.excluded[name] for name in replaced},
    )


_FIELDS = ("job_id", *Outcome._fields)
NEW = Rows(outcomes, _FIELDS, computed={"settled_at": unix_now()}, returning=_KEY)
REPLACING = Rows(outcomes, _FIELDS, _replace, computed={"settled_at": unix_now()})


def insert_outcomes(connection: Connection, job_id: int, new: Sequence[Outcome]) -> set[Key]:
    """Write the outcomes of images of which the job has none; the keys of those written.

    It needs no lock on the job, and comes before it: whose outcome of an image comes first is decided by its key. What
    was there already, or has more than one in `new`, is for `write_outcomes` to judge.
    """
    first: dict[Key, Outcome] = {}
    for outcome in new:
        before = first.get(outcome.key)
        if before is None or _takes_the_place(outcome, before):
            first[outcome.key] = outcome
    if connection.dialect.name == "sqlite":  # nobody else writes
        for row in rows_where(connection, PRESENT, {key[0] for key in first}, job=job_id):
            first.pop((row[0], row[1], row[2]), None)
    written = NEW.insert(connection, [_row(job_id, first[key]) for key in sorted(first)])
    return set(first) if written is None else {(row[0], row[1], row[2]) for row in written}


def withdraw_outcomes(connection: Connection, job_id: int, keys: Iterable[Key]) -> None:
    """Take back what `insert_outcomes` has written in this transaction."""
    rows = these(job_id, keys)
    if rows:
        connection.execute(delete(outcomes).where(*THIS), rows)


def write_outcomes(
    connection: Connection, job_id: int, new: Sequence[Outcome], inserted: Set[Key], uris: Mapping[int, str]
) -> Counts:
    """Write outcomes, and say by how much the job's counters change: by one for each of `new`.

    One that stands stays, unless it is a failure and an annotation has come; what comes second counts as reused. One
    that `retry` has put back is replaced. `inserted` are the keys that `insert_outcomes` has written, `uris` those of
    the images of `new`: a job shows one version of a URI, the latest it read, and the others are superseded.
    """
    if not new:
        return Counts()
    counts = Counts()
    standing = _standing(connection, job_id, {outcome.image_id for outcome in new if outcome.key not in inserted})
    written: dict[Key, Outcome] = {}
    for outcome in new:
        key = outcome.key
        before = written.get(key) or (None if key in inserted else standing.get(key))
        if before is None:
            counts[outcome.kind] += 1
        else:
            counts["reused"] += 1
            if not _takes_the_place(outcome, before):
                continue
            counts[before.kind] -= 1
            counts[outcome.kind] += 1
        written[key] = outcome
    REPLACING.insert(connection, [_row(job_id, written[key]) for key in sorted(written.keys() - inserted)])
    counts.update(_supersede(connection, job_id, new, uris))
    return counts


def add_to_job(connection: Connection, job_id: int, counts: Mapping[Any, int]) -> None:
    """Raise the job's counters."""
    changes = {f"{name}_more": counts.get(name, 0) for name in COUNTERS}
    if any(changes.values()):
        run(connection, COUNT, job=job_id, **changes)


def these(job_id: int, keys: Iterable[Key]) -> list[dict[str, Any]]:
    """What a statement with THIS asks for, one by one."""
    return [{"job": job_id, "image": image, "recipe": recipe, "brought": input_} for image, recipe, input_ in keys]


def _row(job_id: int, outcome: Outcome) -> tuple[Any, ...]:
    return job_id, *outcome


def _takes_the_place(outcome: Outcome, before: Outcome) -> bool:
    return before.code is not None and outcome.code is None


def _standing(connection: Connection, job_id: int, image_ids: set[int]) -> dict[Key, Outcome]:
    """The outcomes that count: not those that wait for a retry, and not those of an older version."""
    rows = rows_where(connection, STANDING, sorted(image_ids), job=job_id)
    return {outcome.key: outcome for outcome in map(Outcome._make, rows)}


def _supersede(connection: Connection, job_id: int, new: Sequence[Outcome], uris: Mapping[int, str]) -> Counts:
    """Take the outcomes of other versions of these URIs out of the job's view.

    What stood counts as reused from now on, as every earlier mention of a URI does. What waited for a retry was out of
    the counters already: its chunk will bring its count.
    """
    others = run(connection, OTHER_VERSIONS, values=list(set(uris.values())), others=list(uris))
    every = {**uris, **{row[0]: row[1] for row in others}}
    if len(every) == len(set(uris.values())):
        return Counts()
    many = {uri for uri, times in Counter(every.values()).items() if times > 1}
    latest = {(every[image], recipe, input_): image for image, recipe, input_ in (outcome.key for outcome in new)}
    rows = rows_where(connection, SHOWN, [id_ for id_, uri in every.items() if uri in many], job=job_id)
    shown = [(Outcome._make(row[:-1]), row[-1]) for row in rows]
    older = [(one, retrying) for one, retrying in shown if _is_older(one, every, latest)]
    withdraw_outcomes(connection, job_id, [one.key for one, retrying in older if retrying])
    gone = [one for one, retrying in older if not retrying]
    _hide(connection, job_id, gone)
    counts = Counts({"reused": len(gone)})
    for one in gone:
        counts[one.kind] -= 1
    return counts


def _is_older(one: Outcome, uris: Mapping[int, str], latest: Mapping[tuple[str, int, str], int]) -> bool:
    """Whether another image of its URI has come for the same recipe and input."""
    return latest.get((uris[one.image_id], one.recipe_id, one.input), one.image_id) != one.image_id


def _hide(connection: Connection, job_id: int, older: Sequence[Outcome]) -> None:
    rows = these(job_id, [one.key for one in older])
    if rows:
        connection.execute(update(outcomes).where(*THIS).values(superseded=True), rows)
