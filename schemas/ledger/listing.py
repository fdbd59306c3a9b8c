"""From a listing to chunks. What is annotated already is settled on the way, in bulk, and never travels."""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, insert, select, update

from schemas.database import Database
from schemas.items import Item, image_key, pack_items, unpack_items
from schemas.ledger.bulk import batches, plain, run
from schemas.ledger.jobs import Job, lock_job
from schemas.ledger.known import KnownImage, annotated_contents, known_images, settled_images
from schemas.ledger.outcomes import Counts, Outcome, add_to_job, insert_outcomes, write_outcomes
from schemas.ledger.states import UNFINISHED
from schemas.tables import chunks, jobs, unix_now


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of one batch of a listing."""

    new: int
    reused: int
    known: int


class WaitingUris:
    """The URIs that wait in unfinished chunks of a job: eight bytes for each, as hashes in sorted arrays.

    There are many small arrays, by a hash's first bits, because sorting makes Python objects of what it sorts.
    """

    def __init__(self, uris: Iterable[str]) -> None:
        self._hashes: dict[int, array[int]] = defaultdict(lambda: array("Q"))
        for uri in uris:
            hashed = self._hash(uri)
            self._hashes[hashed >> 52].append(hashed)
        for first, some in self._hashes.items():
            self._hashes[first] = array("Q", sorted(some))

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def __contains__(self, uri: str) -> bool:
        hashed = self._hash(uri)
        some = self._hashes.get(hashed >> 52, ())
        at = bisect_left(some, hashed)
        return at < len(some) and some[at] == hashed

    @staticmethod
    def _hash(uri: str) -> int:
        return int.from_bytes(image_key(uri, "")[:8], "little")


NONE_WAITING = WaitingUris(())
CURSOR = select(jobs.c.cursor).where(jobs.c.id == bindparam("job")).with_for_update()
"""With the lock, an earlier try that the server still carries out is over when this is answered."""
ADVANCE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(cursor=bindparam("here"), skipped=jobs.c.skipped + bindparam("more"))
)


def waiting_uris(database: Database, job: Job) -> WaitingUris:
    """What a second listing of a job must leave alone, because the first one has put it into chunks."""
    waiting = select(chunks.c.item_list).where(chunks.c.job_id == job.id, UNFINISHED)
    with database.read() as connection:
        rows = connection.execution_options(yield_per=100).execute(waiting).scalars()
        return WaitingUris(item.uri for packed in rows for item in unpack_items(packed))


@dataclass(slots=True)
class _Batch:
    """Items by what is to be done with them."""

    new: list[Item] = field(default_factory=list)
    reused: dict[int, tuple[str, dict[int, int]]] = field(default_factory=dict)  # image → URI, recipe → annotation
    repeated: int = 0
    known: int = 0


def register(
    database: Database,
    job: Job,
    items: Sequence[Item],
    *,
    cursor: str | None,
    chunk_size: int,
    skipped: int = 0,
    recheck: bool = False,
    waiting: WaitingUris = NONE_WAITING,
    again: bool = False,
) -> Registered:
    """Put a batch of a listing into chunks, and its cursor beside them, in one transaction.

    An item whose version is annotated for every recipe gets its outcomes here; one that the job has settled before is
    left alone when the job is listed again, and counts as reused when the same listing names it twice. With `recheck`,
    an item without a version is always read again. `again` says that this batch was tried before and its answer never
    came: it may stand there by now.
    """
    with database.write() as connection:
        if again and run(connection, CURSOR, job=job.id).scalar() == cursor:
            return Registered(new=len(items), reused=0, known=0)
        found = known_images(connection, items, recheck=recheck)
        everyone = [image for some in found.values() for image in some]
        settled = settled_images(connection, job, {image.id for image in everyone})
        unsettled = {one.content_id for one in everyone if one.content_id and one.id not in settled}
        annotated = annotated_contents(connection, job, unsettled)
        standing_for = {names: _one_of(some, settled) for names, some in found.items()}
        left = [item for item in items if item.uri not in waiting] if waiting else items
        batch = _sort(left, standing_for, annotated, settled, again=job.listings > 0)
        batch.known += len(items) - len(left)
        _add_chunks(connection, job.id, batch.new, chunk_size)
        add_to_job(connection, job.id, _settle(connection, job, batch))
        run(connection, ADVANCE, job=job.id, here=cursor, more=skipped)
    return Registered(new=len(batch.new), reused=len(batch.reused) + batch.repeated, known=batch.known)


def finish_listing(database: Database, job: Job) -> None:
    """The listing has reached its end: the job finishes when its chunks do."""
    listed = {"listed_at": unix_now(), "listings": jobs.c.listings + 1, "cursor": None}
    with database.write() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job.id).values(listed))


def _one_of(candidates: Sequence[KnownImage], settled: Set[int]) -> KnownImage:
    """What a URI without version stands for: the image that the job shows, else the newest that could be read."""
    return max(candidates, key=lambda image: (image.id in settled, image.content_id is not None, image.id))


def _sort(
    items: Sequence[Item],
    standing_for: Mapping[tuple[str, str], KnownImage],
    annotated: Mapping[int, dict[int, int]],
    settled: Set[int],
    *,
    again: bool,
) -> _Batch:
    batch = _Batch()
    for item in items:
        image = standing_for.get((item.uri, item.version))
        if image is None:
            batch.new.append(item)
        elif image.id in settled and again:
            batch.known += 1
        elif image.id in settled or image.id in batch.reused:
            batch.repeated += 1
        elif image.content_id is not None and image.content_id in annotated:
            batch.reused[image.id] = item.uri, annotated[image.content_id]
        else:
            batch.new.append(item)
    return batch


def _add_chunks(connection: Connection, job_id: int, items: Sequence[Item], chunk_size: int) -> None:
    rows = [{"job_id": job_id, "item_list": pack_items(some), "size": len(some)} for some in batches(items, chunk_size)]
    if rows:
        connection.execute(insert(chunks), rows)


def _settle(connection: Connection, job: Job, batch: _Batch) -> Counts:
    """Outcomes for images that were annotated before the job asked; what the batch adds to the counters."""
    counts = Counts()
    if batch.reused:
        new = [
            Outcome(image, recipe, annotation, reused=True)
            for image, (_, by_recipe) in batch.reused.items()
            for recipe, annotation in by_recipe.items()
        ]
        inserted = insert_outcomes(connection, job.id, new)
        lock_job(connection, job.id)
        uris = {image: plain(uri) for image, (uri, _) in batch.reused.items()}
        counts = write_outcomes(connection, job.id, new, inserted, uris)
    counts["images"] += len(batch.new) + len(batch.reused) + batch.repeated
    counts["reused"] += batch.repeated * job.recipes
    return counts
