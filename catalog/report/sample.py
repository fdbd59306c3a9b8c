"""Some images of a job, evenly spread over it, and their pictures as a page holds them."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from catalog.drawing import COLOURS, DrawnPhrase, draw
from catalog.reader import Reader
from catalog.records import Record, records_of
from catalog.search import Hit
from schemas.errors import ImageFailure

PAGE_BYTES = 2_400_000
"""What all the pictures of a page take at most, as text."""
MOST_BYTES = 120_000
LONG_SIDES = (640, 480, 320, 200)
QUALITIES = (82, 70, 55, 40, 25)
MOST_PICTURES = 100

ReadPicture = Callable[[str], Image.Image]
"""The upright picture behind a URI. Raises ImageFailure."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An image with its drawn picture, or with why there is none; `parts` are its caption with each phrase's colour."""

    record: Record
    parts: Sequence[tuple[str, int | None]]
    data_uri: str = ""
    width: int = 0
    height: int = 0
    trouble: str = ""

    @property
    def alt(self) -> str:
        boxed = [entity.phrase for entity in self.record.entities if entity.boxes]
        return f"The picture with boxes around: {', '.join(boxed)}" if boxed else "The picture; it has no box"


def sample_of(reader: Reader, job: str, number: int) -> list[Record]:
    """So many annotated images of a job, in the order of their ids; where it has several prompts, of each in turn."""
    ((job_id,),) = reader.select("SELECT id FROM jobs WHERE name = :job", {"job": job}).rows
    annotated = "o.job_id = :job AND o.annotation_id IS NOT NULL AND NOT o.superseded"
    values = {"job": job_id}
    ((first, last),) = reader.select(
        f"SELECT MIN(o.image_id), MAX(o.image_id) FROM outcomes o WHERE {annotated}", values
    ).rows
    if first is None:
        return []
    query = f"""
        SELECT o.annotation_id, o.image_id FROM outcomes o
        WHERE {annotated} AND o.image_id = (
            SELECT MIN(o.image_id) FROM outcomes o WHERE {annotated} AND o.image_id >= :least)
        ORDER BY o.recipe_id, o.input"""
    hits: list[Hit] = []
    for place in range(number):
        spread = first + place * (last + 1 - first) // number
        least = max(spread, hits[-1].image_id + 1) if hits else spread
        rows = reader.select(query, values | {"least": least}).rows
        if not rows:
            break
        hits.append(Hit(*rows[place % len(rows)]))
    return records_of(reader, hits, job)


def shown(record: Record, read: ReadPicture, most_bytes: int) -> Shown:
    """The image drawn with its boxes, in at most so many bytes as far as small pictures can be so small."""
    parts = caption_parts(record)
    try:
        picture = read(record.uri)
    except ImageFailure as failure:
        return Shown(record, parts, trouble=f"{failure.code}: {failure.message}")
    note = "demo model" if record.model == "demo" else ""
    for long_side in LONG_SIDES:
        drawn = draw(picture, "", drawn_phrases(record), note, long_side=(min(long_side, 320), long_side))
        for quality in QUALITIES:
            buffer = BytesIO()
            drawn.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() * 4 / 3 <= most_bytes:
                return _shown(record, parts, buffer, drawn)
    return _shown(record, parts, buffer, drawn)


def bytes_for_each(pictures: int) -> int:
    """How much of the page each of so many pictures may take."""
    return min(MOST_BYTES, PAGE_BYTES // max(pictures, 1))


def drawn_phrases(record: Record) -> list[DrawnPhrase]:
    """The phrases of a record that have boxes, as they are drawn: their places are those of their colours."""
    return [
        DrawnPhrase(
            entity.phrase,
            [(box.x1, box.y1, box.x2, box.y2) for box in entity.boxes],
            [box.score for box in entity.boxes],
            valid=all(box.valid for box in entity.boxes),
        )
        for entity in record.entities
        if entity.boxes
    ]


def caption_parts(record: Record) -> list[tuple[str, int | None]]:
    """The caption in parts, each with the number of the colour that its phrase's boxes have, or with none."""
    parts: list[tuple[str, int | None]] = []
    at = 0
    boxed = [entity for entity in record.entities if entity.boxes]
    coloured = sorted((entity.start, entity.end, place % len(COLOURS)) for place, entity in enumerate(boxed))
    for start, end, colour in coloured:
        if start < at or end <= start:
            continue  # within another phrase
        parts += [(record.caption[at:start], None), (record.caption[start:end], colour)]
        at = end
    return [(text, colour) for text, colour in [*parts, (record.caption[at:], None)] if text]


def _shown(record: Record, parts: Sequence[tuple[str, int | None]], jpeg: BytesIO, drawn: Image.Image) -> Shown:
    data = base64.b64encode(jpeg.getvalue()).decode("ascii")
    return Shown(record, parts, f"data:image/jpeg;base64,{data}", *drawn.size)
