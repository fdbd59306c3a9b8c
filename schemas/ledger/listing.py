"""From a listing to chunks. What is annotated already is settled on the way, in bulk, and never travels."""

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from schemas.database import Database
from schemas.inputs import Inputs
from schemas.items import Item, image_key, pack_items, unpack_items
from schemas.ledger.bulk import batches, plain, run
from schemas.ledger.jobs import Job, lock_job, recipes_of
from schemas.ledger.known import IsSettled, Key, KnownImage, annotated_contents, is_settled, known_images
from schemas.ledger.outcomes import Counts, Outcome, add_to_job, insert_outcomes, write_outcomes
from schemas.ledger.pruning import keep_off_pruning
from schemas.ledger.states import UNFINISHED, first_fence
from schemas.tables import chunks, jobs, unix_now


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of one batch of a listing."""

    new: int
    reused: int
    known: int


class WaitingItems:
    """The items that wait in unfinished chunks of a job, by URI and input: eight bytes for each, as hashes in arrays.

    There are many small arrays, by a hash's first bits, because sorting makes Python objects of what it sorts.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._hashes: dict[int, array[int]] = defaultdict(lambda: array("Q"))
        for item in items:
            hashed = self._hash(item)
            self._hashes[hashed >> 52].append(hashed)
        for first, some in self._hashes.items():
            self._hashes[first] = array("Q", sorted(some))

    def __bool__(self) -> bool:
        return bool(self._hashes)

    def __contains__(self, item: Item) -> bool:
        hashed = self._hash(item)
        some = self._hashes.get(hashed >> 52, ())
        at = bisect_left(some, hashed)
        return at < len(some) and some[at] == hashed

    @staticmethod
    def _hash(item: Item) -> int:
        return int.from_bytes(image_key(item.uri, item.input)[:8], "little")


NONE_WAITING = WaitingItems(())
CURSOR = select(jobs.c.cursor).where(jobs.c.id == bindparam("job")).with_for_update()
"""With the lock, an earlier try that the server still carries out is over when this is answered."""
ADVANCE = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(cursor=bindparam("here"), skipped=jobs.c.skipped + bindparam("more"))
)


def waiting_items(database: Database, job: Job) -> WaitingItems:
    """What a second listing of a job must leave alone, because the first one has put it into chunks."""
    waiting = select(chunks.c.item_list).where(chunks.c.job_id == job.id, UNFINISHED)
    with database.read() as connection:
        rows = connection.execution_options(yield_per=100).execute(waiting).scalars()
        return WaitingItems(item for packed in rows for item in unpack_items(packed))


class _Mention(NamedTuple):
    """An item of a batch with the image that it stands for, if one is known, and the hashes of what it brings."""

    item: Item
    image: KnownImage | None = None
    brought: Mapping[int, str] = {}
    settled: bool = False


@dataclass(slots=True)
class _Batch:
    """Items by what is to be done with them."""

    new: list[Item] = field(default_factory=list)
    reused: dict[tuple[Outcome, ...], str] = field(default_factory=dict)  # of an image, with its URI
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
    waiting: WaitingItems = NONE_WAITING,
    again: bool = False,
) -> Registered:
    """Put a batch of a listing into chunks, and its cursor beside them, in one transaction.

    An item whose version is annotated for every recipe gets its outcomes here; one that the job has settled before is
    left alone when the job is listed again, and counts as reused when the same listing names it twice. With `recheck`,
    an item without a version is always read again. `again` says that this batch was tried before and its answer never
    came: it may stand there by now.
    """
    with database.write() as connection:
        keep_off_pruning(connection)
        if again and run(connection, CURSOR, job=job.id).scalar() == cursor:
            return Registered(new=len(items), reused=0, known=0)
        left = [item for item in items if item not in waiting] if waiting else items
        mentions = _known(connection, job, left, recheck=recheck)
        unsettled = {id_ for one in mentions if one.image and not one.settled and (id_ := one.image.content_id)}
        annotated = annotated_contents(connection, job, unsettled)
        batch = _sort(mentions, annotated, again=job.listings > 0)
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


def _known(connection: Connection, job: Job, items: Sequence[Item], *, recheck: bool) -> list[_Mention]:
    """Each item with what the database knows of it."""
    found = known_images(connection, items, recheck=recheck)
    inputs = Inputs(recipes_of(connection, job.id))
    settled = is_settled(connection, job, {image.id for some in found.values() for image in some}, inputs)
    return [
        _mention(item, candidates, inputs.hashes_of(item), settled)
        if (candidates := found.get(item.image))
        else _Mention(item)
        for item in items
    ]


def _mention(item: Item, candidates: Sequence[KnownImage], brought: Mapping[int, str], settled: IsSettled) -> _Mention:
    """What a URI without version stands for: the image that the job shows, else the newest that could be read."""
    shown = [image for image in candidates if settled(image.id, brought)]
    image = max(shown or candidates, key=lambda image: (image.content_id is not None, image.id))
    return _Mention(item, image, brought, bool(shown))


def _sort(mentions: Sequence[_Mention], annotated: Mapping[Key, int], *, again: bool) -> _Batch:
    batch = _Batch()
    for one in mentions:
        if one.settled and again:
            batch.known += 1
        elif one.settled:
            batch.repeated += 1
        elif not (outcomes := _reused(one, annotated)):
            batch.new.append(one.item)
        elif outcomes in batch.reused:
            batch.repeated += 1
        else:
            batch.reused[outcomes] = one.item.uri
    return batch


def _reused(one: _Mention, annotated: Mapping[Key, int]) -> tuple[Outcome, ...]:
    """The outcomes of an image whose content is annotated for every recipe."""
    if one.image is None or (content_id := one.image.content_id) is None:
        return ()
    image_id, keys = one.image.id, one.brought.items()
    if not all((content_id, *key) in annotated for key in keys):
        return ()
    return tuple(Outcome(image_id, *key, annotated[content_id, *key], reused=True) for key in keys)


def _add_chunks(connection: Connection, job_id: int, items: Sequence[Item], chunk_size: int) -> None:
    rows = [
        {"job_id": job_id, "item_list": pack_items(some), "size": len(some), "fence": first_fence()}
        for some in batches(items, chunk_size)
    ]
    if rows:
        connection.execute(insert(chunks), rows)


def _settle(connection: Connection, job: Job, batch: _Batch) -> Counts:
    """Outcomes for images that were annotated before the job asked; what the batch adds to the counters."""
    counts = Counts()
    if batch.reused:
        new = list(chain.from_iterable(batch.reused))
        inserted = insert_outcomes(connection, job.id, new)
        lock_job(connection, job.id)
        uris = {outcomes[0].image_id: plain(uri) for outcomes, uri in batch.reused.items()}
        counts = write_outcomes(connection, job.id, new, inserted, uris)
    counts["images"] += len(batch.new) + len(batch.reused) + batch.repeated
    counts["reused"] += batch.repeated * job.recipes
    return counts
