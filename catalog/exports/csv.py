"""CSV: a grounding a row, with the columns of the view `groundings`.

An image without boxes keeps one row, in which the columns of entity and box are empty: its caption counts as well.
"""

from collections.abc import Iterable, Iterator, Sequence

from catalog.exports.base import Work
from catalog.records import BELIEF, Record
from catalog.rows import CsvText
from schemas.grounding import Corners

OF_IMAGE = ("job", "image_id", "annotation_id", "uri", "task", "caption")
OF_ENTITY = ("entity", "phrase", "phrase_norm", "span_start", "span_end")
OF_BOX = ("box", "x1", "y1", "x2", "y2", "px1", "py1", "px2", "py2", "area", "score", "valid", "phrase_score", "head")
EXPECTED = ("expected_x1", "expected_y1", "expected_x2", "expected_y2")
SIGMA = ("sigma_px1", "sigma_py1", "sigma_px2", "sigma_py2")
OF_BELIEF = (*EXPECTED, *SIGMA, *BELIEF)
UNKNOWN = (None,) * len(EXPECTED)
COLUMNS = (*OF_IMAGE, *OF_ENTITY, *OF_BOX, *OF_BELIEF)
NO_BOX = "," * len((*OF_ENTITY, *OF_BOX, *OF_BELIEF))


def write(records: Iterable[Record], work: Work) -> None:
    text = CsvText()
    with work.path.open("w", encoding="utf-8", newline="") as file:
        file.write(text(COLUMNS) + "\n")
        for record in records:
            file.writelines(_lines(record, text))
            work.wrote(record)


def _lines(record: Record, text: CsvText) -> Iterator[str]:
    of_image = text((record.job, record.image_id, record.annotation_id, record.uri, record.task, record.caption))
    if not any(entity.boxes for entity in record.entities):
        yield f"{of_image}{NO_BOX}\n"
    for entity in record.entities:
        of_entity = text((entity.ordinal, entity.phrase, entity.phrase_norm, entity.start, entity.end))
        for number, box in enumerate(entity.boxes):
            corners = (box.x1, box.y1, box.x2, box.y2, *box.pixels(record.width, record.height))
            valid = "true" if box.valid else "false"
            edges = (*(box.expected or UNKNOWN), *_pixels(box.sigma, record))
            of_box = (number, *corners, box.area, box.score, valid, entity.score, entity.head)
            belief = box[-len(BELIEF) :]
            yield f"{of_image},{of_entity},{text((*of_box, *edges, *belief))}\n"


def _pixels(sigma: Corners | None, record: Record) -> Sequence[float | None]:
    """The uncertainty of edges in pixels of the upright picture."""
    if sigma is None:
        return UNKNOWN
    return [part * side for part, side in zip(sigma, (record.width, record.height) * 2, strict=True)]
