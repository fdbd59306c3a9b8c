"""CSV: a grounding a row, with the columns of the view `groundings`.

An image without boxes keeps one row, in which the columns of entity and box are empty: its caption counts as well.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from catalog.exports.base import Work
from catalog.records import Record
from catalog.rows import csv_writer

OF_IMAGE = ("job", "image_id", "annotation_id", "uri", "task", "caption")
OF_ENTITY = ("entity", "phrase", "phrase_norm", "span_start", "span_end")
OF_BOX = ("box", "x1", "y1", "x2", "y2", "px1", "py1", "px2", "py2", "area", "score", "valid", "phrase_score", "head")
COLUMNS = (*OF_IMAGE, *OF_ENTITY, *OF_BOX)
NO_BOX = ("",) * (len(OF_ENTITY) + len(OF_BOX))


def write(records: Iterable[Record], work: Work) -> None:
    with work.path.open("w", encoding="utf-8", newline="") as file:
        writer = csv_writer(file)
        writer.writerow(COLUMNS)
        for record in records:
            writer.writerows(_rows(record))
            work.wrote(record)


def _rows(record: Record) -> Iterator[tuple[Any, ...]]:
    of_image = (record.job, record.image_id, record.annotation_id, record.uri, record.task, record.caption)
    if not any(entity.boxes for entity in record.entities):
        yield (*of_image, *NO_BOX)
    for entity in record.entities:
        of_entity = (entity.ordinal, entity.phrase, entity.phrase_norm, entity.start, entity.end)
        for number, box in enumerate(entity.boxes):
            corners = (box.x1, box.y1, box.x2, box.y2, *box.pixels(record.width, record.height))
            valid = "true" if box.valid else "false"
            yield (*of_image, *of_entity, number, *corners, box.area, box.score, valid, entity.score, entity.head)
