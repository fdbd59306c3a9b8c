"""Some images from all over a job, and their pictures as a page holds them."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

from catalog.drawing import colour_number, draw, note_of, pieces_of
from catalog.queries import require_job
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

ReadPicture = Callable[[Record], Image.Image]
"""The upright picture of a record. Raises ImageFailure."""


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
    """So many annotated images from all over a job, in the order of their ids; of several prompts, of each in turn."""
    annotated = "o.job_id = :job AND o.annotation_id IS NOT NULL AND NOT o.superseded"
    values = {"job": require_job(reader, job)}
    ((first, last),) = reader.select(
        f"SELECT MIN(o.image_id), MAX(o.image_id) FROM outcomes o WHERE {annotated}", values
    ).rows
    if first is None:
        return []
    query = f"""
        SELECT o.annotation_id, o.image_id FROM outcomes o
        WHERE {annotated} AND o.image_id = (
            SELECT MIN(o.image_id) FROM outcomes o WHERE {annotated} AND o.image_id > :after)
        ORDER BY o.recipe_id, o.input"""
    hits: dict[int, Hit] = {}

    def take_next(after: int) -> int | None:
        rows = reader.select(query, values | {"after": after}).rows
        if not rows:
            return None
        hit = Hit(*rows[len(hits) % len(rows)])
        hits.setdefault(hit.image_id, hit)
        return hit.image_id

    taken: int | None = first - 1
    for place in range(number):
        if taken is not None:
            taken = take_next(max(taken, first - 1 + place * (last + 1 - first) // number))
    taken = first - 1  # where ids have gaps there are too few by now
    while taken is not None and len(hits) < number:
        taken = take_next(taken)
    return records_of(reader, [hits[image] for image in sorted(hits)], job)


def shown(record: Record, read: ReadPicture, most_bytes: int) -> Shown:
    """The image drawn with its boxes, in at most so many bytes as far as small pictures can be so small."""
    boxed = [entity for entity in record.entities if entity.boxes]
    parts = [(text, colour_number(one) if one else None) for text, one in pieces_of(record.caption, boxed)]
    try:
        picture = read(record)
    except ImageFailure as failure:
        return Shown(record, parts, trouble=f"{failure.code}: {failure.message}")
    for long_side in LONG_SIDES:
        drawn = draw(picture, "", record.entities, note_of(record.model), long_side=(min(long_side, 320), long_side))
        for quality in QUALITIES:
            buffer = BytesIO()
            drawn.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() * 4 / 3 <= most_bytes:
                return _shown(record, parts, buffer, drawn)
    return _shown(record, parts, buffer, drawn)


def bytes_for_each(pictures: int) -> int:
    """How much of the page each of so many pictures may take."""
    return min(MOST_BYTES, PAGE_BYTES // max(pictures, 1))


def _shown(record: Record, parts: Sequence[tuple[str, int | None]], jpeg: BytesIO, drawn: Image.Image) -> Shown:
    data = base64.b64encode(jpeg.getvalue()).decode("ascii")
    return Shown(record, parts, f"data:image/jpeg;base64,{data}", *drawn.size)
