"""An export from the database to files with their manifest."""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from catalog.exports import FORMATS, Format
from catalog.exports.ahead import ahead
from catalog.exports.base import Options, Work
from catalog.exports.drafts import Target, drafting
from catalog.exports.manifest import write_manifest
from catalog.queries import progress_of, recipes_of, require_job
from catalog.reader import Reader
from catalog.records import Entity, Record, every_record, found_in
from catalog.search import Match, Search, matches_of
from schemas.errors import BEING_PRUNED, SetupError
from schemas.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to export of a job, and how. only_found: of each image, only the boxes that it was found by."""

    search: Search
    format: str
    out: Path
    options: Options = field(default_factory=Options)
    only_found: bool = False
    force: bool = False


@dataclass(frozen=True)
class Made:
    """What has been written, and what was left out by reason. lost: pictures among it, which the export names."""

    counts: Counter[str]
    left_out: Counter[str]
    lost: int
    bytes: int


def export(
    reader: Reader, order: Order, fetch: Callable[[str], bytes], progress: Callable[[int], None] = lambda done: None
) -> Made:
    """Write what is ordered. `fetch` gives a picture's bytes or raises ImageFailure; `progress` is told of more images.

    Raises SetupError where it cannot be written, UsageError where it cannot be had.
    """
    format_ = FORMATS[order.format]
    require_job(reader, order.search.job)
    _whole(reader, order.search.job)
    recipes = recipes_of(reader, order.search.job)
    reader.rest()
    target = Target(Path(os.path.abspath(order.out)), format_.is_folder, format_.beside)
    try:
        with drafting(target, force=order.force) as draft:
            work = Work(
                path=draft.path,
                scratch=draft.scratch,
                options=order.options,
                job=order.search.job,
                recipes=[one for one in recipes if _is_wanted(one, order.search)],
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                fetch=fetch,
            )
            format_.writer(_records(reader, order, work, progress), work)
            about = _about(reader, order, format_, work)
            size = write_manifest(draft.out / target.manifest, about)
    except OSError as error:
        raise SetupError(f"{order.out} cannot be written: {error.strerror or error}; nothing of it is left") from error
    return Made(work.counts, work.left_out, work.lost, size)


def _whole(reader: Reader, name: str) -> dict[str, Any]:
    """The progress of a job all of which is there. Raises SetupError where it is being pruned, or was meanwhile."""
    for job in progress_of(reader, name).records:
        if job["reason"] != BEING_PRUNED:
            return job
    raise SetupError(f"the job {name!r} is being pruned: an export would lack what has gone, and so there is none")


def _is_wanted(recipe: Recipe, search: Search) -> bool:
    return search.task in ("", recipe.task) and search.model in ("", recipe.model)


def _records(reader: Reader, order: Order, work: Work, progress: Callable[[int], None]) -> Iterator[Record]:
    """The records to write."""
    pages = _read(reader, order, work)
    # a server works while we write; SQLite would do so in this process, and the two would only be in each other's way
    with closing(pages if reader.dialect == "sqlite" else ahead(pages)) as found:
        for records in found:
            yield from records
            progress(len(records))


def _read(reader: Reader, order: Order, work: Work) -> Generator[list[Record]]:
    """No transaction is open while records are written: their pictures may take minutes."""
    search = order.search
    for records in every_record(reader, search):
        if order.only_found:
            ids = {record.annotation_id for record in records}
            records = _found(records, matches_of(reader, search, ids), work.left_out)
        reader.rest()
        yield records


def _found(records: Sequence[Record], matches: set[Match], left_out: Counter[str]) -> list[Record]:
    """The records with the boxes that match, and the entities that have one."""
    kept = []
    for record in records:
        entities = [entity for entity in found_in(record, matches) if entity.boxes]
        left_out["boxes that the filters did not find"] += _boxes(record.entities) - _boxes(entities)
        kept.append(record._replace(entities=entities))
    return kept


def _boxes(entities: Sequence[Entity]) -> int:
    return sum(len(entity.boxes) for entity in entities)


def _about(reader: Reader, order: Order, format_: Format, work: Work) -> dict[str, Any]:
    search = {name: value for name, value in asdict(order.search).items() if value not in ("", (), None)}
    job = _whole(reader, search.pop("job"))
    reader.rest()  # all files are hashed now, for as long as it takes
    return {
        "created": work.created,
        "job": work.job,
        "job_state": job["state"],
        "format": order.format,
        "filters": search | ({"only_found": True} if order.only_found else {}),
        "options": {name: getattr(order.options, name) for name in sorted(format_.options)},
        "recipes": work.recipes_told,
        "counts": {name: work.counts[name] for name in ("images", "annotations", "entities", "boxes")},
        "left_out": {reason: count for reason, count in work.left_out.items() if count},
    }
