"""Records as pages show them: names to read, the caption in pieces, boxes and their labels on the picture."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlencode

from catalog.drawing import colour_number, pieces_of
from catalog.lettering import font_of, legible
from catalog.records import Box, Entity, Record
from catalog.search import Match
from schemas.grounding import phrase_norm
from schemas.uris import printable, scheme_of

LONG_SIDE = 1000
"""Boxes are drawn on a canvas whose long side is this, however large the picture is."""
LETTERS, LABEL_HEIGHT, LABEL_MARGIN = 22, 32, 9
"""Of a label, on that canvas: the size of its letters, its height, and the margin on either side."""


class Frame(NamedTuple):
    """The canvas: a picture's shape."""

    width: float
    height: float

    @classmethod
    def of(cls, width: int, height: int) -> "Frame":
        scale = LONG_SIDE / max(width, height, 1)
        return cls(round(width * scale, 2), round(height * scale, 2))


@dataclass(frozen=True, slots=True)
class ShownBox:
    """A box on the canvas, upright and within it; `found` is one that the search has found."""

    entity: int
    colour: int
    x: float
    y: float
    width: float
    height: float
    label: str
    about: str
    valid: bool
    found: bool


@dataclass(frozen=True, slots=True)
class Label:
    """A box's label: its upper left corner, and its width, into which its text is brought in any font."""

    box: ShownBox
    x: float
    y: float
    width: float
    height: float = LABEL_HEIGHT
    margin: float = LABEL_MARGIN
    letters: float = LETTERS


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the caption; that of a phrase has its entity's number, its colour, and the query that finds it."""

    words: str
    entity: int = -1
    colour: int = 0
    query: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A phrase with what is known of it, for the list beside the picture."""

    entity: int
    colour: int
    phrase: str
    query: str
    boxes: Sequence[Box]


@dataclass(frozen=True, slots=True)
class Shown:
    """A record with all that a page says of it."""

    record: Record
    name: str
    frame: Frame
    pieces: Sequence[Piece]
    boxes: Sequence[ShownBox]
    href: str = field(default="")

    @property
    def caption(self) -> str:
        """The caption in one line of what can be seen."""
        return printable(self.record.caption)

    @property
    def has_trust(self) -> bool:
        """Whether it is known of any of the boxes."""
        return any(box.trust is not None for entity in self.record.entities for box in entity.boxes)

    @property
    def labels(self) -> Sequence[Label]:
        """The boxes' labels: those of the first phrases have the best places."""
        return list(_labels(sorted(self.boxes, key=lambda box: box.entity), self.frame))

    @property
    def rows(self) -> Sequence[Row]:
        """The phrases, for the list beside the picture."""
        return [
            Row(e.ordinal, colour_number(e), printable(e.phrase) or "(no phrase)", _query(e), e.boxes)
            for e in self.record.entities
        ]


def shown(record: Record, matches: Collection[Match] = (), href: str = "") -> Shown:
    """The record as pages show it."""
    frame = Frame.of(record.width, record.height)
    boxes = sorted(_boxes(record, frame, matches), key=lambda box: -box.width * box.height)  # small ones on top
    return Shown(
        record,
        name_of(record.uri),
        frame,
        list(_pieces(record)),
        boxes,
        href,
    )


def name_of(uri: str) -> str:
    """The last part of a URI as its owner knows it, in one line: what cannot be seen is escaped."""
    scheme, last = scheme_of(uri), uri.rstrip("/").rpartition("/")[2]
    if scheme != "s3":
        last = unquote_to_bytes(last.encode(errors="surrogatepass")).decode(errors="backslashreplace")
    return printable(last) or printable(uri)


def _pieces(record: Record) -> Iterator[Piece]:
    for words, entity in pieces_of(record.caption, record.entities):
        of_phrase = (entity.ordinal, colour_number(entity), _query(entity)) if entity else ()
        yield Piece(printable(words), *of_phrase)


def _boxes(record: Record, frame: Frame, matches: Collection[Match]) -> Iterator[ShownBox]:
    for entity in record.entities:
        for number, box in enumerate(entity.boxes):
            (x1, x2), (y1, y2) = _side(box.x1, box.x2, frame.width), _side(box.y1, box.y2, frame.height)
            found = Match(record.annotation_id, entity.ordinal, number) in matches
            corners = (x1, y1, round(x2 - x1, 2), round(y2 - y1, 2))
            label, about = _label(entity, box), _about(entity, box)
            yield ShownBox(entity.ordinal, colour_number(entity), *corners, label, about, box.valid, found)


def _side(one: float, other: float, length: float) -> tuple[float, float]:
    low, high = sorted(round(min(1.0, max(0.0, part)) * length, 2) for part in (one, other))
    return low, high


def _label(entity: Entity, box: Box) -> str:
    words = printable(entity.phrase) or "(no phrase)"
    short = words if len(words) <= 28 else words[:27].rstrip() + "…"
    return short if box.certainty is None else f"{short} {f'{box.certainty:.2f}'.removeprefix('0')}"


def _about(entity: Entity, box: Box) -> str:
    """What a screen reader says of a box."""
    score = "" if box.score is None else f", score {box.score:.2f}"
    trust = "" if box.trust is None else f", trust {box.trust:.2f}"
    warning = "" if box.valid else ", not a valid box"
    return f"{printable(entity.phrase) or 'no phrase'}{score}{trust}, {box.area:.0%} of the picture{warning}"


def _labels(boxes: Sequence[ShownBox], frame: Frame) -> Iterator[Label]:
    """A label for each box where it lies on no other label: over it, under it, or in one of its corners."""
    taken: list[tuple[float, float, float, float]] = []
    font = font_of(LETTERS)
    for box in boxes:
        width = round(font.getlength(legible(box.label)) + 2 * LABEL_MARGIN, 1)
        edge = max(0.0, frame.width - width)
        left, right = min(box.x, edge), max(0.0, min(box.x + box.width - width, edge))
        tops = (box.y - LABEL_HEIGHT - 3, box.y + box.height + 3, box.y + 4, box.y + box.height - LABEL_HEIGHT - 4)
        spots = [(x, y) for y in tops for x in (left, right) if 0 <= y <= frame.height - LABEL_HEIGHT]
        free = (spot for spot in spots if not any(_meet(spot, width, other) for other in taken))
        x, y = next(free, spots[0] if spots else (left, 0.0))
        taken.append((x, y, x + width, y + LABEL_HEIGHT))
        yield Label(box, round(x, 1), round(y, 1), width)


def _meet(spot: tuple[float, float], width: float, other: tuple[float, float, float, float]) -> bool:
    x, y = spot
    return x < other[2] and other[0] < x + width and y < other[3] and other[1] < y + LABEL_HEIGHT


def _query(entity: Entity) -> str:
    """What finds this phrase in all pictures."""
    norm = entity.phrase_norm
    if not norm.strip("=* "):
        return ""
    # who searches may name an article, which is left out: one that belongs to the phrase has another before it
    return "?" + urlencode({"phrase": f"={norm}" if phrase_norm(norm) == norm else f"=the {norm}"})
