"""What must hold after any fault, as the database shows it once the job is finished.

Nothing lost: each URI has its outcome under each recipe. Nothing doubled: it has one. Nothing leased: no chunk waits or
is held by anybody. And the rest that people rely on: counters close, annotations are whole, nobody is blamed wrongly.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, func, select

from schemas.database import Database
from schemas.tables import annotations, boxes, chunks, contents, entities, images, job_recipes, jobs, outcomes, recipes

Kind = Literal["lost", "doubled", "leased", "other"]
NAMED = 3
"""URIs that a message names; of the others it says how many there are."""


class Violation(NamedTuple):
    """One promise that is broken, and by which images."""

    kind: Kind
    text: str


def assert_sound(
    database: Database,
    uris: Collection[str],
    recipes: int = 1,
    *,
    job: str | None = None,
    codes: Collection[str] = (),
    failing: Mapping[str, str] | None = None,
) -> None:
    """The job has done exactly what it was given: `uris`, each as often as the listing named it.

    `job` may be left out where there is only one. `codes` are failures that any of its images may have, `failing` those
    that some must have, by URI.
    """
    __tracebackhide__ = True
    broken = violations(database, uris, recipes, job=job, codes=codes, failing=failing)
    assert not broken, "\n".join(f"{kind}: {text}" for kind, text in broken)


def violations(
    database: Database,
    uris: Collection[str],
    recipes: int = 1,
    *,
    job: str | None = None,
    codes: Collection[str] = (),
    failing: Mapping[str, str] | None = None,
) -> list[Violation]:
    """Every promise that the database breaks; none, as a rule. The words are those of `assert_sound`."""
    with database.read() as connection:
        row = _job(connection, job)
        return [
            *_state_of(connection, row, recipes),
            *_outcomes_of(connection, row, uris, codes, failing or {}),
            *_counters_of(connection, row, len(uris)),
            *_annotations_of(connection),
        ]


def _job(connection: Connection, name: str | None) -> Row[Any]:
    rows = connection.execute(select(jobs) if name is None else select(jobs).where(jobs.c.name == name)).all()
    assert len(rows) == 1, f"which job? there are {[row.name for row in rows] or 'none'}"
    return rows[0]


def _state_of(connection: Connection, job: Row[Any], expected_recipes: int) -> Iterator[Violation]:
    if job.state != "finished":
        yield Violation("other", f"the job is {job.state}" + (f": {job.reason}" if job.reason else ""))
    if job.listed_at is None:
        yield Violation("other", f"the job was not listed to the end; its cursor is {job.cursor}")
    have = connection.scalar(select(func.count()).select_from(job_recipes).where(job_recipes.c.job_id == job.id))
    if not have == job.recipes == expected_recipes:
        yield Violation(
            "other", f"{expected_recipes} recipes were asked for, the job has {have} and says {job.recipes}"
        )
    open_ = (chunks.c.state != "done") | chunks.c.lease_until.is_not(None) | chunks.c.worker.is_not(None)
    for chunk in connection.execute(select(chunks).where(chunks.c.job_id == job.id, open_).order_by(chunks.c.id)):
        held = f", held by {chunk.worker} until {chunk.lease_until}" if chunk.worker or chunk.lease_until else ""
        yield Violation(
            "leased", f"chunk {chunk.id} of {chunk.size} images is {chunk.state}{held}: {chunk.item_list[:200]}"
        )


def _outcomes_of(
    connection: Connection, job: Row[Any], uris: Collection[str], codes: Collection[str], failing: Mapping[str, str]
) -> Iterator[Violation]:
    """One standing outcome for each URI and recipe, of the URI's own bytes, and none that nobody asked for."""
    recipe_ids = connection.scalars(select(job_recipes.c.recipe_id).where(job_recipes.c.job_id == job.id)).all()
    wanted = (
        select(outcomes, images.c.uri, images.c.content_id, annotations.c.content_id.label("annotated_content"))
        .select_from(outcomes.join(images).outerjoin(annotations, annotations.c.id == outcomes.c.annotation_id))
        .where(outcomes.c.job_id == job.id, outcomes.c.superseded.is_(False))
    )
    rows = connection.execute(wanted).all()
    yield from _told("other", "still wait for a retry", [row.uri for row in rows if row.retrying])
    standing = [row for row in rows if not row.retrying]
    found = Counter((row.uri, row.recipe_id) for row in standing)
    expected = {(uri, recipe) for uri in uris for recipe in recipe_ids}
    yield from _told("lost", "have no outcome", [uri for uri, _ in expected - found.keys()])
    yield from _told("doubled", "have several outcomes", [uri for (uri, _), many in found.items() if many > 1])
    yield from _told("other", "have an outcome that nobody asked for", [uri for uri, _ in found.keys() - expected])
    failed = [row for row in standing if row.code not in (None, failing.get(row.uri), *codes)]
    for code in sorted({row.code for row in failed}):
        some = [row for row in failed if row.code == code]
        yield from _told("other", f"failed as {code} ({some[0].message})", [row.uri for row in some])
    spared = [row.uri for row in standing if row.code is None and row.uri in failing]
    yield from _told("other", "should have failed", spared)
    alien = [row.uri for row in standing if row.code is None and row.annotated_content != row.content_id]
    yield from _told("other", "have the annotation of other bytes", alien)


def _counters_of(connection: Connection, job: Row[Any], mentions: int) -> Iterator[Violation]:
    """They close, and each is what the rows say; a mention that brought no outcome of its own counts as reused."""
    standing = (outcomes.c.job_id == job.id, outcomes.c.superseded.is_(False), outcomes.c.retrying.is_(False))
    annotated, failed = connection.execute(
        select(
            func.count().filter(outcomes.c.code.is_(None), outcomes.c.reused.is_(False)),
            func.count().filter(outcomes.c.code.is_not(None)),
        ).where(*standing)
    ).one()
    reused = mentions * job.recipes - annotated - failed
    true = {"images": mentions, "annotated": annotated, "reused": reused, "failed": failed}
    for name, value in true.items():
        if (counted := getattr(job, name)) != value:
            yield Violation("other", f"the job counts {counted} as {name}, and there are {value}")


def _annotations_of(connection: Connection) -> Iterator[Violation]:
    """Each once, each somebody's, and those of the null model with their one entity and one box."""
    identity = (annotations.c.content_id, annotations.c.recipe_id, annotations.c.input)
    twice = select(annotations.c.content_id).group_by(*identity).having(func.count() > 1)
    yield from _told("doubled", "have two annotations", _uris_with(connection, connection.scalars(twice)))
    same = select(contents.c.sha256).group_by(contents.c.sha256).having(func.count() > 1)
    yield from _told("doubled", "are contents that are stored twice", connection.scalars(same))
    pointed_at = select(outcomes.c.image_id).where(outcomes.c.annotation_id == annotations.c.id).exists()
    orphans = connection.scalars(select(annotations.c.content_id).where(~pointed_at))
    yield from _told("other", "have an annotation that no outcome points at", _uris_with(connection, orphans))
    for part in (entities, boxes):
        of_null = annotations.join(recipes).outerjoin(part, part.c.annotation_id == annotations.c.id)
        count = select(annotations.c.content_id).select_from(of_null).where(recipes.c.model == "null")
        wrong = count.group_by(annotations.c.id).having(func.count(part.c.annotation_id) != 1)
        text = f"have not just one row in {part.name}"
        yield from _told("other", text, _uris_with(connection, connection.scalars(wrong)))


def _uris_with(connection: Connection, content_ids: Iterable[int]) -> list[str]:
    """The first image of each of these contents."""
    uri = select(func.min(images.c.uri))
    return [str(connection.scalar(uri.where(images.c.content_id == id_))) for id_ in content_ids]


def _told(kind: Kind, what: str, uris: Iterable[str]) -> Iterator[Violation]:
    """One line that names some of the images, if there are any."""
    some = sorted(uris)
    if some:
        more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
        yield Violation(kind, f"{len(some)} {what}: {', '.join(some[:NAMED])}{more}")
