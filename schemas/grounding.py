"""From the text that KOSMOS-2 generates to a caption, its entities and their boxes."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

GRID = 32
CELLS = GRID * GRID

Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2: the upper left and the lower right corner."""

_CELL = re.compile(r"<patch_index_([0-9]{4})>")
_DELIMITER = "</delimiter_of_multi_objects/>"
_TAG = re.compile(
    rf"<(?:grounding|/?phrase|/?object|/?image|/?s|pad|unk|mask|/doc|/chunk|/line)>|{_DELIMITER}|{_CELL.pattern}"
)
"""The tags that the tokenizer knows. Any other `<` belongs to the words: "3 < 5 and 7 > 2"."""
_OBJECT = re.compile(
    rf"(?:<phrase>(?P<phrase>(?:(?!{_TAG.pattern}).)*+)(?:</phrase>)?\s*+)?"
    rf"<object>(?P<cells>(?:{_CELL.pattern}|{_DELIMITER}|\s)*+)",
    re.DOTALL,
)
"""An object, with the phrase right before it if there is one. A missing end tag (a text that was cut) is no harm."""


def tag_in(text: str) -> str | None:
    """The first tag of the model in a text, None where there is none."""
    found = _TAG.search(text)
    return found[0] if found else None


def fractions(x1: float, y1: float, x2: float, y2: float, size: tuple[float, float]) -> Corners:
    """A box in pixels as fractions of an image of this size (width, height)."""
    width, height = size
    return x1 / width, y1 / height, x2 / width, y2 / height


def from_coco(bbox: tuple[float, float, float, float], size: tuple[float, float]) -> Corners:
    """COCO's left, top, width, height as fractions of an image of this size."""
    x, y, width, height = bbox
    return fractions(x, y, x + width, y + height, size)


@dataclass(frozen=True, slots=True)
class Box:
    """A box as fractions of the upright image, from the cells `first` and `second` of the 32×32 grid.

    A pair that is inverted, or names a cell that the grid lacks (1024 and more), is not `valid`: its coordinates are
    what the rule gives, so x1 may lie right of x2, and y go beyond 1.

    `token` is the place of its first location token among all those of the raw text, counted from the end (the last
    is -1); its second is the next one. Raw text and generated tokens end alike, however many the prompt had.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    first: int
    second: int
    token: int
    valid: bool

    @property
    def corners(self) -> Corners:
        """As `iou` takes them."""
        return self.x1, self.y1, self.x2, self.y2

    @property
    def area(self) -> float:
        """As a fraction of the image; 0 for an inverted box."""
        return max(0.0, self.x2 - self.x1) * max(0.0, self.y2 - self.y1)


@dataclass(frozen=True, slots=True)
class Entity:
    """A phrase of the caption with its boxes: `caption[start:end] == phrase`.

    An object with no phrase right before it is an entity as well: its phrase is empty, at the place where it stood.
    """

    phrase: str
    start: int
    end: int
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Grounding:
    """What people read, and what in it is tied to which part of the image."""

    caption: str
    entities: tuple[Entity, ...]


def parse(raw_text: str) -> Grounding:
    """The caption, free of tags and outer spaces, and its entities in reading order.

    `raw_text` is the decoded prompt and generation after `</image>`. Every string has a grounding, nothing raises:
    a phrase without a box is just words, an odd location token is left out, whole pairs of a cut-off object count.
    What transformers' `clean_text_and_extract_entities_with_bboxes` reads rightly is read the same here.
    """
    words = _TAG.sub("", raw_text)
    caption = words.strip()
    margin = len(words) - len(words.lstrip())
    entities = []
    for start, end, boxes in _objects(raw_text):
        phrase = words[start:end]
        start = min(max(start + len(phrase) - len(phrase.lstrip()) - margin, 0), len(caption))
        phrase = phrase.strip()
        entities.append(Entity(phrase, start, start + len(phrase), boxes))
    return Grounding(caption, tuple(entities))


def phrase_norm(phrase: str) -> str:
    """The phrase in lower case, spaces folded, without its leading article."""
    words = phrase.lower().split()
    return " ".join(words[1:] if len(words) > 1 and words[0] in {"a", "an", "the"} else words)


def box_from_cells(first: int, second: int) -> Corners:
    """x1, y1, x2, y2 as fractions, from the upper left and the lower right cell.

    Corners are cell centres; a pair within one row or one column takes the outer edges, or it would have no area.
    (The rule of microsoft/unilm, as `patch_index_to_coordinate` in transformers.)
    """
    (row1, column1), (row2, column2) = divmod(first, GRID), divmod(second, GRID)
    near, far = (0.0, 1.0) if row1 == row2 or column1 == column2 else (0.5, 0.5)
    return (column1 + near) / GRID, (row1 + near) / GRID, (column2 + far) / GRID, (row2 + far) / GRID


def cells_from_box(x1: float, y1: float, x2: float, y2: float) -> tuple[int, int]:
    """The cells that hold the upper left and the lower right corner of a box, in fractions of the image.

    (The rule of microsoft/unilm, as `coordinate_to_patch_index` in transformers.)
    """
    left, top = (math.floor(value * GRID) for value in (x1, y1))
    right, bottom = (max(0, math.ceil(value * GRID - 1)) for value in (x2, y2))
    return top * GRID + left, bottom * GRID + right


def iou(one: Corners, other: Corners) -> float:
    """The area that two boxes share over the area that they cover; 0 where one of them is inverted, or has no area.

    It is the same in pixels and in fractions of the image, as long as both boxes come in the same.
    """
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = one, other
    shared = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    if not shared:
        return 0.0
    return shared / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared)


def _objects(raw_text: str) -> Iterator[tuple[int, int, tuple[Box, ...]]]:
    """Where in the words (raw text without tags) each object's phrase starts and ends, and its boxes."""
    starts = [match.start() for match in _CELL.finditer(raw_text)]
    tokens = {start: place - len(starts) for place, start in enumerate(starts)}
    read = length = 0
    for match in _OBJECT.finditer(raw_text):
        boxes = tuple(_boxes(match, tokens))
        phrase = match["phrase"] or ""
        length += len(_TAG.sub("", raw_text[read : match.start()]))
        if boxes:
            yield length, length + len(phrase), boxes
        read = match.start()


def _boxes(match: re.Match[str], tokens: dict[int, int]) -> Iterator[Box]:
    """The boxes of an object: location tokens two by two, anew after each delimiter."""
    half: re.Match[str] | None = None
    for tag in _TAG.finditer(match.string, *match.span("cells")):
        if tag[0] == _DELIMITER:
            half = None
        elif half is None:
            half = tag
        else:
            yield _box(int(half[1]), int(tag[1]), tokens[half.start()])
            half = None


def _box(first: int, second: int, token: int) -> Box:
    (row1, column1), (row2, column2) = divmod(first, GRID), divmod(second, GRID)
    valid = row1 <= row2 and column1 <= column2 and max(first, second) < CELLS
    return Box(*box_from_cells(first, second), first, second, token, valid)
