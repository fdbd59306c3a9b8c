"""Annotated images as records: what a search has found, and what exports and pages are made of."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from catalog.reader import Reader
from catalog.search import Hit, Match, Search, every_hit
from schemas.grounding import Corners
from schemas.trust import trust

AT_ONCE = 1_000
"""Records that stand in memory at once while they are streamed."""


class Box(NamedTuple):
    """A box as fractions of the upright picture, with its score; not `valid` where the model gave it inverted.

    expected and sigma are edges in the order of the corners: where the model's distribution has them on the average,
    and how unsure it is of each. What is None was not looked into, or the annotation is older than that.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    area: float
    score: float | None
    valid: bool
    expected: Corners | None = None
    sigma: Corners | None = None
    presence: float | None = None
    agreement: float | None = None
    mirror_agreement: float | None = None
    naming: float | None = None
    plausibility: float | None = None
    doubts: str | None = None
    evidence: float | None = None
    trust: float | None = None

    @property
    def certainty(self) -> float | None:
        """What a picture says of it beside its phrase: the trust, or the score of one that is older than trust."""
        return self.score if self.trust is None else self.trust

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """The corners in pixels of the upright picture, rounded as the view `groundings` does."""
        left, top = int(self.x1 * width + 0.5), int(self.y1 * height + 0.5)
        return left, top, int(self.x2 * width + 0.5), int(self.y2 * height + 0.5)


BELIEF = Box._fields[Box._fields.index("presence") :]
"""What there is to believe a box or not: fields of it, and columns of the view `groundings`."""


class Entity(NamedTuple):
    """A phrase of the caption, `caption[start:end]`, with its boxes in their order."""

    ordinal: int
    phrase: str
    phrase_norm: str
    head: str
    start: int
    end: int
    score: float | None
    boxes: Sequence[Box]


class Record(NamedTuple):
    """An image under a recipe: one row of the view `captions`, with its groundings.

    Of the jobs that show it, `job` is the newest, or the one that was searched. `input` is what the image brought to
    the prompt; absent_phrase and the next two are the view's columns, None without `--verify`.
    """

    job: str
    image_id: int
    annotation_id: int
    uri: str
    task: str
    prompt: str
    caption: str
    raw_text: str
    finish_reason: str
    mean_logprob: float | None
    width: int
    height: int
    sha256: str
    format: str
    model: str
    revision: str
    input: str | None
    absent_phrase: str | None
    yes_bias: float | None
    absent_score: float | None
    entities: Sequence[Entity] = ()


_FIELDS = """
    j.name, i.id, a.id, i.uri, r.task, COALESCE(a.prompt, r.prompt), a.caption, a.raw_text, a.finish_reason,
    a.mean_logprob, c.width, c.height, c.sha256, c.format, r.model, r.revision,
    (SELECT n.value FROM inputs n WHERE n.hash = a.input), a.absent_phrase, a.yes_bias, a.absent_score
"""


def records_of(reader: Reader, hits: Sequence[Hit], job: str = "") -> list[Record]:
    """The records of these hits, in their order; one that no job shows any more is left out."""
    images, annotations = sorted({hit.image_id for hit in hits}), sorted({hit.annotation_id for hit in hits})
    values: dict[str, Any] = {"images": images, "annotations": annotations} | ({"job": job} if job else {})
    # by the images' ids: an annotation may be that of many images with the same bytes
    query = f"""
        SELECT {_FIELDS}
        FROM outcomes o
        JOIN jobs j ON j.id = o.job_id
        JOIN images i ON i.id = o.image_id
        JOIN annotations a ON a.id = o.annotation_id
        JOIN recipes r ON r.id = a.recipe_id
        JOIN contents c ON c.id = a.content_id
        WHERE o.image_id {reader.in_list("images")} AND o.annotation_id {reader.in_list("annotations")}
              AND NOT o.superseded {"AND j.name = :job" if job else ""}
        ORDER BY o.job_id"""
    entities = _entities(reader, annotations)
    found: dict[Hit, Any] = {Hit(row[2], row[1]): row for row in reader.select(query, values).rows}
    return [Record(*(*found[hit], entities.get(hit.annotation_id, ()))) for hit in hits if hit in found]


def found_in(record: Record, matches: Collection[Match]) -> list[Entity]:
    """The record's entities, each with those of its boxes that are among the matches."""
    return [
        entity._replace(
            boxes=[
                box
                for number, box in enumerate(entity.boxes)
                if Match(record.annotation_id, entity.ordinal, number) in matches
            ]
        )
        for entity in record.entities
    ]


def every_record(reader: Reader, search: Search, *, at_once: int = AT_ONCE) -> Iterator[list[Record]]:
    """The records of all that a search finds, streamed in lists of `at_once`."""
    for hits in every_hit(reader, search, at_once=at_once):
        yield records_of(reader, hits, search.job)


def boxes_of(reader: Reader, annotation_id: int, job: str) -> list[dict[str, Any]]:
    """The boxes of an annotation in the order of its caption, each by the columns of the view `groundings`."""
    query = f"""
        SELECT DISTINCT entity, box, phrase, x1, y1, x2, y2, px1, py1, px2, py2, score, phrase_score, valid,
               expected_x1, expected_y1, expected_x2, expected_y2, sigma_px1, sigma_py1, sigma_px2, sigma_py2,
               {", ".join(BELIEF)}
        FROM groundings
        WHERE annotation_id = :annotation AND job = :job ORDER BY entity, box"""
    return reader.select(query, {"annotation": annotation_id, "job": job}).records


def _entities(reader: Reader, annotations: Sequence[int]) -> dict[int, list[Entity]]:
    """The entities of annotations, each with its boxes."""
    query = f"""
        SELECT e.annotation_id, e.ordinal, e.phrase, e.phrase_norm, e.head, e.span_start, e.span_end, e.score,
               b.x1, b.y1, b.x2, b.y2, b.area, b.score, b.valid,
               b.expected_x1, b.expected_y1, b.expected_x2, b.expected_y2,
               b.sigma_x1, b.sigma_y1, b.sigma_x2, b.sigma_y2,
               {", ".join(f"b.{name}" for name in BELIEF[:-1])}, {trust("b", "r")}
        FROM entities e
        JOIN annotations a ON a.id = e.annotation_id
        JOIN recipes r ON r.id = a.recipe_id
        LEFT JOIN boxes b ON b.annotation_id = e.annotation_id AND b.entity = e.ordinal
        WHERE e.annotation_id {reader.in_list("ids")}
        ORDER BY e.annotation_id, e.ordinal, b.ordinal"""
    found: dict[int, list[Entity]] = defaultdict(list)
    rows = reader.select(query, {"ids": list(annotations)}).rows
    before: tuple[int, int] | None = None
    boxes: list[Box] = []
    for id_, ordinal, phrase, norm, head, start, end, score, *box in rows:
        if (id_, ordinal) != before:
            before, boxes = (id_, ordinal), []
            found[id_].append(Entity(ordinal, phrase, norm, head, start, end, score, boxes))
        if box[0] is not None:
            boxes.append(_box(box))
    return found


def _box(row: Sequence[Any]) -> Box:
    """The box of a row: as far as `valid`, the edges that are expected, their uncertainty, and what is believed."""
    expected = None if row[7] is None else (row[7], row[8], row[9], row[10])
    sigma = None if row[11] is None else (row[11], row[12], row[13], row[14])
    return Box._make((*row[:6], bool(row[6]), expected, sigma, *row[15:]))
