"""`find`: images by what is said of them and by what lies where in them, as a table, JSON, or a sheet of pictures."""

import math
import time
from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from catalog.queries import captions_are_indexed, places_of
from catalog.reader import Reader
from catalog.records import Record, found_in, records_of
from catalog.search import Match, Search, find_page, matches_of
from kosmograph.control import open_database
from kosmograph.output import say, say_json, say_table, warn
from schemas.errors import KosmographError
from schemas.settings import load_settings

COLUMNS = ("image", "uri", "found", "score", "trust", "area", "caption")


def find(
    search: Search,
    *,
    limit: int,
    after: str,
    sheet: Path | None,
    as_json: bool,
    allow_http: bool | None,
    db: str | None,
) -> int:
    """Print the images that have what is looked for, and draw them if wanted; the exit code."""
    with open_database(db) as reader:
        if search.text and not index_new_captions(reader, db):
            warn("captions of the last run are not in the index of words yet, and this user may not add them")
        page = find_page(reader, search, limit=limit, after=after)
        records = records_of(reader, page.hits, search.job)
        matches = matches_of(reader, search, {record.annotation_id for record in records}) if records else set()
        places = places_of(reader, [record.image_id for record in records]) if sheet else {}
    if as_json:
        say_json({"found": [_document(record, matches) for record in records], "after": page.cursor or None})
    else:
        _say(records, matches, page.cursor)
    if sheet and records:
        from kosmograph.pictures import save_sheet

        save_sheet(records, matches, places, sheet, load_settings(db=db, allow_http=allow_http))
        if not as_json:
            say(f"saved {sheet}")
    return 0


def index_new_captions(reader: Reader, db: str | None, limit_s: float = math.inf) -> bool:
    """On SQLite, take in what a run that was killed has left out, as far as this user may write; whether all is in.

    It stops with the captions at which `limit_s` is over.
    """
    if captions_are_indexed(reader):
        return True
    from sqlalchemy.exc import DBAPIError

    from schemas.caption_search import AT_ONCE, index_captions
    from schemas.database import Database

    with suppress(DBAPIError, KosmographError), closing(Database(load_settings(db=db).db)) as database:
        deadline = time.monotonic() + limit_s
        while index_captions(database) == AT_ONCE:
            if time.monotonic() > deadline:
                return False
        return True
    return False


def _say(records: Sequence[Record], matches: Collection[Match], cursor: str) -> None:
    if not records:
        say("nothing found")
        return
    rows = []
    for record in records:
        found = _found(record, matches)
        phrases = ", ".join(dict.fromkeys(phrase for phrase, *_ in found))
        best = max(found, key=lambda one: one[1] or 0.0, default=("", None, None, None))
        rows.append((record.image_id, record.uri, phrases, *best[1:], record.caption))
    say_table(COLUMNS, rows)
    if cursor:
        warn(f"there are more; --after {cursor} goes on, --limit N shows more at once")


def _found(record: Record, matches: Collection[Match]) -> list[tuple[str, float | None, float | None, float]]:
    """Phrase, score, trust and area of each box that the record was found for."""
    return [
        (entity.phrase, box.score, box.trust, box.area) for entity in found_in(record, matches) for box in entity.boxes
    ]


def _document(record: Record, matches: Collection[Match]) -> dict[str, Any]:
    return {
        "job": record.job,
        "image_id": record.image_id,
        "annotation_id": record.annotation_id,
        "uri": record.uri,
        "task": record.task,
        "model": record.model,
        "caption": record.caption,
        "width": record.width,
        "height": record.height,
        "groundings": [
            {
                "entity": entity.ordinal,
                "phrase": entity.phrase,
                "box": [box.x1, box.y1, box.x2, box.y2],
                "score": box.score,
                "area": box.area,
                "valid": box.valid,
                "found": Match(record.annotation_id, entity.ordinal, number) in matches,
                "trust": box.trust,
                "doubts": box.doubts,
            }
            for entity in record.entities
            for number, box in enumerate(entity.boxes)
        ],
    }
